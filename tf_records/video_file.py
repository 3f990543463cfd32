"""A video file, by PyAV, which ships its own ffmpeg: opened once, decoded no further than need be.

Decoding runs on one thread. What runs beside each other are the processes that write shards; so no
frame is decoded ahead in vain, and a damaged video gives the same bytes on every machine.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from tf_records.errors import RecordError, VideoError
from tf_records.schema import MAX_FPS

# For the manifest: numbers do not reproduce across resizes.
RESIZE = "swscale bilinear"
# swscale's bilinear widens with the scale, so that nothing aliases. The flags keep chroma at full
# resolution (without them large reductions lose 20 dB) and the bytes the same on every processor.
SWSCALE_FLAGS = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
END_TOLERANCE_S = 0.25
# Containers round time stamps, Matroska to a millisecond; a tick that close to a frame shows it.
TIME_STAMP_TOLERANCE_S = 6e-4
# A JPEG's sides are 16-bit numbers.
MAX_SIDE = 65_500
# A record is one message, which TensorFlow and protobuf bound at 2 GB and a reader holds in memory.
MAX_RECORD_BYTES = 2**29
# These name other files, or never end.
_PLAYLISTS = {"hls", "concat", "dash", "sdp", "rtsp", "webm_dash_manifest", "imf"}
# FFmpeg draws the characters of text files.
_TEXT = {"tty"}
# Containers whose index lists the key frames. Others are sought through by trial, but for MPEG program
# streams: after seeking their frames have other time stamps than when read through.
_INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv"}
_UNSEEKABLE = {"mpeg"}
# Reading on is cheaper than seeking within these, with an index and without.
_SHORT_GAP_S = 1.0
_LONG_GAP_S = 15.0
# How far before the place asked for to seek, if a key frame comes too late; at last to the start.
_MARGINS_S = (0.0, 3.0, 12.0, 60.0)
Timed = tuple[float, av.VideoFrame]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Mean frame rate, and length: the container's, or that of its packets where it states none."""

    fps: float
    duration_s: float

    @property
    def frames(self) -> int:
        """Ticks of the video's own clock, at least 1."""
        return self.ticks(self.fps)

    def ticks(self, fps: float) -> int:
        """Ticks of a clock of `fps` over the video's length, at least 1."""
        return max(1, round(self.duration_s * fps))

    def shown_s(self, tick: int, fps: float | None) -> float:
        """The time whose frame a tick shows: the last frame at or before it.

        A clock of another rate never shows the future. On the video's own clock (`fps` None) a time stamp
        may lie on either side of its tick.
        """
        if fps is None:
            return (tick + 0.5) / self.fps
        return tick / fps + TIME_STAMP_TOLERANCE_S


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Videos beyond these are skipped like any that cannot be decoded.

    Args:
        max_pixels: of a frame, stored or resized.
        max_seconds: length of a video, stated or decoded.
    """

    max_pixels: int = 7680 * 4320
    max_seconds: float = 24 * 3600.0

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise RecordError(f"`max_pixels` should be at least 1. Received: {self.max_pixels}.")
        if not self.max_seconds > 0:
            raise RecordError(f"`max_seconds` should be above 0. Received: {self.max_seconds}.")

    def check_size(self, path: str, width: int, height: int) -> None:
        """Raises VideoError for a frame that is too large."""
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise VideoError(
                f"{path} has frames of {width}x{height}, more than the {self.max_pixels} pixels allowed. "
                f"If they are meant, raise --max-pixels."
            )

    def check_length(self, path: str, seconds: float) -> None:
        """Raises VideoError for a video that is too long."""
        if seconds > self.max_seconds:
            raise VideoError(
                f"{path} lasts {seconds:.0f} s or more, longer than the {self.max_seconds:.0f} s allowed. "
                f"If that is meant, raise --max-seconds."
            )


class VideoFile:
    """Frames of one file; close it, or use `open_video`.

    `frames_decoded` counts them, those on the way from a key frame included.
    """

    def __init__(self, path: str, resizer: Resizer, limits: Limits) -> None:
        self.path = path
        self.frames_decoded = 0
        self._limits = limits
        self._resizer = resizer
        self._container = open_container(path)
        try:
            self._stream = self._choose_stream()
            self._time_base = Fraction(self._stream.time_base or 1)
            self._rate = Fraction(self._stream.average_rate or 1)
            self._origin_s = (self._stream.start_time or 0) * self._time_base
            self._stated_s = self._find_stated_s()
            # Without a stated length there need be no time stamps to seek by.
            self._seekable = self._stated_s is not None and self._container.format.name not in _UNSEEKABLE
            self._end_s = 0.0
            self._fed = -(2**63)
            duration_s = self._stated_s
            if duration_s is None:
                duration_s = self._scan_length()
            limits.check_length(path, duration_s)
        except BaseException:
            self._container.close()
            raise
        self.info = VideoInfo(fps=float(self._rate), duration_s=duration_s)

    def close(self) -> None:
        self._container.close()

    def stored(self) -> Iterator[np.ndarray]:
        """Every stored frame in order, whatever its time stamp: uint8 `(H, W, 3)`, RGB.

        Raises:
            VideoError: the file cannot be decoded, or ends before the end its header gives.
        """
        timed = self._start(0.0)
        while timed is not None:
            yield self._resizer.convert(timed[1], self.path)
            timed = self._next()

    def shown_at(self, times_s: Sequence[float]) -> Iterator[np.ndarray]:
        """For each time, ascending, the frame that is shown then: the last one at or before it.

        Times that show the same frame get the same array. Gaps are skipped by seeking where a key frame
        lies in them.

        Raises:
            VideoError: the file cannot be decoded, or ends before the first time.
        """
        shown: Timed | None = None
        picture: np.ndarray | None = None
        following = self._start(times_s[0])
        for time_s in times_s:
            if following is not None and self._can_leap(following[0], time_s):
                following = self._start(time_s)
            while following is not None and following[0] <= time_s:
                shown, picture, following = following, None, self._next()
            if shown is None:  # the first frame comes later
                shown, following = following, None if following is None else self._next()
            if shown is None:
                raise VideoError(f"{self.path} ends before {time_s:.2f} s, where a clip should start.")
            if picture is None:
                picture = self._resizer.convert(shown[1], self.path)
            yield picture

    def _start(self, time_s: float) -> Timed | None:
        """The first frame that comes after seeking to the key frame before `time_s`."""
        for margin_s in _MARGINS_S:
            first = self._seek(max(0.0, time_s - margin_s))
            if first is None or first[0] <= time_s or time_s <= margin_s:
                return first
        return self._seek(0.0)

    def _seek(self, time_s: float) -> Timed | None:
        if self._seekable:
            try:
                self._container.seek(self._stamp(time_s), stream=self._stream, backward=True)
            except (av.FFmpegError, OSError):
                self._seekable = False
        if not self._seekable:
            self._container.close()
            self._container = open_container(self.path)
            self._stream = self._choose_stream()
        self._frames = self._decode()
        return self._next()

    def _next(self) -> Timed | None:
        """The next frame and when it is shown, in seconds since the first one; None at the end."""
        timed = next(self._frames, None)
        if timed is not None:
            return timed
        if self._end_s == 0.0:
            raise VideoError(f"{self.path} holds no frame that can be decoded.")
        if self._stated_s is not None and self._end_s < self._stated_s - self._tolerance_s():
            raise VideoError(
                f"{self.path} is cut short: its header promises {self._stated_s:.2f} s, decoding ends at "
                f"{self._end_s:.2f} s."
            )
        return None

    def _decode(self) -> Iterator[Timed]:
        number, frame_s = 0, 1 / float(self._rate)
        first, (ticks, per) = self._stream.start_time or 0, self._time_base.as_integer_ratio()
        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is not None:
                    self._fed = max(self._fed, packet.dts)
                for frame in packet.decode():
                    self.frames_decoded += 1
                    self._limits.check_size(self.path, frame.width, frame.height)
                    stamp = frame.dts if frame.pts is None else frame.pts
                    # Whole numbers until the division: Fractions would take as long as small frames.
                    time_s = number * frame_s if stamp is None else (stamp - first) * ticks / per
                    number += 1
                    self._end_s = max(self._end_s, time_s + frame_s)
                    # An endless stream need not tell the time.
                    self._limits.check_length(self.path, max(time_s, number / MAX_FPS))
                    yield time_s, frame
        except (av.FFmpegError, OSError) as error:
            raise self._undecodable(error) from error

    def _can_leap(self, from_s: float, to_s: float) -> bool:
        """Whether a key frame that was not decoded lies before `to_s`, so that seeking saves frames."""
        if to_s - from_s < _SHORT_GAP_S or not self._seekable:
            return False
        index, target = self._stream.index_entries, self._stamp(to_s)
        reach = int(_LONG_GAP_S / self._time_base)
        whole = len(index) > 0 and index[len(index) - 1].timestamp >= target - reach
        if not whole or self._container.format.name not in _INDEXED:
            return to_s - from_s > _LONG_GAP_S
        place = index.search_timestamp(target)
        return place >= 0 and index[place].timestamp > self._fed

    def _stamp(self, time_s: float) -> int:
        return int((Fraction(time_s) + self._origin_s) / self._time_base)

    def _tolerance_s(self) -> float:
        if self._container.format.name == "avi":  # its header counts frames exactly
            return 3 / float(self._rate)
        return max(END_TOLERANCE_S, 0.02 * (self._stated_s or 0.0))

    def _choose_stream(self) -> av.VideoStream:
        stream = choose_stream(self._container, self.path, self._limits)
        if not stream.average_rate:
            raise VideoError(f"{self.path} states no frame rate.")
        return stream

    def _find_stated_s(self) -> float | None:
        stream = self._stream
        if self._container.format.name == "avi" and stream.frames:
            # Of a file cut off before its index FFmpeg guesses the duration from the size; the header knows.
            return float(stream.frames / self._rate)
        if stream.duration:
            return float(stream.duration * self._time_base)
        if self._container.duration:
            return self._container.duration / av.time_base
        return None

    def _scan_length(self) -> float:
        """Length of a file whose header states none: reads it through, but decodes nothing."""
        end_s, packets = 0.0, 0
        try:
            for packet in self._container.demux(self._stream):
                packets += packet.size > 0
                counted_s = float(packets / self._rate)
                if packet.pts is None:
                    end_s = max(end_s, counted_s)
                else:
                    shown_s = float(packet.pts * self._time_base - self._origin_s)
                    end_s = max(end_s, shown_s + float((packet.duration or 0) * self._time_base))
                self._limits.check_length(self.path, max(end_s, packets / MAX_FPS))
        except (av.FFmpegError, OSError) as error:
            raise self._undecodable(error) from error
        if end_s == 0.0:
            raise VideoError(f"{self.path} holds no frame that can be decoded.")
        return end_s

    def _undecodable(self, error: BaseException) -> VideoError:
        return VideoError(f"{self.path} cannot be decoded: {reason_of(error)}.")


def open_container(path: str) -> av.container.InputContainer:
    """A file, opened; close it.

    Raises:
        VideoError: no such file, no regular one, or no video.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise VideoError(f"{path} cannot be opened as a video: it is no regular file.")
    try:
        # Titles and the like, which nobody reads here, need not be UTF-8.
        return av.open(os.path.abspath(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be opened as a video: {reason_of(error)}.") from error


def choose_stream(
    container: av.container.InputContainer, path: str, limits: Limits, *, remote: bool = False
) -> av.VideoStream:
    """The first video stream, to be decoded on one thread.

    Args:
        path: for messages.
        remote: whether `container` is meant to be of another host.

    Raises:
        VideoError: a playlist, a text, no video stream, or one that cannot be decoded or is too large.
    """
    if container.format.name in _PLAYLISTS and not remote:
        raise VideoError(f"{path} is a playlist, no video. Give the videos that it names.")
    if container.format.name in _TEXT:
        raise VideoError(f"{path} is a text, no video.")
    if not container.streams.video:
        raise VideoError(f"{path} has no video stream.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(f"{path} is encoded in a way that FFmpeg here cannot decode.")
    limits.check_size(path, stream.width, stream.height)
    stream.thread_count = 1
    return stream


def reason_of(error: BaseException) -> str:
    """The system's words alone, without the path that the message already has."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


class Resizer:
    """Turns decoded frames into RGB whose shorter side has `short_side` pixels, or as many as it has."""

    def __init__(self, short_side: int | None, limits: Limits) -> None:
        self._short_side = short_side
        self._limits = limits
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame, path: str) -> np.ndarray:
        """uint8 `(H, W, 3)`, turned upright as the frame's rotation mark says, in steps of 90 degrees.

        Raises:
            VideoError: the result would be too large.
        """
        width, height = frame.width, frame.height
        if self._short_side is not None:
            scale = self._short_side / min(width, height)
            width, height = round(width * scale), round(height * scale)
            self._limits.check_size(path, width, height)
        rgba = self._reformatter.reformat(
            frame, width, height, "rgba", interpolation=SWSCALE_FLAGS, threads=1
        ).to_ndarray()
        # Both count counterclockwise.
        return np.rot90(np.ascontiguousarray(rgba)[..., :3], round(frame.rotation / 90) % 4)


def to_picture(frame: np.ndarray) -> Image.Image:
    """A frame, RGB or grey, as Pillow's image.

    Pillow keeps four bytes a pixel, as `Resizer` does, so that most of its frames need not be copied.
    """
    height, width = frame.shape[:2]
    if frame.strides == (4 * width, 4, 1):
        whole = np.lib.stride_tricks.as_strided(frame, (height, width, 4))
        return Image.frombuffer("RGBX", (width, height), whole, "raw", "RGBX", 0, 1)
    return Image.fromarray(frame)
