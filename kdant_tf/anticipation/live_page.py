"""A page in the browser that shows a source as it comes, and what a model expects of it.

A `LivePage` keeps what is shown: the source, the newest answer, the last minute of them, and what answering
costs; a `PlayedSource` gives the frames of a file at their own times and hands them to the page.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import av

from kdant_tf.anticipation.anticipate import MAX_PAUSE_S, Anticipation, Latencies, find_fps
from kdant_tf.anticipation.overlay import COLORS
from kdant_tf.anticipation.sources import FrameSource, TimedFrame
from kdant_tf.serving.model import AnticipationModel
from kdant_tf.visualization.style import text_on
from tf_records.container import Limits
from tf_records.errors import KdantError
from tf_records.video_file import Resizer, to_picture

if TYPE_CHECKING:
    from kdant_tf.anticipation.web_server import WebServer

# What the time line shows, and how many stretches of one class at most.
LINE_S = 60.0
_MOST_STRETCHES = 1000
# Pixels of the pictures' shorter side at most, and their JPEG quality.
_SHORT_SIDE, _QUALITY = 540, 80
# Of those under the time line.
_SMALL_SIDE = 96
# A video that is later than this plays on from where it is, rather than catch up.
_MOST_LATE_S = 0.5
_FILES = {
    "": ("live_page.html", "text/html; charset=utf-8"),
    "page.css": ("live_page.css", "text/css; charset=utf-8"),
    "page.js": ("live_page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("live_page.svg", "image/svg+xml"),
}


class LivePage(AbstractContextManager["LivePage"]):
    """The page, served while its context is open. No method but the waiting ones waits for a browser.

    Memory holds one picture, and of the last minute answers and small pictures.

    Args:
        host, port: see `WebServer`.

    Raises:
        KdantError: Tornado is not installed, or nothing can listen there.

    Example::

        with LivePage(port=8000) as page, closing(open_source("video.mp4")) as opened:
            print(page.url)
            source = PlayedSource(opened, page)
            page.begin(source, model, stride_s=0.25)
            for each in anticipate(source, model):
                page.expect(each, each.top(5), latencies)
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 8000) -> None:
        try:
            from kdant_tf.anticipation.web_server import WebFile, WebServer
        except ImportError as error:
            raise KdantError(
                f"The live page needs Tornado, which cannot be imported: {error}. Install it: "
                f"pip install 'kdant-tf[web]'."
            ) from error
        folder = Path(__file__).parent
        files = {name: WebFile((folder / file).read_bytes(), kind) for name, (file, kind) in _FILES.items()}
        self.server: WebServer = WebServer(files, host=host, port=port)
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {}
        self._line: deque[list[Any]] = deque(maxlen=_MOST_STRETCHES)
        self._stride_s, self._name, self._places = 0.0, "", dict[str, int]()
        self._resizers: dict[int, tuple[int, Resizer]] = {}

    @property
    def url(self) -> str:
        """The address to open, with the token where there is one."""
        return self.server.url

    def __enter__(self) -> LivePage:
        self.server.__enter__()
        palette = [[color, text_on(color)] for color in COLORS]
        self._publish(palette=palette, status="loading", note="", line=[])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._publish(status="closed", note=str(error) if isinstance(error, KdantError) else "")
        self.server.__exit__(kind, error, traceback)

    def begin(self, source: PlayedSource, model: AnticipationModel, *, stride_s: float) -> None:
        """Turns to a source, from which `model` is going to answer each `stride_s` seconds."""
        ahead_s = model.ahead_at(find_fps(source, model))
        self._stride_s, self._name = stride_s, source.name
        self._places = {name: place for place, name in enumerate(model.classes)}
        self._line.clear()
        self.server.clear_strip()
        about = {"source": source.name, "model": model.name, "ahead_s": round(ahead_s, 4)}
        status = "waiting" if source.waits else "playing"
        self._publish(**about, status=status, note="", line=[], answer=None, latency=None)

    def play(self) -> None:
        """The source has begun."""
        self._publish(status="playing")

    def show(self, timed: TimedFrame) -> None:
        """Takes the next frame, from any thread."""
        from kdant_tf.anticipation.web_server import WebPicture

        encode, small = (partial(self._encode, timed.frame, side) for side in (_SHORT_SIDE, _SMALL_SIDE))
        self.server.publish_picture(WebPicture(timed.time_s, encode, small))

    def expect(
        self,
        each: Anticipation,
        likeliest: Sequence[tuple[str, float]],
        latencies: Latencies,
        others: Mapping[str, Sequence[tuple[str, float]]] | None = None,
    ) -> None:
        """Takes the next answer, its likeliest classes, and what answering has cost up to now.

        Args:
            each, likeliest, latencies: see above.
            others: of a model with several heads: each other one's name → its likeliest class, if any.
        """
        self._extend_line(each, likeliest[0][0] if likeliest else None)
        top = [[self._places[name], name, round(value, 4)] for name, value in likeliest]
        answer = {"top": top, "latency_s": round(each.latency_s, 4), "dropped": each.dropped}
        answer |= {"time_s": round(each.time_s, 4), "expected_s": round(each.expected_s, 4)}
        if others:
            named = {head: own[0] if own else (None, 0.0) for head, own in others.items()}
            answer["others"] = [[head, name, round(value, 4)] for head, (name, value) in named.items()]
        self._publish(answer=answer, line=[*self._line], latency=latencies.summary())

    def note(self, sentence: str) -> None:
        """Shows a sentence, such as that a camera has broken off, from any thread; "" takes it away."""
        self._publish(note=sentence)

    def wait_for_replay(self, *, possible: bool = True) -> bool:
        """After the last source: waits until a browser asks to see them again, if that is possible."""
        self._publish(status="ended", again=possible)
        while self.server.wait_for_request():
            if possible:
                return True
        return False

    def _extend_line(self, each: Anticipation, name: str | None) -> None:
        """What was expected lasts until the next expectation, or a stride."""
        line, from_s, to_s = self._line, each.expected_s, each.expected_s + self._stride_s
        if line:
            line[-1][1] = round(from_s, 3)
        if line and line[-1][3] == name:
            line[-1][1] = round(to_s, 3)
        else:
            line.append([round(from_s, 3), round(to_s, 3), self._places.get(name or "", 0), name])
        while line[0][1] < each.time_s - LINE_S:
            line.popleft()

    def _publish(self, **changed: Any) -> None:
        with self._lock:
            if self._state.get("status") == "closed":  # The last word is the last.
                return
            self._state |= changed
            self.server.publish_state(json.dumps(self._state, separators=(",", ":")))

    def _encode(self, frame: av.VideoFrame, largest: int = _SHORT_SIDE) -> bytes:
        """As JPEG, upright, its shorter side at most `largest`; by one thread at a time."""
        short_side = min(largest, frame.width, frame.height)
        known, resizer = self._resizers.get(largest, (0, None))
        if resizer is None or known != short_side:
            resizer = Resizer(short_side, Limits())
            self._resizers[largest] = (short_side, resizer)
        file = io.BytesIO()
        picture = to_picture(resizer.convert(frame, self._name))
        picture.convert("RGB").save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()


class PlayedSource:
    """A source that comes at its own pace, each frame handed to a page; see `FrameSource`.

    A file, which would wait, is played at the speed of its time stamps, from when a browser has come: clips
    that there is no time for are dropped, as of a camera.
    """

    live = True

    def __init__(self, source: FrameSource, page: LivePage) -> None:
        self.name, self.rate, self.waits = source.name, source.rate, not source.live
        self._source, self._page = source, page

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in order, each when it is due; none any more once the page is closed."""
        server, start_s = self._page.server, None
        if self.waits and not server.wait_for_browser():
            return
        self._page.play()
        for timed in self._source.frames():
            if self.waits:
                now_s = time.monotonic()
                if start_s is None or not -_MOST_LATE_S < start_s + timed.time_s - now_s < MAX_PAUSE_S:
                    start_s = now_s - timed.time_s
                if not server.sleep(start_s + timed.time_s - now_s):
                    return
            self._page.show(timed)
            yield timed

    def problems(self) -> list[str]:
        """See `FrameSource`."""
        return self._source.problems()

    def close(self) -> None:
        """See `FrameSource`."""
        self._source.close()
