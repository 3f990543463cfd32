"""A model on a video or a stream: what it expects, time by time.

Frames come at their own times; a `Resampler` shows them at the ticks of the model's clock, a `SlidingWindow`
cuts clips out of these, and the model answers each. Of a source that does not wait only the newest clip is
answered; `Latencies` tell what answering costs of the time that anticipating gains.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, TypeVar

import av
import numpy as np

from kdant_tf.anticipation.sources import FrameSource, TimedFrame, check_source, open_source
from kdant_tf.serving.model import AnticipationModel, NotFiniteAnswerError, load_model
from tf_records.container import Limits
from tf_records.encode import to_grey
from tf_records.errors import KdantError, VideoError
from tf_records.flow import compute_flow, describe_flow, flow_to_bytes
from tf_records.heads import Heads, column_slices
from tf_records.schema import FLOW, RGB, FlowInfo
from tf_records.video_file import Resizer, VideoInfo

# Over a longer pause nothing is shown: the clock leaps.
MAX_PAUSE_S = 60.0
# Share of the time to the next frame after which none is waited for.
_PATIENCE = 0.9
# Latencies are kept to 1 %, so that memory does not grow with their number.
_STEP = 1.01

Item = TypeVar("Item")
OnFrame = Callable[[TimedFrame], None]
Tick = tuple[int, av.VideoFrame]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anticipation:
    """What a model expects, having seen a clip.

    Args:
        time_s: when the clip's last frame is shown, in seconds: of a player's clock for a file, which counts
            from the beginning of its sound where that comes first; else since the source's first frame.
        expected_s: when what is expected begins.
        classes: class names in index order.
        probabilities: float32 `(classes,)`.
        latency_s: from the arrival of the clip's last frame to the answer.
        dropped: windows since the answer before that nobody had time for.
        heads: of the model, whose columns `classes` are; none for one answer.

    Example:
        >>> each = Anticipation(
        ...     time_s=0.25,
        ...     expected_s=0.5,
        ...     classes=("clap", "golf", "walk"),
        ...     probabilities=np.float32([0.25, 0.5, 0.25]),
        ...     latency_s=0.02,
        ...     dropped=0,
        ... )
        >>> each.top(2)
        [('golf', 0.5), ('clap', 0.25)]
    """

    time_s: float
    expected_s: float
    classes: tuple[str, ...]
    probabilities: np.ndarray
    latency_s: float
    dropped: int
    heads: Heads = ()

    def answers(self) -> dict[str, Anticipation]:
        """Head → what it expects; of a model with one answer that is this itself, under ""."""
        if len(self.heads) < 2:
            return {"": self}
        first_s = self.heads[0].ahead_s or 0.0
        return {
            head.name: dataclasses.replace(
                self,
                expected_s=self.expected_s + (0.0 if head.ahead_s is None else head.ahead_s - first_s),
                classes=head.classes,
                probabilities=self.probabilities[columns],
                heads=(),
            )
            for head, columns in zip(self.heads, column_slices(self.heads).values(), strict=True)
        }

    def top(self, count: int = 5, threshold: float = 0.0) -> list[tuple[str, float]]:
        """The `count` most probable classes with their probabilities, without those below `threshold`."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        chosen = [(self.classes[index], float(self.probabilities[index])) for index in order]
        return [(name, probability) for name, probability in chosen if probability >= threshold]


def predict(
    source: str | Path | int,
    model: str | Path | AnticipationModel,
    *,
    stride_s: float = 0.25,
    fps: float | None = None,
    source_fps: float | None = None,
    flow_algorithm: str | None = None,
    live: bool = False,
    reconnect_s: float = 60.0,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Anticipation]:
    """What a model expects of a video or a stream, time by time; the source is closed at the end.

    Args:
        source: a video file, a folder of numbered images, "-" for stdin, an rtsp:// URL, or the number of a
            camera.
        model: a run folder, a folder that `kdant export` wrote, or a model that is loaded or served.
        stride_s: seconds > 0 from one clip to the next.
        fps: frames per second of the model's clips; None for those it was trained on, or else the source's.
        source_fps: frames per second of a source that states none, such as a folder; None for the model's.
        flow_algorithm: "tvl1", "dis" or "farneback", for a model of optical flow; None as for its records.
        live: stdin does not wait: clips are dropped rather than that it falls behind.
        reconnect_s: seconds that an rtsp:// URL or a camera may be away; with 0 its first end is the end.
        report: called with a sentence where it breaks off and is back.

    Raises:
        RunError: the model cannot be loaded.
        VideoError: there is no such source, or it cannot be read; also while it is iterated over.

    Example::

        for each in predict("video.mp4", "student"):
            print(each.time_s, each.expected_s, each.top(3), each.latency_s)
    """
    check_source(source, live=live)
    loaded = model if isinstance(model, AnticipationModel) else load_model(model)
    fitted = fit_model(loaded, fps=fps, flow_algorithm=flow_algorithm)
    fitted.warm_up()
    rate = fitted.fps if source_fps is None else source_fps
    opened = open_source(source, live=live, rate=rate, reconnect_s=reconnect_s, report=report)
    return _until_closed(opened, anticipate(opened, fitted, stride_s=stride_s))


