"""A video file, by PyAV, which ships its own ffmpeg: opened once, decoded no further than need be.

Decoding runs on one thread. What runs beside each other are the processes that write shards; so no
frame is decoded ahead in vain, and a damaged video gives the same bytes on every machine.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from tf_records.container import (
    END_TOLERANCE_S,
    Limits,
    StreamClock,
    choose_stream,
    find_length,
    find_rate,
    open_container,
    undecodable,
)
from tf_records.errors import VideoError
from tf_records.schema import MAX_FPS
from tf_records.truncation import has_end

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

# Containers round time stamps, Matroska to a millisecond; a tick that close to a frame shows it.
TIME_STAMP_TOLERANCE_S = 6e-4

# A record is one message, which TensorFlow and protobuf bound at 2 GB and a reader holds in memory.
MAX_RECORD_BYTES = 2**29


# Containers whose index lists the key frames. Others are sought through by trial.
_INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv"}
# How much the shape of frames of one video may differ, of which some are scaled to the size of others.
_SHAPE_TOLERANCE = 0.03
# Reading on is cheaper than seeking within these, with an index and without.
_SHORT_GAP_S = 1.0
_LONG_GAP_S = 15.0
# How far before the place asked for to seek, if a key frame comes too late; at last to the start.
_MARGINS_S = (0.0, 3.0, 12.0, 60.0)


class Timed(NamedTuple):
    """A frame, when it is shown, and whether it is flagged as corrupt or was predicted from one that is."""

    time_s: float
    frame: av.VideoFrame
    is_damaged: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Mean frame rate, and when the video begins and ends, in seconds of the player's clock.

    Args:
        fps: frames a second; `rate_is_guessed` where the container does not say, and FFmpeg guesses.
        duration_s: when the last frame ends; by the container, or by its packets where it states no length.
        start_s: when the first frame is shown, such as after the beginning of sound.
        end_is_stated: whether the file says where it ends, so that a copy that was cut is noticed.
    """

    fps: float
    duration_s: float
    start_s: float = 0.0
    rate_is_guessed: bool = False
    end_is_stated: bool = True

    @property
    def frames(self) -> int:
        """Ticks of the video's own clock that it is shown at, at least 1."""
        return self._count(self.fps)

    def first_tick(self, fps: float | None) -> int:
        """The first tick of a clock of `fps`, or of the video's own, that shows the video."""
        if fps is None:
            return round(self.start_s * self.fps)
        return max(0, math.ceil((self.start_s - TIME_STAMP_TOLERANCE_S) * fps))

    def stop_tick(self, fps: float | None) -> int:
        """The tick after the last that shows it."""
        return self.first_tick(fps) + self._count(self.fps if fps is None else fps)

    def shown_s(self, tick: int, fps: float | None) -> float:
        """The time whose frame a tick shows: the last frame at or before it.

        A clock of another rate never shows the future. On the video's own clock (`fps` None) a time stamp
        may lie on either side of its tick.
        """
        if fps is None:
            return (tick + 0.5) / self.fps
        return tick / fps + TIME_STAMP_TOLERANCE_S

    def _count(self, fps: float) -> int:
        return max(1, round((self.duration_s - self.start_s) * fps))


