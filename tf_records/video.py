"""From a video file, by PyAV, which ships its own ffmpeg, or a folder of pictures to RGB frames."""

import dataclasses
import math
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from tf_records.errors import VideoError
from tf_records.frame_folder import count_frames, find_rate, holds_frames, read_pictures
from tf_records.sources.sample import FolderClock

END_TOLERANCE_S = 0.25
# Containers round time stamps, Matroska to a millisecond; a tick that close to a frame shows it.
TIME_STAMP_TOLERANCE_S = 6e-4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Mean frame rate, and length: the container's, or the decoded one where it states none."""

    fps: float
    duration_s: float

    @property
    def frames(self) -> int:
        """Ticks of the video's own clock, at least 1."""
        return self.ticks(self.fps)

    def ticks(self, fps: float) -> int:
        """Ticks of a clock of `fps` over the video's length, at least 1."""
        return max(1, round(self.duration_s * fps))


def probe(path: str | os.PathLike[str], folder: FolderClock | None = None) -> VideoInfo:
    """Reads the container's header; decodes the file only where that states no duration.

    Args:
        path: a video file, or a folder of frames.
        folder: what is known of the latter.

    Raises:
        VideoError: no such file, not a video, or no frame rate.
    """
    if holds_frames(path):
        fps = find_rate(path, folder)
        return VideoInfo(fps=fps, duration_s=count_frames(path) / fps)
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
    if holds_frames(path):
        yield from read_pictures(path, iter(range(count_frames(path))))
        return
    for _, frame in _decode(path, start_s=0.0):
        yield frame.to_ndarray(format="rgb24")


def read_clock_frames(
    path: str | os.PathLike[str],
    first: int,
    stop: int,
    *,
    fps: float | None = None,
    folder: FolderClock | None = None,
) -> Iterator[np.ndarray]:
    """Yields frames `first` to `stop` - 1 of a clock.

    A tick shows the stored frame nearest to it at or before it, so that a clock of another rate never
    shows the future; a tick without a frame of its own (dropped frames, variable rate) shows the one
    before. Only the part of the file from the key frame before `first` is decoded.

    Args:
        path: a video file, or a folder of frames.
        first, stop: ticks.
        fps: rate of the clock, or None for the video's own mean rate.
        folder: what is known of a folder of frames.

    Yields:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        VideoError: the file cannot be decoded, or ends before frame `first`.
    """
    own_fps = probe(path, folder).fps
    rate = own_fps if fps is None else fps
    if holds_frames(path):
        shown_at = (
            math.floor((tick / rate + TIME_STAMP_TOLERANCE_S) * own_fps) for tick in range(first, stop)
        )
        yield from read_pictures(path, shown_at)
        return
    yield from _read_file_ticks(path, first, stop, rate, own_clock=fps is None)


def _read_file_ticks(
    path: str | os.PathLike[str], first: int, stop: int, rate: float, *, own_clock: bool
) -> Iterator[np.ndarray]:
    """`read_clock_frames` of a file."""
    shown: av.VideoFrame | None = None
    tick = first
    for time_s, frame in _decode(path, start_s=first / rate):
        # On the video's own clock a time stamp may lie on either side of its tick.
        shows_from = round(time_s * rate) if own_clock else (time_s - TIME_STAMP_TOLERANCE_S) * rate
        next_tick = math.ceil(shows_from)
        while shown is not None and tick < min(next_tick, stop):
            yield shown.to_ndarray(format="rgb24")
            tick += 1
        if tick >= stop:
            return
        shown = frame
    if shown is None:
        raise VideoError(f"{path} ends before {first / rate:.2f} s, where a clip should start.")
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