def _until_closed(source: FrameSource, anticipations: Iterator[Anticipation]) -> Iterator[Anticipation]:
    with closing(source):
        yield from anticipations


def fit_model(
    model: AnticipationModel, *, fps: float | None = None, flow_algorithm: str | None = None
) -> AnticipationModel:
    """The model for clips of another frame rate, and with flow as it can be computed here.

    Args:
        model: loaded or served.
        fps: frames per second; None leaves them.
        flow_algorithm: for a model that sees flow; None for that of its records.

    Raises:
        KdantError: the model sees flow, and nothing says of which algorithm.
    """
    if fps is not None:
        model = dataclasses.replace(model, fps=fps)
    if "flow" not in model.modality:
        return model
    known = model.flow
    if flow_algorithm is not None:
        flow = describe_flow(flow_algorithm, *(() if known is None else (known.bound,)))
    elif known is not None:
        # With the OpenCV that is here.
        flow = dataclasses.replace(known, opencv=describe_flow(known.algorithm).opencv)
    else:  # Of an older run.
        raise KdantError(
            f"Model {model.name} sees optical flow. Say how that of its records was computed, which kdant "
            f"inspect tells: --flow-algorithm tvl1, dis or farneback."
        )
    return dataclasses.replace(model, flow=flow)


def anticipate(
    source: FrameSource,
    model: AnticipationModel,
    *,
    stride_s: float = 0.25,
    on_frame: OnFrame = lambda timed: None,
) -> Iterator[Anticipation]:
    """Slides a window of the model's clips over an open source.

    Frames come at `model.fps` by their time stamps, or at the source's mean rate where the model has none.
    Of a live source only the newest window is answered; those that it leaves behind are counted.

    Args:
        source: open; gone through to its end.
        model: see `fit_model`.
        stride_s: seconds > 0 from one window to the next.
        on_frame: called with each frame of the source, after the windows that end before it have been
            answered; not for live sources.

    Raises:
        KdantError: `stride_s` is not above 0.
        VideoError: the source cannot be read, states no rate, or is shorter than a clip.
        NotFiniteAnswerError: outputs of the model are infinite or not a number; says when.
    """
    if not stride_s > 0:
        raise KdantError(f"`stride_s` should be above 0. Received: {stride_s}.")
    fps = find_fps(source, model)
    windows = _cut_windows(source, model, fps=fps, stride=stride_s * fps, on_frame=on_frame)
    offset_s = model.offset_at(fps)
    for window, dropped in keep_newest(windows) if source.live else ((window, 0) for window in windows):
        try:
            probabilities = model.probabilities(window.clip[None])[0]
        except NotFiniteAnswerError as error:
            raise NotFiniteAnswerError(f"{source.name} at {window.last / fps:.2f} s: {error}") from error
        yield Anticipation(
            time_s=window.last / fps,
            expected_s=window.first / fps + offset_s,
            classes=model.classes,
            probabilities=probabilities,
            latency_s=time.perf_counter() - window.complete_at,
            dropped=dropped,
            heads=model.heads,
        )


def find_fps(source: FrameSource, model: AnticipationModel) -> float:
    """Frames per second that a model is shown of a source: its own, or where it has none the source's.

    Raises:
        VideoError: neither is known.
    """
    fps = source.rate if model.fps is None else model.fps
    if fps is None:
        raise VideoError(
            f"{source.name} states no frame rate, and the model knows none. Give it: --source-fps."
        )
    return fps


def _cut_windows(
    source: FrameSource, model: AnticipationModel, *, fps: float, stride: float, on_frame: OnFrame
) -> Iterator[Window]:
    rate = fps if source.rate is None else source.rate
    resampler = Resampler(rate, model.fps, eager=source.live)
    window = SlidingWindow(
        clip_frames=model.clip_frames,
        stride=stride,
        modality=model.modality,
        short_side=model.short_side,
        flow=model.flow,
    )
    empty, tick = True, -1
    for tick, frame in _ticks(source, resampler, on_frame):
        for cut in window.push(tick, frame, source.name):
            empty = False
            yield cut
    if empty:
        raise VideoError(
            f"{source.name} has {tick + 1} frames at {fps:.4g} a second, a "
            f"clip of the model {model.clip_frames}. Give a longer video."
        )