class VideoFile:
    """Frames of one file; close it, or use `open_video`.

    `frames_decoded` counts them, those on the way from a key frame included. `shows_damage` says whether the
    frame given last is damaged: FFmpeg flags it as corrupt, or one before it since the last key frame.
    `damaged_s` is when the damaged ones among those given are shown.
    """

    def __init__(self, path: str, resizer: Resizer, limits: Limits) -> None:
        self.path = path
        self.frames_decoded = 0
        self.shows_damage = False
        self.damaged_s: set[float] = set()
        self._limits = limits
        self._resizer = resizer
        self._container = open_container(path)
        try:
            self._stream = choose_stream(self._container, path, limits)
            resizer.size = (self._stream.width, self._stream.height)
            rate, guessed = find_rate(self._stream)
            if rate is None:
                raise VideoError(f"{path} states no frame rate.")
            self._rate = rate
            self._clock = StreamClock(self._container, self._stream, rate)
            length = find_length(path, self._container, self._stream, self._clock, rate, limits)
            limits.check_length(path, length.end_s)
        except BaseException:
            self._container.close()
            raise
        self._length = length
        # What lies, and what has no length, need not have stamps to seek by.
        self._seekable = length.seekable and not self._clock.by_order
        self._fresh = True
        self._end_s = 0.0
        self._fed = -(2**63)
        self.info = VideoInfo(
            fps=float(rate),
            duration_s=length.end_s,
            start_s=self._clock.start_s,
            rate_is_guessed=guessed,
            end_is_stated=length.promised_s is not None or has_end(self._container.format.name),
        )

    def close(self) -> None:
        self._container.close()

    def stored(self) -> Iterator[np.ndarray]:
        """Every stored frame in order, whatever its time stamp: uint8 `(H, W, 3)`, RGB.

        Raises:
            VideoError: the file cannot be decoded, or ends before the end its header gives.
        """
        timed = self._rewind()
        while timed is not None:
            yield self._convert(timed)
            timed = self._next()

    def shown_at(self, times_s: Sequence[float]) -> Iterator[np.ndarray]:
        """For each time, ascending, the frame that is shown then: the last one at or before it.

        Before the first frame of all that one is shown. Times that show the same frame get the same array.
        Gaps are skipped by seeking where a key frame lies in them.

        Raises:
            VideoError: the file cannot be decoded, or ends before the first time.
        """
        shown: Timed | None = None
        image: np.ndarray | None = None
        following = self._start(times_s[0])
        for time_s in times_s:
            if following is not None and self._can_leap(following.time_s, time_s):
                following = self._start(time_s)
            while following is not None and following.time_s <= time_s:
                shown, image, following = following, None, self._next()
            if shown is None:  # the first frame comes later
                shown, following = following, None if following is None else self._next()
            if shown is None:
                raise VideoError(f"{self.path} ends before {time_s:.2f} s, where a clip should start.")
            if image is None:
                image = self._convert(shown)
            yield image

    def _convert(self, timed: Timed) -> np.ndarray:
        time_s, frame, self.shows_damage = timed
        if self.shows_damage:
            self.damaged_s.add(round(time_s, 3))
        return self._resizer.convert(frame, self.path)

    def _start(self, time_s: float) -> Timed | None:
        """A key frame at or before `time_s`, or the file's first frame: what to decode from."""
        for margin_s in _MARGINS_S:
            if not self._seekable or time_s - margin_s <= self.info.start_s:
                break
            first = self._seek(time_s - margin_s)
            if first is not None and first.time_s <= time_s:
                return first
        else:
            self._seekable = False  # there is no key frame to be found
        return self._rewind()

    def _seek(self, time_s: float) -> Timed | None:
        """The first key frame that comes out after seeking; None where none does up to `time_s`.

        Before it there may come frames that need others which were not decoded: those that are shown before
        a key frame and stored after it, and those of videos that are refreshed bit by bit.
        """
        stamp, keys = self._clock.stamp_at(time_s), self._length.keys
        try:
            if keys:
                place = bisect.bisect_right(keys, stamp, key=lambda key: key.stamp) - 1
                if place < 0:
                    return None
                self._container.seek(keys[place].byte, unsupported_byte_offset=True)
                self._clock.restart(keys[place].offset)
            else:
                self._container.seek(stamp, stream=self._stream, backward=True)
                self._clock.restart()
        except (av.FFmpegError, OSError):
            self._seekable = False
            return None
        finally:
            self._fresh = False
        self._frames = self._decode(self._container.demux(self._stream))
        for timed in self._frames:
            if timed.frame.key_frame and not timed.is_damaged:
                return timed
            if timed.time_s > time_s:
                break
        return None

    def _rewind(self) -> Timed | None:
        """The file's first frame; what follows is read on."""
        if not self._fresh:
            self._container.close()
            self._container = open_container(self.path)
            self._stream = choose_stream(self._container, self.path, self._limits)
        packets = itertools.chain(
            self._clock.peeked if self._fresh else (), self._container.demux(self._stream)
        )
        self._fresh = False
        self._clock.peeked = []
        self._clock.restart()
        self._frames = self._decode(packets)
        return self._next()

    def _next(self) -> Timed | None:
        """The next frame and when it is shown; None at the end."""
        timed = next(self._frames, None)
        if timed is not None:
            return timed
        if self.frames_decoded == 0:
            raise VideoError(f"{self.path} holds no frame that can be decoded.")
        promised_s = self._length.promised_s
        if promised_s is not None and self._end_s < promised_s - self._tolerance_s(promised_s):
            raise VideoError(
                f"{self.path} is cut short: its header promises {promised_s:.2f} s, decoding ends at "
                f"{self._end_s:.2f} s."
            )
        if self._length.cut_short:
            raise VideoError(f"{self.path} is cut short: it has no end mark, or ends within a packet.")
        return None

    def _decode(self, packets: Iterable[av.Packet[Any]]) -> Iterator[Timed]:
        frame_s, is_damaged = 1 / float(self._rate), False
        try:
            for packet in packets:
                self._clock.take(packet)
                if packet.dts is not None:
                    self._fed = max(self._fed, packet.dts)
                for frame in packet.decode():
                    self.frames_decoded += 1
                    self._limits.check_size(self.path, frame.width, frame.height)
                    time_s = self._clock.place(frame)
                    self._end_s = max(self._end_s, time_s + frame_s)
                    # An endless stream need not tell the time.
                    self._limits.check_length(self.path, max(time_s, self._clock.placed / MAX_FPS))
                    is_damaged = frame.is_corrupt or (is_damaged and not frame.key_frame)
                    yield Timed(time_s, frame, is_damaged)
        except (av.FFmpegError, OSError) as error:
            raise undecodable(self.path, error) from error

    def _can_leap(self, from_s: float, to_s: float) -> bool:
        """Whether a key frame that was not decoded lies before `to_s`, so that seeking saves frames."""
        if to_s - from_s < _SHORT_GAP_S or not self._seekable:
            return False
        index, keys, target = self._stream.index_entries, self._length.keys, self._clock.stamp_at(to_s)
        if keys:
            place = bisect.bisect_right(keys, target, key=lambda key: key.stamp) - 1
            return place >= 0 and keys[place].stamp > self._fed
        reach = int(_LONG_GAP_S / Fraction(self._stream.time_base or 1))
        whole = len(index) > 0 and index[len(index) - 1].timestamp >= target - reach
        if not whole or self._container.format.name not in _INDEXED:
            return to_s - from_s > _LONG_GAP_S
        place = index.search_timestamp(target)
        return place >= 0 and index[place].timestamp > self._fed

    def _tolerance_s(self, promised_s: float) -> float:
        if self._container.format.name == "avi":  # its header counts frames exactly
            return 3 / float(self._rate)
        return max(END_TOLERANCE_S, 0.02 * promised_s)


