"""When the frames of a video stream are shown: seconds of the player's clock, 0 at the container's start.

Time stamps are not what they seem in three kinds of file. In an AVI, and in files copied out of one, frames
that are stored out of order have the stamps of the order in which they are stored. In MPEG streams that were
joined the clock begins again. And the first frame need not be shown at 0: sound may come before it.
"""

from __future__ import annotations

import heapq
from fractions import Fraction
from typing import Any

import av

# MPEG streams, which may be joined as they are; they state no length and have no index.
JOINABLE = {"mpegts", "mpeg"}
# How far the clock of these goes back or leaps, by FFmpeg's own tools, when it has begun again.
_BACK_S, _LEAP_S = Fraction(1, 10), Fraction(10)
# Packets among which one is out of order, if stamps tell of the order in which frames are shown.
_PEEKED = 300
# Frames that are shown so far before the one before them are of a clock that has begun again.
_RESTART_S = 1.0
# Frames by which the first one's stamp may lie behind 0 for no other reason than how encoders of sound begin,
# or lying stamps.
_SMALL_START, _SMALL_LYING_START = 1.0, 3.5


class StreamClock:
    """Gives each frame its time.

    Hand it every packet before that is decoded, and every frame that comes out. After seeking, `restart` it.

    Args:
        container, stream: opened, and not read.
        rate: frames a second, for what has no stamps.
        peek: read the first packets, to find out whether stamps lie; without that they are believed.

    `start_s` is when the first frame is shown. Where stamps lie, `by_order` is true: frames are shown in the
    order in which they are decoded, so that their times are known from the first one on alone. `peeked` are
    the packets that were read to find that out, the first ones; `placed` counts the frames since the last
    restart.
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
        self._frame_s = 1 / float(rate) if rate else 0.0
        self._ticks, self._per = base.as_integer_ratio()
        self._first = stream.start_time or 0
        self._is_avi = container.format.name == "avi"
        if self.peeked and (self.by_order or self._is_avi):  # whose stated start may lie too
            self._first = self._order(self.peeked[0]) or 0
        start_s = float(self._first * base - Fraction(container.start_time or 0, av.time_base))
        lies = self.by_order or self._is_avi
        small = (_SMALL_LYING_START if lies else _SMALL_START) * self._frame_s
        known = stream.start_time is not None and container.start_time is not None
        self.start_s = start_s if known and start_s > small else 0.0
        joinable = container.format.name in JOINABLE
        self._bounds = (-_BACK_S / base, _LEAP_S / base) if joinable else None
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

    def stamp_at(self, time_s: float) -> int:
        """The stamp of a time."""
        return int(Fraction(time_s - self.start_s) * self._per / self._ticks) + self._first

    def _order(self, packet: av.Packet[Any]) -> int | None:
        """A stamp that counts packets: of AVI that of decoding, as FFmpeg makes up the other one."""
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
    """The first packets, as far as need be, and whether frames are stored out of order and no stamp says so.

    AVI stores none. Elsewhere some stamp falls, soon, if they are true.
    """
    packets: list[av.Packet[Any]] = []
    reorders, is_avi = bool(stream.codec_context.has_b_frames), container.format.name == "avi"
    if not reorders and not is_avi:
        return packets, False
    latest: int | None = None
    for packet in container.demux(stream):
        if packet.size == 0:  # the end, which comes again to who reads on
            break
        packets.append(packet)
        if is_avi or packet.pts is None:  # of a raw stream
            return packets, is_avi and reorders
        if latest is not None and packet.pts < latest:
            return packets, False
        latest = packet.pts
        if len(packets) == _PEEKED:
            break
    return packets, latest is not None
