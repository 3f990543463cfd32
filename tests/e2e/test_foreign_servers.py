"""Clients of TensorFlow Serving in front of what is none, and addresses that are none."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from model_server import GrpcServer, RestServer

from kdant_tf.serving.client import connect, make_client
from kdant_tf.serving.server import Server, ServerError, parse_address


class _Drops(BaseHTTPRequestHandler):
    """Sends a byte of an answer now and then, and never the last one."""

    enough = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.enough.wait(0.02):
                self.wfile.write(b" ")

    def log_message(self, *args: Any) -> None:
        pass


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>It works!</html>")

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve_http(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def reach(port: int, exported: Path, *, over_grpc: bool) -> str:
    with pytest.raises(ServerError) as caught:
        connect(Server(host="127.0.0.1", port=port, timeout_s=5), exported, grpc=over_grpc)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_answer_in_drops_has_its_deadline_too():
    with serve_http(_Drops) as port:
        client = make_client(Server(host="127.0.0.1", port=port, timeout_s=0.3), grpc=False)
        with pytest.raises(ServerError, match="gave no answer within"):
            client.signatures()
        _Drops.enough.set()


def test_a_server_that_is_none(served, exported):
    with serve_http(_Page) as page:
        assert "200 with text/html in place of JSON" in reach(page, exported, over_grpc=False)
        assert "does not answer as TensorFlow Serving does" in reach(page, exported, over_grpc=True)
    for server, speaks_grpc in ((RestServer(served), True), (GrpcServer(served), False)):
        server.start()
        assert "does not answer as TensorFlow Serving does" in reach(
            server.port, exported, over_grpc=speaks_grpc
        )
        server.stop()


@pytest.mark.parametrize("over_grpc", [False, True])
def test_a_closed_port(exported, over_grpc):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert "is not available" in (message := reach(port, exported, over_grpc=over_grpc))
    assert "onnection refused" in message or over_grpc


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:", "host:0", "host:99999", "http://host:80", "a b:1", ""]
)
def test_an_address_that_is_none(text):
    with pytest.raises(ServerError, match="HOST:PORT"):
        parse_address(text)


def test_addresses():
    assert parse_address("localhost:8501") == ("localhost", 8501)
    assert parse_address("[::1]:8500") == ("[::1]", 8500)
