"""A model on a source: what is expected, time by time."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kdant_tf.anticipation.newest import newest
from kdant_tf.anticipation.resampler import Resampler, Tick
from kdant_tf.anticipation.source import Source, TimedFrame
from kdant_tf.anticipation.windows import Window, Windows
from kdant_tf.serving.model import AnticipationModel
from tf_records.errors import VideoError
from tf_records.schema import FlowInfo

OnFrame = Callable[[TimedFrame], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anticipation:
    """What a model expects, having seen a clip.

    Args:
        time_s: when the clip's last frame is shown, in seconds since the source's first frame.
        expected_s: when what is expected begins.
        probabilities: float32 `(classes,)`.
        latency_s: from the arrival of the clip's last frame to the answer.
        dropped: windows since the answer before that nobody had time for.
    """

    time_s: float
    expected_s: float
    probabilities: np.ndarray
    latency_s: float
    dropped: int

    def likeliest(self, classes: Sequence[str], top: int, threshold: float = 0.0) -> list[tuple[str, float]]:
        """The `top` most probable classes and their probabilities, without those below `threshold`."""
        order = np.argsort(-self.probabilities, kind="stable")[:top]
        chosen = [(classes[index], float(self.probabilities[index])) for index in order]
        return [(name, probability) for name, probability in chosen if probability >= threshold]


def anticipate(
    source: Source,
    model: AnticipationModel,
    *,
    stride_s: float = 0.25,
    flow: FlowInfo | None = None,
    on_frame: OnFrame = lambda timed: None,
) -> Iterator[Anticipation]:
    """Slides a window of the model's clips over a source.

    Frames come at `model.fps` by their time stamps, or at the source's mean rate where the model has none.
    Of a live source only the newest window is answered; those that it leaves behind are counted.

    Args:
        source: open; gone through to its end.
        stride_s: seconds > 0 from one window to the next.
        flow: how to compute it, for models that see flow.
        on_frame: called with each frame of the source, after the windows that end before it have been
            answered; not for live sources.

    Raises:
        VideoError: the source cannot be read, states no rate, or is shorter than a clip.
    """
    fps = find_fps(source, model)
    windows = _cut(source, model, fps=fps, stride=stride_s * fps, flow=flow, on_frame=on_frame)
    offset_s = model.offset_at(fps)
    for window, dropped in newest(windows) if source.live else ((window, 0) for window in windows):
        probabilities = model.probabilities(window.clip[None])[0]
        yield Anticipation(
            time_s=window.last / fps,
            expected_s=window.first / fps + offset_s,
            probabilities=probabilities,
            latency_s=time.perf_counter() - window.complete_at,
            dropped=dropped,
        )


def find_fps(source: Source, model: AnticipationModel) -> float:
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


def _cut(
    source: Source,
    model: AnticipationModel,
    *,
    fps: float,
    stride: float,
    flow: FlowInfo | None,
    on_frame: OnFrame,
) -> Iterator[Window]:
    rate = fps if source.rate is None else source.rate
    resampler = Resampler(rate, model.fps, eager=source.live)
    windows = Windows(
        clip_frames=model.clip_frames,
        stride=stride,
        modality=model.modality,
        short_side=model.short_side,
        flow=flow,
    )
    none, tick = True, -1
    for tick, frame in _ticks(source, resampler, on_frame):
        for window in windows.push(tick, frame, source.name):
            none = False
            yield window
    if none:
        raise VideoError(
            f"{source.name} has {tick + 1} frames at {fps:.4g} a second, a "
            f"clip of the model {model.clip_frames}. Give a longer video."
        )


def _ticks(source: Source, resampler: Resampler, on_frame: OnFrame) -> Iterator[Tick]:
    for timed in source.frames():
        yield from resampler.push(timed)
        on_frame(timed)
    yield from resampler.finish()
