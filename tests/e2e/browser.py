"""A page in headless Chromium, driven through its DevTools protocol over a pair of pipes."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe"),
)
_PATIENCE_S = 120
_WHOLE = """(async () => {
  while (document.readyState !== "complete") await new Promise((done) => setTimeout(done, 10));
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
})()"""
# What the browser reads from and writes to with --remote-debugging-pipe.
_THEIR_READ, _THEIR_WRITE, _ABOVE = 3, 4, 10


def find_browser() -> str | None:
    """Path of a Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """A Chromium with one empty page; a context manager.

    Args:
        profile: folder that it may make.

    `events` are those that it told of so far.
    """

    def __init__(self, profile: Path) -> None:
        path = find_browser()
        assert path is not None
        self.events: list[dict[str, Any]] = []
        self._last, self._session = 0, ""
        theirs, ours = _pipe()
        ours_read, theirs_write = _pipe()

        def give() -> None:
            os.dup2(theirs, _THEIR_READ)
            os.dup2(theirs_write, _THEIR_WRITE)

        self._process = subprocess.Popen(
            [path, *_FLAGS, f"--user-data-dir={profile}"],
            stderr=subprocess.DEVNULL,
            preexec_fn=give,
            pass_fds=(_THEIR_READ, _THEIR_WRITE),
        )
        os.close(theirs)
        os.close(theirs_write)
        self._to, self._from = os.fdopen(ours, "wb"), os.fdopen(ours_read, "rb")
        # A browser that hangs is ended, and what waits for it fails.
        self._patience = threading.Timer(_PATIENCE_S, self._process.kill)
        self._patience.start()

    def __enter__(self) -> "Browser":
        found = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=found, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self._patience.cancel()
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and waits for its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        result = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def show(self, url: str, width: int, height: int, scheme: str = "light") -> None:
        """Goes to a page at a size and colour scheme, and waits until it and all its pictures are there."""
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Emulation.setScrollbarsHidden", hidden=True)
        self.resize(width, height)
        self.ask("Page.navigate", url=url)
        self.evaluate(_WHOLE)

    def resize(self, width: int, height: int) -> None:
        """Gives the page another size, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self) -> bytes:
        """What the page shows, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def complaints(self) -> list[dict[str, Any]]:
        """Errors and messages of all pages so far."""
        return [
            *(told["entry"] for told in self.told("Log.entryAdded")),
            *self.told("Runtime.exceptionThrown"),
            *self.told("Runtime.consoleAPICalled"),
        ]

    def told(self, method: str) -> list[dict[str, Any]]:
        """What events of one kind were about."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        return json.loads(message)


def _pipe() -> tuple[int, int]:
    """Ends to read from and to write to, out of the way of those that the browser expects."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
