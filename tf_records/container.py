"""What a video's container says: which stream is the video, its rate and length, when its frames are shown.

Time stamps are not what they seem in four kinds of file. In an AVI, and in files copied out of one, frames
that are stored out of order have the stamps of the order in which they are stored. In MPEG streams that were
joined the clock begins again. Raw streams have none, nor have the first frames of a Matroska file that begins
before 0. And the first frame need not be shown at 0: sound may come before it. So frames
get their times from a `StreamClock`: seconds of the player's clock, 0 at the container's start. Nothing is
decoded here.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
import os
import re
from fractions import Fraction
from typing import Any, NamedTuple

import av

from tf_records.errors import RecordError, VideoError
from tf_records.schema import MAX_FPS
from tf_records.truncation import is_tiny_transport_stream, is_whole

# MPEG streams, which may be joined as they are; they state no length and have no index.
JOINABLE = {"mpegts", "mpeg"}
# Whose header states other times than those of its frames.
_NUT = "nut"
# FFmpeg's mark of raw streams, AVFMT_NOTIMESTAMPS: the stamps that it makes up for them are not the frames'.
_NO_STAMPS = 0x80
# Codecs whose headers state the rate of the frames. Of few frames in an MPEG stream FFmpeg guesses twice it.
_RATED_CODECS = {"mpeg1video", "mpeg2video", "h264", "hevc"}
# How far the clock of these goes back or leaps, by FFmpeg's own tools, when it has begun again.
_BACK_S, _LEAP_S = Fraction(1, 10), Fraction(10)
# Packets among which one is out of order, if stamps tell of the order in which frames are shown.
_PEEKED, _PEEKED_OF_MPEG4 = 300, 30
# Of MPEG-4: the start of a picture, then two bits that say which kind.
_B_FRAME = re.compile(rb"\x00\x00\x01\xb6[\x80-\xbf]")
# Frames that are shown so far before the one before them are of a clock that has begun again.
_RESTART_S = 1.0
# Frames by which the first one's stamp may lie behind 0 for no other reason than how encoders of sound begin,
# or lying stamps.
_SMALL_START, _SMALL_LYING_START = 1.0, 3.5
END_TOLERANCE_S = 0.25
# These name other files, or never end.
_PLAYLISTS = {"hls", "concat", "dash", "sdp", "rtsp", "webm_dash_manifest", "imf"}
# FFmpeg draws the characters of text files.
_TEXT = {"tty"}
# A JPEG's sides are 16-bit numbers.
MAX_SIDE = 65_500
# How long before the end of all streams to look for that of the video.
_TAIL_S = 20.0


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


def open_container(path: str) -> av.container.InputContainer:
    """A file, opened; close it.

    Raises:
        VideoError: no such file, no regular one, or no video.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise VideoError(f"{path} cannot be opened as a video: it is no regular file.")
    try:
        format_name = "mpegts" if is_tiny_transport_stream(path) else None
        # Titles and the like, which nobody reads here, need not be UTF-8.
        return av.open(os.path.abspath(path), format=format_name, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be opened as a video: {reason_of(error)}.") from error


def choose_stream(
    container: av.container.InputContainer, path: str, limits: Limits, *, remote: bool = False
) -> av.VideoStream:
    """The video stream that is marked as the default, or else the largest, to be decoded on one thread.

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
    marks = av.stream.Disposition
    # A cover is no video.
    streams = [stream for stream in container.streams.video if not stream.disposition & marks.attached_pic]
    if not streams:
        raise VideoError(f"{path} has no video stream.")
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise VideoError(f"{path} is encoded in a way that FFmpeg here cannot decode.")
    marked = [stream for stream in streams if stream.disposition & marks.default]
    stream = max(marked or streams, key=lambda stream: stream.width * stream.height)
    limits.check_size(path, stream.width, stream.height)
    stream.thread_count = 1
    return stream


def find_rate(stream: av.VideoStream) -> tuple[Fraction | None, bool]:
    """Frames a second, None where nobody knows, and whether FFmpeg guesses them: the stream states none."""
    if stream.average_rate:
        return Fraction(stream.average_rate), False
    if stream.codec_context.name in _RATED_CODECS and stream.codec_context.framerate:
        return Fraction(stream.codec_context.framerate), False
    return (Fraction(stream.guessed_rate), True) if stream.guessed_rate else (None, False)


def reason_of(error: BaseException) -> str:
    """The system's words alone, without the path that the message already has."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


class KeyPacket(NamedTuple):
    """A key frame of a stream without an index: its stamp, where it lies, and the clock's offset there."""

    stamp: int
    byte: int
    offset: int


class Length(NamedTuple):
    """How long a video is.

    `end_s` is when its last frame ends. `promised_s` is what a header says of that, `cut_short` that the file
    has no proper end. `keys` are those of a stream without an index.
    """

    end_s: float
    promised_s: float | None = None
    seekable: bool = True
    cut_short: bool = False
    keys: tuple[KeyPacket, ...] = ()


def find_length(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    clock: StreamClock,
    rate: Fraction,
    limits: Limits,
) -> Length:
    """How long the video is, by its own stream's header where that says so.

    Where nothing says so, and in MPEG streams, whose header is a guess, the packets are read through.

    Raises:
        VideoError: no packet at all, or more than the limits allow.
    """
    name = container.format.name
    if name == "avi" and stream.frames:
        # Of a file cut off before its index FFmpeg guesses the duration from the size; the header knows.
        end_s = float(stream.frames / rate) + clock.start_s
        return Length(end_s, end_s)
    if clock.counts or not states_length(container, stream):
        status = os.stat(path)
        scanned = _scan(path, (status.st_size, status.st_mtime_ns), limits)
        seekable = name == "mpegts" and bool(scanned.keys)
        return scanned._replace(seekable=seekable, keys=scanned.keys if seekable else ())
    if stream.duration:
        stated_s = float(stream.duration * Fraction(stream.time_base or 1)) + clock.start_s
        end_s = stated_s
        if stream.codec_context.has_b_frames and stream.base_rate != stream.average_rate:
            # MP4 counts to the end of the frame stored last, at an uneven rate maybe not the one shown last.
            end_s = max(end_s, _measure_tail(path, clock, stated_s, limits)[0])
        return Length(end_s, stated_s, cut_short=name == "ogg" and not is_whole(path, name))
    return _length_by_container(path, container, stream, clock, limits)


def states_length(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether a header says how long the video is; of MPEG streams it is a guess, of NUT the last stamp."""
    by_packets = container.format.name in JOINABLE | {_NUT} or container.format.flags & _NO_STAMPS
    return not by_packets and bool(stream.duration or container.duration)


def _length_by_container(
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    clock: StreamClock,
    limits: Limits,
) -> Length:
    """Of what states a length of all streams together, counted from 0, such as Matroska."""
    stated_s, tag_s = (container.duration or 0) / av.time_base, _tagged_s(stream)
    if len(container.streams) == 1:
        end_s = clock.player_s(stated_s)
        # Some count from their first stamp.
        end_s = end_s if end_s > clock.start_s else clock.start_s + stated_s
    elif tag_s is not None and clock.start_s == 0:
        end_s = clock.player_s(tag_s)
    else:
        end_s, all_end_s = _measure_tail(path, clock, stated_s, limits)
        promised_s = clock.player_s(stated_s)
        if all_end_s < promised_s - max(END_TOLERANCE_S, 0.02 * stated_s):  # no stream gets there
            end_s = promised_s
    return Length(end_s, end_s)


def _tagged_s(stream: av.VideoStream) -> float | None:
    """When the stream ends by its own tag, as in Matroska."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip())
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return (int(hours) * 60 + int(minutes)) * 60 + float(seconds)


def _measure_tail(path: str, clock: StreamClock, stated_s: float, limits: Limits) -> tuple[float, float]:
    """When the video's packets end, and when those of all streams, by the last ones."""
    ends = {True: 0.0, False: 0.0}
    with open_container(path) as container:
        video = choose_stream(container, path, limits)
        for back_s in (_TAIL_S, stated_s):
            try:
                container.seek(int(max(0.0, stated_s - back_s) * av.time_base), backward=True)
                for packet in container.demux():
                    if packet.pts is not None:
                        end = (packet.pts + (packet.duration or 0)) * packet.time_base
                        is_video = packet.stream.index == video.index
                        ends[is_video] = max(ends[is_video], clock.player_s(float(end)))
            except (av.FFmpegError, OSError):
                pass
            if ends[True]:
                break
    return ends[True], max(ends.values())


@functools.lru_cache(maxsize=64)
def _scan(path: str, status: tuple[int, int], limits: Limits) -> Length:
    """The length and the key frames of what has no index, by all packets; `status` tells a changed file.

    FFmpeg finds its way in MPEG streams by their stamps, and misses where these begin again, or the first
    group of frames.
    """
    end_s, last_s, count, keys = 0.0, 0.0, 0, []
    with open_container(path) as container:
        stream = choose_stream(container, path, limits)
        rate = find_rate(stream)[0] or Fraction(1)
        clock = StreamClock(container, stream, rate)
        try:
            for packet in itertools.chain(clock.peeked, container.demux(stream)):
                clock.take(packet)
                count += packet.size > 0
                if packet.pts is not None:
                    last_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.pts is None or clock.counts:
                    end_s = max(end_s, float(count / rate))
                else:
                    end_s = max(end_s, clock.time_s(packet.pts + (packet.duration or 0)))
                    if packet.is_keyframe and packet.pos is not None and packet.dts is not None:
                        keys.append(KeyPacket(packet.pts, packet.pos, clock.offset))
                limits.check_length(path, max(end_s, count / MAX_FPS))
        except (av.FFmpegError, OSError) as error:
            raise undecodable(path, error) from error
        if end_s == 0.0:
            raise VideoError(f"{path} holds no frame that can be decoded.")
        promised_s = (_tagged_s(stream) if clock.counts else None) or 0.0
        cut_short = not is_whole(path, container.format.name) or last_s < promised_s - END_TOLERANCE_S
    return Length(end_s, end_s if promised_s else None, cut_short=cut_short, keys=tuple(keys))


class StreamClock:
    """Gives each frame its time.

    Hand it every packet before that is decoded, and every frame that comes out. After seeking, `restart` it.

    Args:
        container, stream: opened, and not read.
        rate: frames a second, for what has no stamps.
        peek: read the first packets, to find out whether stamps lie; without that they are believed.

    `start_s` is when the first frame is shown. Where stamps lie, `by_order` is true: frames are shown in the
    order in which they are decoded, so that their times are known from the first one on alone; where there
    are none, `counts` is too, and the rate alone tells them. `peeked` are the packets that were read to find
    that out, the first ones; `placed` counts the frames since the last restart.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        rate: Fraction | None,
        *,
        peek: bool = True,
    ) -> None:
        base = Fraction(stream.time_base or 1)
        self.peeked, self.by_order = _peek(container, stream) if peek else ([], False)
        joinable = container.format.name in JOINABLE
        self.counts = bool(container.format.flags & _NO_STAMPS) or (
            bool(self.peeked) and not joinable and self.peeked[0].pts is self.peeked[0].dts is None
        )
        self.by_order |= self.counts
        self._frame_s = 1 / float(rate) if rate else 0.0
        self._ticks, self._per = base.as_integer_ratio()
        self._first = stream.start_time or 0
        self._is_avi = container.format.name == "avi"
        unsure = self.by_order or self._is_avi or container.format.name == _NUT  # the stated start may lie
        if self.peeked and unsure:
            self._first = self._order(self.peeked[0]) or 0
        start_s = float(self._first * base - Fraction(container.start_time or 0, av.time_base))
        lies = self.by_order or self._is_avi
        small = (_SMALL_LYING_START if lies else _SMALL_START) * self._frame_s
        known = stream.start_time is not None and container.start_time is not None and not self.counts
        self.start_s = start_s if known and start_s > small else 0.0
        # On a pipe FFmpeg gives the first frames of a program stream stamps that fall: that is no restart.
        back_s = Fraction(_RESTART_S) if container.format.name == "mpeg" and not peek else _BACK_S
        self._bounds = (-back_s / base, _LEAP_S / base) if joinable else None
        self._step = int(Fraction(self._frame_s) / base)
        self.restart()

    def restart(self, offset: int = 0) -> None:
        """Forgets what was handed to it; `offset` is what the stamps' leaps before this place add up to."""
        self.offset = offset
        self._expected: int | None = None
        self._waiting: list[int] = []
        self.placed = 0
        self._last_s: float | None = None
        self._shift_s = 0.0
        self._last_stamps: list[int | None] = [None, None]
        self._faults = [0, 0]

    def take(self, packet: av.Packet[Any]) -> None:
        """Notes a packet; its stamps go on where the clock of a joined stream has begun again."""
        if self._bounds is not None and packet.dts is not None:
            ahead = packet.dts + self.offset - (self._expected or 0)
            if self._expected is not None and not self._bounds[0] <= ahead <= self._bounds[1]:
                self.offset -= ahead
            self._expected = packet.dts + self.offset + (packet.duration or self._step)
            if self.offset:
                packet.dts += self.offset
                packet.pts = None if packet.pts is None else packet.pts + self.offset
        if self.by_order and (order := self._order(packet)) is not None:
            heapq.heappush(self._waiting, order)

    def place(self, frame: av.VideoFrame) -> float:
        """When a frame is shown; never before the one that was placed before it."""
        if self.by_order:
            stamp = heapq.heappop(self._waiting) if self._waiting else None
        else:
            stamp = self._best_stamp(frame)
        time_s = self.placed * self._frame_s + self.start_s if stamp is None else self.time_s(stamp)
        time_s += self._shift_s
        if self._last_s is not None and time_s < self._last_s:
            following_s = self._last_s + self._frame_s
            if time_s < self._last_s - _RESTART_S:
                self._shift_s += following_s - time_s
            time_s = following_s
        self.placed += 1
        self._last_s = time_s
        return time_s

    def time_s(self, stamp: int) -> float:
        """The time of a stamp."""
        # Whole numbers until the division: Fractions would take as long as small frames.
        return (stamp - self._first) * self._ticks / self._per + self.start_s

    def player_s(self, stamp_s: float) -> float:
        """The time of a stamp in seconds."""
        return stamp_s - self._first * self._ticks / self._per + self.start_s

    @property
    def origin_s(self) -> float:
        """The stamp, in seconds, of time 0; sound has the same."""
        return self._first * self._ticks / self._per - self.start_s

    def stamp_at(self, time_s: float) -> int:
        """The stamp of a time."""
        return int(Fraction(time_s - self.start_s) * self._per / self._ticks) + self._first

    def _order(self, packet: av.Packet[Any]) -> int | None:
        """A stamp that counts packets: of AVI that of decoding, as FFmpeg makes up the other one."""
        if self.counts:
            return None
        return packet.dts if self._is_avi and self.by_order else packet.pts

    def _best_stamp(self, frame: av.VideoFrame) -> int | None:
        """As FFmpeg's tools do: pts, or dts where that has gone back less often."""
        for place, stamp in enumerate((frame.pts, frame.dts)):
            if stamp is not None:
                last = self._last_stamps[place]
                self._faults[place] += last is not None and stamp < last
                self._last_stamps[place] = stamp
        if frame.pts is None or (frame.dts is not None and self._faults[0] > self._faults[1]):
            return frame.dts
        return frame.pts


def _peek(
    container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[list[av.Packet[Any]], bool]:
    """The first packets, at least one, and whether frames are stored out of order and no stamp says so.

    AVI stores none. Elsewhere some stamp falls, soon, if they are true.
    """
    packets: list[av.Packet[Any]] = []
    context, is_avi = stream.codec_context, container.format.name == "avi"
    # Of MPEG-4 that is unknown before a frame was decoded, but its packets say whether they reorder.
    reorders, is_mpeg4 = bool(context.has_b_frames), context.name == "mpeg4"
    latest: int | None = None
    for packet in container.demux(stream):
        if packet.size == 0:  # the end, which comes again to who reads on
            break
        packets.append(packet)
        if is_avi or packet.pts is None or not (reorders or is_mpeg4):
            return packets, is_avi and reorders
        falls = latest is not None and packet.pts < latest
        if falls or (is_mpeg4 and _B_FRAME.search(bytes(packet))):
            return packets, not falls
        latest = packet.pts
        if len(packets) == (_PEEKED_OF_MPEG4 if is_mpeg4 else _PEEKED):
            break
    return packets, reorders and latest is not None and not is_mpeg4


def undecodable(path: str, error: BaseException) -> VideoError:
    """What to raise where FFmpeg gives up."""
    return VideoError(f"{path} cannot be decoded: {reason_of(error)}.")
