"""The live page's server, without a browser: slow, many, leaving and foreign clients, and ports in use."""

import asyncio
import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from kdant_tf.anticipation import web_server
from kdant_tf.anticipation.web_server import (
    MOST_BROWSERS,
    REQUEST,
    WebFile,
    WebPicture,
    WebServer,
    is_loopback,
)
from tf_records.errors import KdantError

FILES = {"": WebFile(b"<p>page", "text/html"), "page.js": WebFile(b"1", "text/javascript")}


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer(FILES, port=0) as opened:
        yield opened


def ask(server: WebServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def follow(server: WebServer, work: Callable[..., Awaitable[Any]], count: int = 1, **headers: str) -> Any:
    """What `work` makes of `count` open connections to the page."""
    token = f"{server.token}/" if server.token else ""
    url = f"ws://127.0.0.1:{server.port}/{token}live"

    async def run() -> Any:
        request = [HTTPRequest(url, headers=headers) for _ in range(count)]
        sockets = await asyncio.gather(*(websocket_connect(each) for each in request))
        streams = [each.protocol.stream for each in sockets if each.protocol is not None]
        try:
            async with asyncio.timeout(60):
                while server.browsers < min(count, MOST_BROWSERS):
                    await asyncio.sleep(0.001)
                return await work(*sockets)
        finally:
            for each in sockets:
                each.close()
            async with asyncio.timeout(60):
                while not all(each.closed() for each in streams):
                    await asyncio.sleep(0.001)

    return asyncio.run(run())


def publish(server: WebServer, count: int, size: int = 100) -> None:
    for number in range(1, count + 1):
        server.publish_state(json.dumps({"number": number}))
        server.publish_picture(WebPicture(number / 8, lambda number=number: bytes([number % 256]) * size))


async def read(socket: WebSocketClientConnection) -> Any:
    """The next message: a state, or the time of a picture and its bytes."""
    message = await socket.read_message()
    if isinstance(message, bytes):
        return struct.unpack(">d", message[:8])[0], message[8:]
    return None if message is None else json.loads(message)


def test_files_come_with_a_strict_policy(server: WebServer) -> None:
    status, headers, content = ask(server, "/")
    assert (status, content, headers["Content-Type"]) == (200, b"<p>page", "text/html")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers
    assert ask(server, "/page.js")[2] == b"1"
    for path in ("/no.js", "/../secret", "/a/b/c", "/" + "x" * 40 + "/"):
        status, headers, content = ask(server, path)
        assert (status >= 403, headers["Content-Type"]) == (True, "text/plain; charset=utf-8"), path


def test_a_browser_gets_the_newest_state_and_picture(server: WebServer) -> None:
    publish(server, 30)

    async def work(socket: WebSocketClientConnection) -> list[Any]:
        return [await read(socket), await read(socket)]

    assert follow(server, work) == [{"number": 30}, (30 / 8, bytes([30]) * 100)]


def test_what_is_not_yet_shown_is_not_followed_by_more(server: WebServer) -> None:
    """A browser that says nothing gets two messages; for each that it has shown another one, the newest."""
    publish(server, 1)

    async def work(socket: WebSocketClientConnection) -> None:
        assert await read(socket) == {"number": 1}
        assert (await read(socket))[0] == 1 / 8
        publish(server, 200)
        late = asyncio.ensure_future(read(socket))
        for _ in range(20):
            await asyncio.sleep(0)
        assert ask(server, "/")[0] == 200  # The server has gone round meanwhile.
        assert not late.done()
        await socket.write_message("shown")
        assert await late == {"number": 200}

    follow(server, work)


def test_a_slow_browser_keeps_neither_the_camera_nor_the_others(server: WebServer) -> None:
    """It reads nothing at all, of pictures larger than any buffer on the way."""
    server.publish_state("{}")
    slow = socket.create_connection(("127.0.0.1", server.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    request = ("GET /live HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade")
    key = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MTIz", "", "")
    slow.sendall("\r\n".join((*request, *key)).encode())
    assert server.wait_for_browser()

    async def work(quick: WebSocketClientConnection) -> list[float]:
        times: list[float] = []
        for number in range(1, 6):
            server.publish_picture(WebPicture(float(number), lambda: bytes(9_000_000)))
            while not times or times[-1] != number:
                message = await read(quick)
                await quick.write_message("shown")
                if isinstance(message, tuple):
                    times.append(message[0])
        assert server.browsers == 2
        return times

    with slow:
        assert follow(server, work) == [1, 2, 3, 4, 5]


def test_ten_browsers_see_the_same_and_pictures_are_encoded_once(server: WebServer) -> None:
    encoded: list[int] = []

    def encode() -> bytes:
        encoded.append(1)
        return b"x"

    async def work(*sockets: WebSocketClientConnection) -> list[Any]:
        server.publish_picture(WebPicture(1.5, encode))
        server.publish_state("[7]")
        return [sorted([str(await read(each)), str(await read(each))]) for each in sockets]

    assert follow(server, work, 10) == [["(1.5, b'x')", "[7]"]] * 10
    assert encoded == [1]


def test_nothing_is_encoded_while_nobody_looks(server: WebServer) -> None:
    def fail() -> bytes:
        raise AssertionError

    for number in range(50):
        server.publish_picture(WebPicture(number, fail))
    server.publish_picture(WebPicture(50.0, lambda: b"last"))

    async def work(socket: WebSocketClientConnection) -> Any:
        return await read(socket)

    assert follow(server, work) == (50.0, b"last")


def test_small_pictures_are_kept_for_who_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """One each half second, the newest of them, and none of another source."""
    monkeypatch.setattr(web_server, "_MOST_PICTURES_PER_S", 1000)
    monkeypatch.setattr(web_server, "_STRIP_LENGTH", 3)
    head, kept = struct.Struct(">dI"), []

    async def work(socket: WebSocketClientConnection) -> None:
        for number in range(12):
            small = b"%02d" % number
            server.publish_picture(WebPicture(number / 4, lambda: b"large", lambda small=small: small))
            assert await read(socket) == (number / 4, b"large")
            await socket.write_message("shown")
            while number % 2 == 0 and not server.strip.endswith(small):
                await asyncio.sleep(0.001)
        kept.append(ask(server, "/strip")[2])

    with WebServer(FILES, port=0) as server:
        follow(server, work)
        server.clear_strip()
        assert ask(server, "/strip")[::2] == (200, b"")
    times = [6 / 4, 8 / 4, 10 / 4]
    assert kept == [b"".join(head.pack(time_s, 2) + b"%02d" % (4 * time_s) for time_s in times)]


def test_a_picture_that_cannot_be_shown_does_not_end_the_others(
    server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Event()

    def fail() -> bytes:
        tried.set()
        raise ValueError("no such colours")

    async def work(socket: WebSocketClientConnection) -> Any:
        server.publish_picture(WebPicture(1.0, fail))
        await asyncio.to_thread(tried.wait)
        server.publish_picture(WebPicture(2.0, lambda: b"good"))
        return await read(socket)

    assert follow(server, work) == (2.0, b"good")
    assert "A picture cannot be shown." in caplog.text


def test_a_browser_that_leaves_is_forgotten(server: WebServer) -> None:
    async def work(stays: WebSocketClientConnection, leaves: WebSocketClientConnection) -> None:
        assert server.browsers == 2
        leaves.close()
        while server.browsers == 2:
            publish(server, 1)
            await asyncio.sleep(0.001)
        publish(server, 1)
        assert await read(stays) is not None

    follow(server, work, 2)


def test_too_many_browsers_are_told_so(server: WebServer) -> None:
    async def work(*sockets: WebSocketClientConnection) -> None:
        reads = {asyncio.ensure_future(each.read_message()): each for each in sockets}
        (done,), waiting = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        extra = reads[done]
        assert done.result() is None
        assert (extra.close_code, extra.close_reason) == (1013, "32 browsers look at this page already.")
        assert server.browsers == MOST_BROWSERS

    follow(server, work, MOST_BROWSERS + 1)


def test_the_end_is_told(server: WebServer) -> None:
    async def work(socket: WebSocketClientConnection) -> None:
        publish(server, 3)
        for _ in range(2):
            await read(socket)
        server.publish_state("[1]")
        await asyncio.to_thread(server.__exit__, None, None, None)
        messages = [await read(socket)]
        while messages[-1] is not None:
            messages.append(await read(socket))
        assert messages[-2] == [1]
        assert socket.close_code == 1001

    follow(server, work)
    assert not server.wait_for_browser()
    assert not server.wait_for_request()
    assert not server.sleep(60)
    server.publish_state("too late")


def test_a_browser_asks_again(server: WebServer) -> None:
    async def work(socket: WebSocketClientConnection) -> bool:
        waiting = asyncio.create_task(asyncio.to_thread(server.wait_for_request))
        while not waiting.done():
            await socket.write_message(REQUEST)
            await asyncio.sleep(0.001)
        return await waiting

    assert follow(server, work)


def refused(server: WebServer, path: str, **headers: str) -> int:
    """The status with which a WebSocket is refused."""

    async def run() -> None:
        url = f"ws://127.0.0.1:{server.port}{path}"
        await websocket_connect(HTTPRequest(url, headers=headers))

    with pytest.raises(HTTPClientError) as caught:
        asyncio.run(run())
    return caught.value.code


def test_a_foreign_page_gets_nowhere(server: WebServer) -> None:
    """Neither from its own address, nor under a name of its own for this machine."""
    assert refused(server, "/live", Origin="http://evil.example") == 403
    assert refused(server, "/live", Host=f"evil.example:{server.port}") == 403
    assert ask(server, "/", Host="evil.example")[0] == 403
    assert ask(server, "/", Host=f"localhost:{server.port}")[0] == 200
    assert ask(server, "/", Host="127.0.0.1:9000")[0] == 200  # as through a tunnel


def test_other_machines_need_the_token() -> None:
    with (
        WebServer(FILES, host="0.0.0.0", port=0) as server,
        WebServer(FILES, host="0.0.0.0", port=0) as other,
    ):
        assert re.fullmatch(rf"http://[^/]+:{server.port}/[\w-]{{32}}/", server.url)
        assert server.token != other.token
        for path in ("/", "/page.js", f"/{other.token}/", f"/{server.token[:-1]}/"):
            status, _, content = ask(server, path)
            assert (status, content) == (403, b"Open the address that kdant printed, all of it.")
        assert refused(server, "/live") == 403
        assert refused(server, f"/{other.token}/live") == 403
        assert ask(server, f"/{server.token}/", Host="camera.example")[2] == b"<p>page"
        publish(server, 1)
        assert follow(server, read, 1) == {"number": 1}


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, alone: bool) -> None:
    assert is_loopback(host) == alone


def test_where_nobody_can_listen(server: WebServer) -> None:
    with pytest.raises(KdantError, match=rf"Port {server.port} of 127.0.0.1 is in use. .*--port") as caught:
        WebServer(FILES, port=server.port)
    assert str(caught.value).count(". ") == 1
    for host in ("192.0.2.1", "." * 300):
        with pytest.raises(KdantError, match=r"This machine has no address .*--host"):
            WebServer(FILES, host=host, port=0)
