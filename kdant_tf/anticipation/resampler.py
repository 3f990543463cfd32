"""From frames at their own times to the ticks of an even clock."""

from collections.abc import Iterator

import av

from kdant_tf.anticipation.source import TimedFrame
from tf_records.video_info import VideoInfo

# Over a longer pause nothing is shown: the clock leaps.
MAX_PAUSE_S = 60.0
# Share of the time to the next frame after which none is waited for.
_PATIENCE = 0.9

Tick = tuple[int, av.VideoFrame]


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
        self._shown: TimedFrame | None = None

    def push(self, timed: TimedFrame) -> Iterator[Tick]:
        """The ticks that are certain now that this frame has come."""
        if self._shown is not None:
            yield from self._until(timed.time_s)
        pause_s = timed.time_s - self._info.shown_s(self._tick, self._fps)
        if pause_s > MAX_PAUSE_S:
            self._tick += round(pause_s * (self._fps or self._info.fps))
        self._shown = timed
        if self._ahead_s:
            yield from self._until(timed.time_s + self._ahead_s)

    def finish(self) -> Iterator[Tick]:
        """The ticks within the last frame's own time."""
        if self._shown is not None:
            yield from self._until(self._shown.time_s + 1 / self._info.fps)

    def _until(self, time_s: float) -> Iterator[Tick]:
        assert self._shown is not None
        stop_s = min(time_s, self._shown.time_s + MAX_PAUSE_S)
        while self._info.shown_s(self._tick, self._fps) < stop_s:
            yield self._tick, self._shown.frame
            self._tick += 1
