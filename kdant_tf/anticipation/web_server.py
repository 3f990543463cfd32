"""A web server of one page: its files, and over a WebSocket what the page shows, always the newest alone.

It runs in a thread of its own. Whoever publishes never waits: a state or a picture takes the place of the
one before, a browser gets the next when it has shown the last ones, and pictures are encoded once for all
browsers, and only while somebody looks. So neither memory nor the camera depends on how slow a browser is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import ipaddress
import logging
import math
import secrets
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from tf_records.errors import KdantError

_log = logging.getLogger(__name__)
# What a browser sends to ask for what the page offers.
REQUEST = "again"
# More than these are sent away.
MOST_BROWSERS = 32
# Messages that a browser gets before it has shown the first of them.
_IN_FLIGHT = 2
_MOST_PICTURES_PER_S = 20
# Seconds after which a connection that says nothing, and a browser that answers no ping, are gone.
_IDLE_S, _PING_S = 60, 20
# Seconds for the last words to browsers when the server ends.
_FAREWELL_S = 1.0
_LARGEST_REQUEST = 16_384
_TOKEN_BYTES = 24
_TIME = struct.Struct(">d")
# Small pictures of what was shown lately, one each so many seconds: for a browser that comes late.
STRIP = "strip"
_STRIP_EVERY_S, _STRIP_LENGTH = 0.5, 160
_SMALL = struct.Struct(">dI")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class WebFile(NamedTuple):
    """A file of the page."""

    content: bytes
    media_type: str


class WebPicture(NamedTuple):
    """Shown at `time_s`; another thread has `encode` make a JPEG of it, `encode_small` one to keep."""

    time_s: float
    encode: Callable[[], bytes]
    encode_small: Callable[[], bytes] | None = None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it; a name other than localhost counts as reached by others."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class WebServer(AbstractContextManager["WebServer"]):
    """Listens from the start, answers while its context is open.

    A browser gets text messages, as `publish_state` takes them, and binary ones: the time of a picture in
    seconds, a float64 of 8 bytes, big end first, and its JPEG. It sends a message back when it has shown one,
    or `REQUEST`. The file `STRIP` has small pictures of what was shown before it came: of each the time, as
    above, the number of bytes, a uint32, and a JPEG.

    Args:
        files: of the page by name; "" is the page itself.
        host: name or address to listen at. Where others than this machine reach it, `token` is random and
            part of every address. Else it is empty, and requests to another host's name are refused, so that
            no foreign page gets here under a name of its own (DNS rebinding).
        port: 0 takes a free one.

    Raises:
        KdantError: the port is taken or not allowed, or this machine has no such address.
    """

    def __init__(self, files: Mapping[str, WebFile], *, host: str = "127.0.0.1", port: int = 8000) -> None:
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(_TOKEN_BYTES)
        self.files = files
        self._host = host.strip("[]")
        try:
            family = socket.getaddrinfo(self._host or None, port, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server((self._host, port), family=family, backlog=MOST_BROWSERS)
        except (OSError, UnicodeError) as error:
            raise KdantError(_explain(error, host, port)) from error
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._browsers: set[Browser] = set()
        self._visited, self.asked, self._closing = (threading.Event() for _ in range(3))
        # Each with a number that rises: nothing is older than it was.
        self.state: tuple[int, str] = (0, "")
        self.jpeg: tuple[int, bytes] = (0, b"")
        self._picture: tuple[int, WebPicture | None] = (0, None)
        self._strip: deque[tuple[float, bytes]] = deque(maxlen=_STRIP_LENGTH)
        self._loop = asyncio.new_event_loop()
        self._stop, self._fresh = asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="kdant-web", daemon=True)

    @property
    def url(self) -> str:
        """The address to open, with the token where there is one."""
        host = self._host
        if host in ("", "0.0.0.0", "::"):  # all addresses of this machine
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"{self.token}/" if self.token else "")

    @property
    def browsers(self) -> int:
        """How many look at the page."""
        return len(self._browsers)

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Browsers get the last state before the connections are closed."""
        for event in (self._closing, self._visited, self.asked):
            event.set()
        self._call(self._stop.set)
        self._thread.join()

    def publish_state(self, text: str) -> None:
        """What the page shows from now on, from any thread; does not wait."""
        self.state = (self.state[0] + 1, text)
        self._call(self._wake)

    def publish_picture(self, picture: WebPicture) -> None:
        """The newest picture, from any thread; does not wait."""
        self._picture = (self._picture[0] + 1, picture)
        if self._browsers:
            self._call(self._fresh.set)

    def clear_strip(self) -> None:
        """Forgets the small pictures: what comes is another source."""
        self._strip = deque(maxlen=_STRIP_LENGTH)

    @property
    def strip(self) -> bytes:
        """The small pictures of what was shown lately."""
        return b"".join(_SMALL.pack(time_s, len(jpeg)) + jpeg for time_s, jpeg in [*self._strip])

    def wait_for_browser(self) -> bool:
        """Waits until a browser has come; False where the server is closed before."""
        self._visited.wait()
        return not self._closing.is_set()

    def wait_for_request(self) -> bool:
        """Waits until a browser asks for what the page offers; False where the server is closed before."""
        self.asked.clear()
        if not self._closing.is_set():
            self.asked.wait()
        return not self._closing.is_set()

    def sleep(self, seconds: float) -> bool:
        """Waits; False, and at once, where the server is closed."""
        return not self._closing.wait(max(0.0, seconds))

    def admits(self, request: HTTPServerRequest, token: str | None) -> bool:
        """Whether a request names the token, or where there is none, this machine."""
        if self.token:
            return hmac.compare_digest((token or "").encode(), self.token.encode())
        return not token and is_loopback(request.host_name)

    def add(self, browser: Browser) -> bool:
        """Takes a browser that has come; False where there are too many."""
        if len(self._browsers) >= MOST_BROWSERS:
            return False
        self._browsers.add(browser)
        self._visited.set()
        self._fresh.set()
        return True

    def remove(self, browser: Browser) -> None:
        """Forgets a browser that has left."""
        self._browsers.discard(browser)

    def _call(self, function: Callable[[], Any]) -> None:
        with contextlib.suppress(RuntimeError):  # of a loop that is closed
            self._loop.call_soon_threadsafe(function)

    def _wake(self) -> None:
        for browser in self._browsers:
            browser.changed.set()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        start = rf"/(?:(?P<token>[\w-]{{1,{2 * _TOKEN_BYTES}}})/)?"
        routes = [(rf"{start}live", Browser), (rf"{start}(?P<name>[\w.]*)", _FileHandler)]
        application = Application(
            [(route, handler, {"server": self}) for route, handler in routes],
            default_handler_class=_NowhereHandler,
            default_handler_args={"server": self},
            log_function=lambda handler: None,
            websocket_ping_interval=_PING_S,
            websocket_ping_timeout=_PING_S,
            websocket_max_message_size=_LARGEST_REQUEST,
        )
        limits = {"max_header_size": _LARGEST_REQUEST, "max_body_size": _LARGEST_REQUEST}
        http = HTTPServer(application, idle_connection_timeout=_IDLE_S, **limits)
        http.add_socket(self._socket)
        # One thread, whose memory is used again; a pool's would be taken from one after the other.
        with ThreadPoolExecutor(1, "kdant-jpeg") as encoder:
            pictures = asyncio.create_task(self._encode_pictures(encoder))
            await self._stop.wait()
            pictures.cancel()
        http.stop()
        await asyncio.gather(*(browser.dismiss() for browser in self._browsers))
        await http.close_all_connections()

    async def _encode_pictures(self, encoder: Executor) -> None:
        """Makes a JPEG of the newest picture, over and over, while there are browsers."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            number, picture = self._picture
            if picture is None or number == self.jpeg[0] or not self._browsers:
                continue
            pause = asyncio.create_task(asyncio.sleep(1 / _MOST_PICTURES_PER_S))
            try:
                jpeg = await self._loop.run_in_executor(encoder, picture.encode)
            except Exception:  # of any kind: answers go on without this picture, the log says why
                _log.exception("A picture cannot be shown.")
            else:
                self.jpeg = (number, _TIME.pack(picture.time_s) + jpeg)
                self._wake()
                await self._keep_small(picture, encoder)
            await pause

    async def _keep_small(self, picture: WebPicture, encoder: Executor) -> None:
        strip = self._strip  # It may be another when the picture is done.
        last = strip[-1][0] if strip else -math.inf
        if picture.encode_small is not None and picture.time_s - last >= _STRIP_EVERY_S:
            small = await self._loop.run_in_executor(encoder, picture.encode_small)
            strip.append((picture.time_s, small))


class Browser(WebSocketHandler):
    """One browser that looks at the page; `changed` is set where there may be something to send."""

    def initialize(self, server: WebServer) -> None:
        self._server = server
        self.changed, self._gone = asyncio.Event(), asyncio.Event()
        self._ready, self._state, self._jpeg = _IN_FLIGHT, 0, 0
        self._sending: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        if not self._server.admits(self.request, self.path_kwargs.get("token")):
            raise HTTPError(403)

    def open(self, *args: str, **kwargs: str) -> None:
        if not self._server.add(self):
            self.close(1013, f"{MOST_BROWSERS} browsers look at this page already.")
            return
        self.changed.set()
        self._sending = asyncio.create_task(self._send())

    def on_message(self, message: str | bytes) -> None:
        """It has shown a message, or asks for what the page offers."""
        if message == REQUEST:
            self._server.asked.set()
            return
        self._ready = min(_IN_FLIGHT, self._ready + 1)
        self.changed.set()

    def on_close(self) -> None:
        self._server.remove(self)
        self._gone.set()
        if self._sending is not None:
            self._sending.cancel()

    async def dismiss(self) -> None:
        """Sends the last state, says good-bye, and closes the connection once the browser has heard it."""
        stream = None if self.ws_connection is None else self.ws_connection.stream
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self.write_message(self._server.state[1])
                self.close(1001, "kdant has ended.")
                await self._gone.wait()
        except (TimeoutError, WebSocketClosedError):
            if stream is not None:
                stream.close()

    async def _send(self) -> None:
        """Sends what is newer than what it has, each time that it is ready for more."""
        with contextlib.suppress(WebSocketClosedError):
            while True:
                await self.changed.wait()
                self.changed.clear()
                while self._ready and (message := self._next()):
                    self._ready -= 1
                    await self.write_message(message, binary=isinstance(message, bytes))

    def _next(self) -> str | bytes | None:
        number, text = self._server.state
        if number > self._state:
            self._state = number
            return text
        number, jpeg = self._server.jpeg
        if number > self._jpeg:
            self._jpeg = number
            return jpeg
        return None


class _FileHandler(RequestHandler):
    """A file of the page."""

    def initialize(self, server: WebServer) -> None:
        self._server = server

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def get(self, token: str | None = None, name: str = "") -> None:
        if not self._server.admits(self.request, token):
            self._say(403, "Open the address that kdant printed, all of it.")
        elif name == STRIP:
            self.set_header("Content-Type", "application/octet-stream")
            self.finish(self._server.strip)
        elif (file := self._server.files.get(name)) is None:
            self._say(404, "There is no such page.")
        else:
            self.set_header("Content-Type", file.media_type)
            self.finish(file.content)

    def _say(self, status: int, sentence: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(sentence)


class _NowhereHandler(_FileHandler):
    """Any other address."""

    def get(self, token: str | None = None, name: str = "") -> None:
        self._say(404, "There is no such page.")


def _explain(error: Exception, host: str, port: int) -> str:
    """One sentence on why nobody can listen there, and what to do."""
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use. Choose another: --port, 0 for one that is free."
    if number == errno.EACCES:
        return f"Port {port} is for the system's own services. Choose one above 1023: --port."
    if number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror | UnicodeError):
        return f"This machine has no address {host}. Give one of its own: --host 0.0.0.0 stands for all."
    return f"Nothing can listen at port {port} of {host}: {getattr(error, 'strerror', None) or error}."
