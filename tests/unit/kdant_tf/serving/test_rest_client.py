"""REST: what is asked, how each answer is understood, and servers that are none."""

import base64
import contextlib
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_server import GrpcServer, RestServer

from kdant_tf.serving.client import connect, make_client
from kdant_tf.serving.rest_client import RestClient
from kdant_tf.serving.server import Server, ServerError


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


class _Scripted(BaseHTTPRequestHandler):
    """Answers every request with `answer`: status, content type and content."""

    answer = (200, "application/json", b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, kind, content = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "content", "words", "tries"),
    [
        (200, b'{"outputs": 3}', "its answer has no outputs", 1),
        (200, b"[1, 2]", "200 with application/json in place of JSON", 1),
        (400, b'{"error": "bad\\nclips"}', "refused the request: bad clips", 1),
        (404, b'{"error": "Servable not found"}', "has no model 'kdant' ready", 1),
        (500, b"{}", "refused the request: status 500", 1),
        (503, b'{"error": "queue is full"}', "is not available: queue is full", 3),
        (503, b"<html>", "is not available: 503 with application/json", 3),
        (504, b'{"error": "late"}', "gave no answer within 5 s", 1),
    ],
)
def test_each_answer_is_understood(
    monkeypatch: pytest.MonkeyPatch, status: int, content: bytes, words: str, tries: int
) -> None:
    """And only what is unavailable is asked again."""
    monkeypatch.setattr(_Scripted, "answer", (status, "application/json", content))
    pauses: list[float] = []
    with serve_http(_Scripted) as port:
        client = RestClient(Server(host="127.0.0.1", port=port, timeout_s=5, tries=3, pause=pauses.append))
        with pytest.raises(ServerError, match=re.escape(words)):
            client.predict("serving_default", {"clips": np.zeros((1, 2), np.uint8)})
    assert len(pauses) == tries - 1


def test_the_request_holds_numbers_or_base64_under_the_models_name(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, Any]] = []

    class Echo(_Scripted):
        answer = (200, "application/json", b'{"outputs": {"probabilities": [[0.25, 0.75]]}}')

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.rfile = io.BytesIO(body)
            super().do_POST()

    frames = np.empty((1, 2), object)
    frames[0] = [b"one", b"two"]
    with serve_http(Echo) as port:
        client = RestClient(Server(host="127.0.0.1", port=port, model_name="a b"))
        outputs = client.predict("encoded", {"frames": frames})
        client.predict("serving_default", {"clips": np.arange(4, dtype=np.uint8).reshape(1, 2, 2)})
    np.testing.assert_array_equal(outputs["probabilities"], [[0.25, 0.75]])
    encoded = [[{"b64": base64.b64encode(data).decode()} for data in (b"one", b"two")]]
    path = "/v1/models/a%20b:predict"
    assert received == [
        (path, {"signature_name": "encoded", "inputs": {"frames": encoded}}),
        (path, {"signature_name": "serving_default", "inputs": {"clips": [[[0, 1], [2, 3]]]}}),
    ]