class Resizer:
    """Turns decoded frames into RGB whose shorter side has `short_side` pixels, or as many as it has.

    `size`, width and height, is the video's; frames of its shape and another size are scaled to it.
    """

    def __init__(self, short_side: int | None, limits: Limits) -> None:
        self.size: tuple[int, int] | None = None
        self._short_side = short_side
        self._limits = limits
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame, path: str) -> np.ndarray:
        """uint8 `(H, W, 3)`, turned upright as the frame's rotation mark says, in steps of 90 degrees.

        Raises:
            VideoError: the result would be too large.
        """
        width, height = self._choose_size(frame)
        if self._short_side is not None:
            scale = self._short_side / min(width, height)
            width, height = round(width * scale), round(height * scale)
            self._limits.check_size(path, width, height)
        plane = self._reformatter.reformat(
            frame, width, height, "rgba", interpolation=SWSCALE_FLAGS, threads=1
        ).planes[0]
        # Lines may be padded; nothing is copied.
        lines = np.frombuffer(plane, np.uint8, height * plane.line_size).reshape(height, plane.line_size)
        rgb = lines[:, : 4 * width].reshape(height, width, 4)[..., :3]
        turns = round(frame.rotation / 90) % 4  # both count counterclockwise
        return np.rot90(rgb, turns) if turns else rgb

    def _choose_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """The video's size for a frame of its shape; others keep their own."""
        own = (frame.width, frame.height)
        if self.size is None:
            return own
        width, height = self.size
        same = abs(own[0] * height - own[1] * width) <= _SHAPE_TOLERANCE * own[0] * height
        return self.size if same else own


def to_picture(frame: np.ndarray) -> Image.Image:
    """A frame, RGB or grey, as Pillow's image.

    Pillow keeps four bytes a pixel, as `Resizer` does, so that most of its frames need not be copied.
    """
    height, width = frame.shape[:2]
    lines = frame.base
    if isinstance(lines, np.ndarray) and frame.strides[1:] == (4, 1) and _begins_with(lines, frame):
        return Image.frombuffer("RGBX", (width, height), lines, "raw", "RGBX", frame.strides[0], 1)
    return Image.fromarray(frame)


def _begins_with(lines: np.ndarray, frame: np.ndarray) -> bool:
    """Whether the memory of `frame` starts at, and whole lines of it lie in, that of `lines`."""
    begins = lines.__array_interface__["data"][0] == frame.__array_interface__["data"][0]
    return begins and lines.flags.c_contiguous and lines.nbytes >= frame.shape[0] * frame.strides[0] > 0
