"""From a video file to RGB frames, by PyAV, which ships its own ffmpeg."""

import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from tf_records.errors import VideoError

END_TOLERANCE_S = 0.25


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Mean frame rate, and length: the container's, or the decoded one where it states none."""

    fps: float
    duration_s: float

    @property
    def frames(self) -> int:
        """Ticks of the clock, at least 1."""
        return max(1, round(self.duration_s * self.fps))


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Reads the container's header; decodes the file only where that states no duration.

    Raises:
        VideoError: no such file, not a video, or no frame rate.
    """
    try:
        with av.open(os.path.abspath(path)) as container:
            stream = _video_stream(container, path)
            fps, duration_s = float(_frame_rate(stream)), _duration_s(container, stream)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be opened as a video: {_reason(error)}.") from error
    if duration_s is None:
        duration_s = max(time_s for time_s, _ in _decode(path, start_s=0.0)) + 1 / fps
    return VideoInfo(fps=fps, duration_s=duration_s)


def read_all_frames(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Yields every stored frame in order, whatever its time stamp.

    Data sets that count frames (JHMDB) count these: its files were written at 30 frames per second
    with the duplicates left out, so that 40 stored frames span 48 ticks of the clock.

    Yields:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        VideoError: the file cannot be decoded, or ends before the end its header gives.
    """
    for _, frame in _decode(path, start_s=0.0):
        yield frame.to_ndarray(format="rgb24")


def read_clock_frames(path: str | os.PathLike[str], first: int, stop: int) -> Iterator[np.ndarray]:
    """Yields frames `first` to `stop` - 1 of the clock that ticks at the video's mean frame rate.

    A tick without a frame of its own (dropped frames, variable rate) shows the frame before it.
    Only the part of the file from the key frame before `first` is decoded.

    Yields:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        VideoError: the file cannot be decoded, or ends before frame `first`.
    """
    fps = probe(path).fps
    shown: av.VideoFrame | None = None
    tick = first
    for time_s, frame in _decode(path, start_s=first / fps):
        next_tick = round(time_s * fps)
        while shown is not None and tick < min(next_tick, stop):
            yield shown.to_ndarray(format="rgb24")
            tick += 1
        if tick >= stop:
            return
        shown = frame
    if shown is None:
        raise VideoError(f"{path} ends before {first / fps:.2f} s, where a clip should start.")
    for _ in range(tick, stop):
        yield shown.to_ndarray(format="rgb24")


def _decode(path: str | os.PathLike[str], start_s: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (seconds since the first frame, frame) from the key frame at or before `start_s`."""
    end_s = 0.0
    try:
        with av.open(os.path.abspath(path)) as container:
            stream = _video_stream(container, path)
            stream.thread_type = "AUTO"
            tick_s, rate = _time_base(stream), _frame_rate(stream)
            origin_s = (stream.start_time or 0) * tick_s
            duration_s = _duration_s(container, stream)
            tolerance_s = max(END_TOLERANCE_S, 0.02 * (duration_s or 0.0))
            if container.format.name == "avi":  # its header counts frames exactly
                tolerance_s = 3 / float(rate)
            if start_s > 0:
                target = int((Fraction(start_s) + origin_s) / tick_s)
                container.seek(target, stream=stream, backward=True)
            for number, frame in enumerate(container.decode(stream)):
                time_s = float(number / rate if frame.pts is None else frame.pts * tick_s - origin_s)
                end_s = max(end_s, time_s + 1 / float(rate))
                yield time_s, frame
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be decoded: {_reason(error)}.") from error
    if end_s == 0.0:
        raise VideoError(f"{path} holds no frame that can be decoded.")
    if duration_s is not None and end_s < duration_s - tolerance_s:
        raise VideoError(
            f"{path} is cut short: its header promises {duration_s:.2f} s, decoding ends at {end_s:.2f} s."
        )


def _video_stream(
    container: av.container.InputContainer, path: str | os.PathLike[str]
) -> av.video.stream.VideoStream:
    if not container.streams.video:
        raise VideoError(f"{path} has no video stream.")
    stream = container.streams.video[0]
    if not stream.average_rate:
        raise VideoError(f"{path} states no frame rate.")
    return stream


def _frame_rate(stream: av.video.stream.VideoStream) -> Fraction:
    """Mean frames per second; `_video_stream` has made sure of it."""
    return Fraction(stream.average_rate or 1)


def _time_base(stream: av.video.stream.VideoStream) -> Fraction:
    """Seconds a tick of the stream's time stamps."""
    return Fraction(stream.time_base or 1)


def _duration_s(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float | None:
    if container.format.name == "avi" and stream.frames:
        # Of a file cut off before its index FFmpeg guesses the duration from the size; the header knows.
        return float(stream.frames / _frame_rate(stream))
    if stream.duration:
        return float(stream.duration * _time_base(stream))
    if container.duration:
        return container.duration / av.time_base
    return None


def _reason(error: BaseException) -> str:
    """The system's words alone, without the path that the message already has."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