def _ticks(source: FrameSource, resampler: Resampler, on_frame: OnFrame) -> Iterator[Tick]:
    for timed in source.frames():
        yield from resampler.push(timed)
        on_frame(timed)
    yield from resampler.finish()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A clip, uint8 `(T, H, W, C)`, and the ticks it begins and ends with.

    `complete_at` is when its last frame had come, by `time.perf_counter`.
    """

    clip: np.ndarray
    first: int
    last: int
    complete_at: float


class SlidingWindow:
    """Takes ticks, gives a window each stride; holds no more than one window's frames.

    Args:
        clip_frames: int >= 1, ticks a window.
        stride: float > 0, ticks from one window to the next. Where it is no whole number a window ends with
            the first tick that is late enough.
        modality: "rgb", "flow" or "rgb,flow".
        short_side: pixels of the shorter side of the clips' frames.
        flow: how flow is computed, where there is any.
    """

    def __init__(
        self, *, clip_frames: int, stride: float, modality: str, short_side: int, flow: FlowInfo | None
    ) -> None:
        self._stride = stride
        self._images = _FrameImages(modality.split(","), short_side, flow)
        self._held: deque[tuple[int, np.ndarray]] = deque(maxlen=clip_frames)
        self._due = 0

    def push(self, tick: int, frame: av.VideoFrame, name: str) -> Iterator[Window]:
        """The window that this tick completes, if any.

        Args:
            tick: after a leap the window is filled anew.
            frame: that the tick shows; the same object as before where it is the same frame.
            name: of the source, for messages.
        """
        arrived_at = time.perf_counter()
        for number, image in self._images.push(tick, frame, name):
            if self._held and (number, image.shape) != (self._held[-1][0] + 1, self._held[-1][1].shape):
                self._held.clear()
            self._held.append((number, image))
            if len(self._held) == self._held.maxlen and self._is_due(number):
                clip = np.stack([image for _, image in self._held])
                yield Window(clip=clip, first=self._held[0][0], last=number, complete_at=arrived_at)

    def _is_due(self, last: int) -> bool:
        assert self._held.maxlen is not None
        since = last - (self._held.maxlen - 1)
        if since < math.ceil(self._due * self._stride - 1e-9):
            return False
        self._due = math.floor(since / self._stride + 1e-9) + 1
        return True


class _FrameImages:
    """What of a frame a network sees, uint8 `(H, W, C)`: RGB, flow from the tick before, or both."""

    def __init__(self, modalities: list[str], short_side: int, flow: FlowInfo | None) -> None:
        self._modalities = modalities
        self._flow = flow
        self._resizer = Resizer(short_side, Limits())
        self._before: tuple[int, av.VideoFrame, np.ndarray] | None = None

    def push(self, tick: int, frame: av.VideoFrame, name: str) -> Iterator[tuple[int, np.ndarray]]:
        before = self._before
        same = before is not None and frame is before[1]
        rgb = before[2] if before is not None and same else self._resizer.convert(frame, name)
        self._before = (tick, frame, rgb)
        if FLOW not in self._modalities:
            yield tick, rgb
        elif before is not None and before[0] == tick - 1 and before[2].shape == rgb.shape:
            assert self._flow is not None
            flow = flow_to_bytes(compute_flow(to_grey(before[2]), to_grey(rgb), self._flow), self._flow.bound)
            if tick == 1:  # No frame leads to the first one: it takes the flow of the second, as in records.
                yield 0, self._join(before[2], flow)
            yield tick, self._join(rgb, flow)

    def _join(self, rgb: np.ndarray, flow: np.ndarray) -> np.ndarray:
        return np.concatenate([rgb, flow], axis=-1) if RGB in self._modalities else flow


class Resampler:
    """Shows at each tick the last frame at or before it, as records do, whatever the frames' own rate.

    A tick is certain when a later frame has come. Where that would cost time, `eager` takes the next frame to
    come as expected, and shows a tick as soon as that one would be too late for it.

    Args:
        rate: frames per second of the source, mean.
        fps: ticks per second; None takes the source's own clock.
        eager: see above.
    """

    def __init__(self, rate: float, fps: float | None, *, eager: bool = False) -> None:
        self._info = VideoInfo(fps=rate, duration_s=0.0)
        self._fps = fps
        self._ahead_s = _PATIENCE / rate if eager else 0.0
        self._tick = 0
        self._current: TimedFrame | None = None

    def push(self, timed: TimedFrame) -> Iterator[Tick]:
        """The ticks that are certain now that this frame has come."""
        if self._current is None:
            # Nothing is shown before, such as while there is sound alone.
            self._tick = dataclasses.replace(self._info, start_s=timed.time_s).first_tick(self._fps)
        else:
            yield from self._until(timed.time_s)
        pause_s = timed.time_s - self._info.shown_s(self._tick, self._fps)
        if pause_s > MAX_PAUSE_S:
            self._tick += round(pause_s * (self._fps or self._info.fps))
        self._current = timed
        if self._ahead_s:
            yield from self._until(timed.time_s + self._ahead_s)

    def finish(self) -> Iterator[Tick]:
        """The ticks within the last frame's own time."""
        if self._current is not None:
            yield from self._until(self._current.time_s + 1 / self._info.fps)

    def _until(self, time_s: float) -> Iterator[Tick]:
        assert self._current is not None
        stop_s = min(time_s, self._current.time_s + MAX_PAUSE_S)
        while self._info.shown_s(self._tick, self._fps) < stop_s:
            yield self._tick, self._current.frame
            self._tick += 1


def keep_newest(items: Iterator[Item]) -> Iterator[tuple[Item, int]]:
    """Goes through `items` in a thread of its own, as fast as they come; yields the newest each time.

    Where it is not gone through to its end the thread stops with the next item that comes.

    Yields:
        An item, and how many before it were left out since the last one. The very last one always comes.

    Raises:
        What `items` raises, when what came before has been yielded.
    """
    slot: _NewestItem[Item] = _NewestItem()
    thread = threading.Thread(target=_fill, args=(items, slot), name="kdant-source", daemon=True)
    thread.start()
    try:
        while (taken := slot.take()) is not None:
            yield taken
    finally:
        slot.abandoned = True


class _NewestItem(Generic[Item]):
    """Holds at most one item; a newer one takes its place."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._replaced = 0
        self._ended = False
        self.abandoned = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        with self._changed:
            self._replaced += self._item is not None
            self._item = item
            self._changed.notify()

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def take(self) -> tuple[Item, int] | None:
        """Waits for an item; gives it with the number of those that it replaced. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._ended)
            if self._item is None:
                if self._error is not None:
                    raise self._error
                return None
            taken = (self._item, self._replaced)
            self._item, self._replaced = None, 0
            return taken


def _fill(items: Iterator[Item], slot: _NewestItem[Item]) -> None:
    try:
        for item in items:
            slot.put(item)
            if slot.abandoned:
                break
    except BaseException as error:
        slot.end(error)
    else:
        slot.end(None)


@dataclasses.dataclass(slots=True)
class Latencies:
    """Counts of answers by their latency, as in Furnari and Farinella's streaming view of anticipation.

    Args:
        ahead_s: from the last frame of a clip to the beginning of what is expected; what comes later than
            that is no anticipation. Below 0 where the clips overlap.
    """

    ahead_s: float
    answers: int = 0
    late: int = 0
    dropped: int = 0
    _counts: Counter[int] = dataclasses.field(default_factory=Counter)

    def add(self, latency_s: float, dropped: int = 0) -> None:
        """Takes one answer's latency, and how many windows were dropped before it."""
        self.answers += 1
        self.late += latency_s > self.ahead_s
        self.dropped += dropped
        self._counts[round(math.log(max(latency_s, 1e-6), _STEP))] += 1

    def percentile_s(self, percent: float) -> float:
        """The latency that so many percent of the answers stay within, to 1 %; 0 without answers."""
        needed, count = math.ceil(self.answers * percent / 100), 0
        for place in sorted(self._counts):
            count += self._counts[place]
            if count >= needed:
                return float(_STEP**place)
        return 0.0

    def share(self, percent: float = 50) -> float | None:
        """That latency as a share of `ahead_s`; None where nothing is gained that could be lost."""
        return self.percentile_s(percent) / self.ahead_s if self.ahead_s > 0 else None

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        percentiles = {f"p{percent}_s": round(self.percentile_s(percent), 4) for percent in (50, 90, 99)}
        share = self.share()
        return {
            "answers": self.answers,
            "dropped": self.dropped,
            "late": self.late,
            "anticipation_s": round(self.ahead_s, 4),
            **percentiles,
            "share": None if share is None else round(share, 4),
        }
