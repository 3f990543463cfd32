"""Where frames come from: a video file, a folder of images, stdin, a camera, an RTSP server.

`open_source` opens what a person's words name as a `FrameSource`, which gives its frames once, in order, each
with the time it is shown at. Cameras and streams that break off are taken up again where that is asked for.
"""

from __future__ import annotations

import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import numpy as np

from tf_records.container import (
    END_TOLERANCE_S,
    Limits,
    StreamClock,
    choose_stream,
    find_length,
    find_rate,
    open_container,
    reason_of,
    states_length,
)
from tf_records.errors import VideoError
from tf_records.video import FrameFolder, holds_frames
from tf_records.video_file import Resizer

STDIN = "-"
_RTSP = ("rtsp://", "rtsps://")
_LIMITS = Limits()
# Seconds to wait for a server's first answer, and for each packet.
_TIMEOUT_S = (10.0, 10.0)
# Between attempts to open again what broke off; pauses double from the first to the longest.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
# A stream that goes back by more than this has begun anew.
_RESTART_S = 1.0


class TimedFrame(NamedTuple):
    """A frame, and when it is shown, never before the one before it.

    Seconds of a player's clock: since the beginning of a file, its sound included, or since the first frame.
    """

    time_s: float
    frame: av.VideoFrame


class FrameSource(Protocol):
    """Frames that can be gone through once.

    `name` is for messages. `live` says that frames come at their own pace and do not wait. `rate` is the mean
    number of frames per second, None where nobody knows.
    """

    name: str
    live: bool
    rate: float | None

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in order; a damaged one is left out.

        Raises:
            VideoError: there is none, or the source fails.
        """
        ...

    def problems(self) -> list[str]:
        """What was wrong with it so far, though it could be gone through: a sentence each."""
        ...

    def close(self) -> None:
        """Lets go of file, device or connection."""
        ...


def open_source(
    source: str | Path | int,
    *,
    live: bool = False,
    rate: float | None = None,
    reconnect_s: float = 0.0,
    report: Callable[[str], None] = lambda line: None,
) -> FrameSource:
    """Opens a video, a folder of images, a stream or a camera.

    Args:
        source: a video file, a folder of numbered images, "-" for stdin, an rtsp:// URL, or the number of a
            camera, as text only where no file has that name.
        live: whether frames of stdin do not wait; those of cameras and URLs never do.
        rate: frames per second of what states none, such as a folder.
        reconnect_s: seconds that a URL or a camera may be away; with 0 its first end is the end.
        report: called with a sentence where it breaks off and is back.

    Raises:
        VideoError: there is no such thing, or it cannot be read.

    Example::

        with closing(open_source("video.mp4")) as source:
            for time_s, frame in source.frames():
                image = frame.to_ndarray(format="rgb24")  # uint8 (H, W, 3)
    """
    text = str(source)
    if text == STDIN:
        return VideoSource("stdin", "pipe:0", live=live, rate=rate)
    if isinstance(source, int) or is_live(text):
        open_stream: Callable[[], CameraSource | VideoSource]
        if isinstance(source, int) or text.isdecimal():
            open_stream = partial(CameraSource, int(text))
        else:
            open_stream = partial(VideoSource, _without_password(text), text, live=True, rate=rate)
        if not reconnect_s:
            return open_stream()
        return ReconnectingSource(open_stream, patience_s=reconnect_s, report=report)
    if "://" in text:
        raise VideoError(
            f"{text} is a URL of another kind than rtsp://. Pipe it in: "
            f"ffmpeg -i URL -f mpegts - | kdant predict - --live …"
        )
    if os.path.isdir(text):
        return FolderSource(text, rate=rate)
    if live:
        raise VideoError(f"{text} waits for its frames to be read, so --live is not for it. Leave it out.")
    return VideoSource(text, text, rate=rate)


def check_source(source: str | Path | int, *, live: bool = False) -> None:
    """Finds out, before a network is loaded, whether there is such a file or folder; others are left alone.

    Raises:
        VideoError: as `open_source`.
    """
    text = str(source)
    if text == STDIN and os.isatty(0):
        raise VideoError("stdin is a terminal, no stream. Pipe one in: cat VIDEO | kdant predict - …")
    if text != STDIN and not isinstance(source, int) and not is_live(text):
        open_source(text, live=live).close()


def is_live(text: str) -> bool:
    """Whether frames come at their own pace: of a camera, or a URL."""
    return text.lower().startswith(_RTSP) or (text.isdecimal() and not os.path.exists(text))


def _without_password(url: str) -> str:
    """For messages and results, which others may read."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class VideoSource:
    """What PyAV decodes, read once from its start to its end: a file, stdin or a URL.

    Args:
        name: for messages.
        path: of a file, "pipe:0", or a URL.
        live: whether frames do not wait to be read.
        rate: frames per second, where the stream states none.

    `stated_s` is the length in seconds that the stream states, 0 where it states none.

    Raises:
        VideoError: it cannot be opened, or holds no video.
    """

    def __init__(self, name: str, path: str, *, live: bool = False, rate: float | None = None) -> None:
        self.name = name
        self.live = live
        self._damaged, self._end_s, self._ended = 0, 0.0, False
        self._reading = self._after_damage = False
        self.on_audio: Callable[[av.Packet[Any]], None] | None = None
        is_file = path == name and "://" not in path
        self._clock: StreamClock | None = None
        self.stated_s = 0.0
        if is_file:
            self._clock, self.stated_s = _read_header(path)
        self._container = open_container(path) if is_file else _open_stream(name, path)
        try:
            self.stream = choose_stream(self._container, name, _LIMITS, remote="://" in path)
        except BaseException:
            self._container.close()
            raise
        stated, _ = find_rate(self.stream)
        self.rate = float(stated) if stated else rate
        if not is_file:
            self.stated_s = (self._container.duration or 0) / av.time_base
        if path == "pipe:0":
            self._clock = StreamClock(self._container, self.stream, stated, peek=False)

    def origin_s(self, timed: TimedFrame) -> float:
        """The stamp of time 0 in seconds, by the clock of the file; of a URL by one of its frames."""
        return (stamp_s(timed.frame) or 0.0) - timed.time_s if self._clock is None else self._clock.origin_s

    @property
    def audio(self) -> tuple[av.AudioStream, ...]:
        """The streams of sound."""
        return self._container.streams.audio

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in order, see `FrameSource`; the packets of sound between them are handed to `on_audio`.

        The file is closed at the end, by the thread that reads it.
        """
        self._reading = True
        try:
            yield from self._read()
        finally:
            self._container.close()

    def _read(self) -> Iterator[TimedFrame]:
        timeline, empty = Timeline(self.rate), True
        for packet in self._packets():
            if packet.stream is not self.stream:
                assert self.on_audio is not None
                self.on_audio(packet)
                continue
            if self._clock is not None:
                self._clock.take(packet)
            for frame in self._decode(packet):
                _LIMITS.check_size(self.name, frame.width, frame.height)
                clock = self._clock
                empty, self._end_s = (
                    False,
                    timeline.place(stamp_s(frame)) if clock is None else clock.place(frame),
                )
                yield TimedFrame(self._end_s, frame)
        if empty:
            raise VideoError(f"{self.name} holds no frame that can be decoded.")
        self._ended = True

    def problems(self) -> list[str]:
        """How many frames were passed over or shown damaged, and whether the end is missing."""
        found = [f"{self._damaged} frames are damaged."] if self._damaged else []
        missing_s = self.stated_s - self._end_s - 1 / (self.rate or 1)
        if self._ended and missing_s > max(END_TOLERANCE_S, 0.02 * self.stated_s):
            found.append(
                f"It is cut short: its header promises {self.stated_s:.2f} s, frames end at "
                f"{self._end_s:.2f} s."
            )
        return found

    def close(self) -> None:
        """Closes what nobody reads; what is being read, maybe by another thread, is closed at its end."""
        if not self._reading:
            self._container.close()

    def _packets(self) -> Iterator[av.Packet[Any]]:
        audio = () if self.on_audio is None else self.audio
        try:
            yield from self._container.demux(self.stream, *audio)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.name} cannot be read on: {reason_of(error)}.") from error

    def _decode(self, packet: av.Packet[Any]) -> list[av.VideoFrame]:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._damaged += 1
            return []
        for frame in frames:  # what follows a damaged one is predicted from it, up to the next key frame
            self._after_damage = frame.is_corrupt or (self._after_damage and not frame.key_frame)
            self._damaged += self._after_damage
        return frames


def stamp_s(frame: av.VideoFrame) -> float | None:
    """When the stream says that a frame is shown, in seconds; None where it does not."""
    stamp = frame.dts if frame.pts is None else frame.pts
    return None if stamp is None or not frame.time_base else float(stamp * frame.time_base)


def _read_header(path: str) -> tuple[StreamClock, float]:
    """When a file's frames are shown, as in records, and when its header says that they end, or 0."""
    with open_container(path) as container:
        stream = choose_stream(container, path, _LIMITS)
        rate, _ = find_rate(stream)
        clock = StreamClock(container, stream, rate)
        clock.peeked.clear()
        if rate is None or clock.counts or not states_length(container, stream):
            return clock, 0.0
        return clock, find_length(path, container, stream, clock, rate, _LIMITS).promised_s or 0.0


def _open_stream(name: str, path: str) -> av.container.InputContainer:
    # Over UDP, RTSP's default, packets get lost, and the pictures with them.
    options = {"rtsp_transport": "tcp"} if "://" in path else {}
    try:
        return av.open(path, options=options, timeout=_TIMEOUT_S, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{name} cannot be opened as a video: {reason_of(error)}.") from error


class CameraSource:
    """A camera of this machine; a frame's time is that of its arrival.

    It is read by OpenCV: the FFmpeg that PyAV ships knows no devices.

    Raises:
        VideoError: no OpenCV, or no such camera.
    """

    live = True
    stated_s = 0.0  # cameras state no length

    def __init__(self, number: int) -> None:
        try:
            import cv2
        except ImportError as error:
            raise VideoError(
                f"Cameras need OpenCV, which cannot be imported: {error}. Install it: "
                f"pip install 'kdant-tf[flow]'."
            ) from error
        self.name = f"camera {number}"
        self._reading = False
        # What OpenCV says of a missing camera goes past Python's stderr.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise VideoError(
                f"There is no camera {number}, or it is in use. Give another number, a file, or an rtsp:// "
                f"URL."
            )
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or None

    def frames(self) -> Iterator[TimedFrame]:
        """What the camera gives until it is unplugged, see `FrameSource`."""
        timeline, self._reading = Timeline(self.rate), True
        try:
            while True:
                given, picture = self._capture.read()
                if not given:
                    raise VideoError(f"{self.name.capitalize()} gives no more pictures.")
                time_s = timeline.place(time.monotonic())
                frame = av.VideoFrame.from_ndarray(np.asarray(picture, np.uint8), format="bgr24")
                yield TimedFrame(time_s, frame)
        finally:
            self._capture.release()

    def problems(self) -> list[str]:
        """Nothing: a camera gives pictures, or none."""
        return []

    def close(self) -> None:
        """Releases a camera that nobody has begun to read; whoever reads it releases it at the end."""
        if not self._reading:
            self._capture.release()


class FolderSource:
    """The numbered images of a folder, which say nothing of their rate.

    Raises:
        VideoError: no numbered pictures in it, or not all of them.
    """

    live = False

    def __init__(self, path: str, *, rate: float | None) -> None:
        self.name = path
        self.rate = rate
        self._unreadable: list[VideoError] = []
        if not holds_frames(path):
            raise VideoError(
                f"Folder {path} holds no pictures such as frame_0001.jpg. Give a video, or its frames."
            )
        self._folder = FrameFolder(path, None, Resizer(None, _LIMITS), _LIMITS)

    def frames(self) -> Iterator[TimedFrame]:
        """The pictures in the order of their numbers, see `FrameSource`."""
        if self.rate is None:
            raise VideoError(f"Folder {self.name} states no frame rate. Give it: --source-fps.")
        for number in range(self._folder.frames):
            try:
                picture = self._folder.picture(number)
            except VideoError as error:
                self._unreadable.append(error)
                continue
            yield TimedFrame(number / self.rate, picture)
        if len(self._unreadable) == self._folder.frames:
            raise self._unreadable[0]

    def problems(self) -> list[str]:
        """How many pictures were passed over, and why the first one."""
        if not self._unreadable:
            return []
        return [f"{len(self._unreadable)} damaged frames were passed over, the first: {self._unreadable[0]}"]

    def close(self) -> None:
        """Nothing is kept open."""


class ReconnectingSource:
    """A live source that is opened anew where it breaks off; its clock goes on meanwhile.

    RTSP tells the end of a stream by closing the connection, as a camera does that is switched off; a camera
    that is unplugged gives no more pictures. So what states no length has not ended but broken off.

    Args:
        open_stream: opens the stream; called at once, and again after each break.
        patience_s: seconds > 0 that it may be away.
        report: called with a sentence at each break and each return.

    Raises:
        VideoError: it cannot be opened at once.
    """

    live = True

    def __init__(
        self,
        open_stream: Callable[[], VideoSource | CameraSource],
        *,
        patience_s: float,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._open_stream, self._patience_s, self._report = open_stream, patience_s, report
        self._stream = open_stream()
        self.name, self.rate = self._stream.name, self._stream.rate
        self._breaks, self._away_s = 0, 0.0
        self._problems: list[str] = []

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in order, see `FrameSource`; after a break as much later as it lasted."""
        start_s = last_s = 0.0
        came_at: float | None = None
        while True:
            broke_off = came_at is not None
            try:
                for time_s, frame in self._stream.frames():
                    if broke_off and came_at is not None:
                        start_s = last_s + self._count(time.monotonic() - came_at)
                        broke_off = False
                    came_at, last_s = time.monotonic(), start_s + time_s
                    yield TimedFrame(last_s, frame)
                reason = f"{self.name} ended."
            except VideoError as error:
                if came_at is None:
                    raise
                reason = str(error)
            if self._stream.stated_s or came_at is None:
                return
            if not broke_off:
                self._report(f"{reason} It is tried again for {self._patience_s:g} s.")
            self._reopen(came_at, reason)

    def problems(self) -> list[str]:
        """How often and how long it was away, and what was wrong with its frames."""
        times = "once" if self._breaks == 1 else f"{self._breaks} times"
        away = f"It broke off {times}, for {self._away_s:.1f} s in all."
        return [*([away] if self._breaks else []), *self._problems, *self._stream.problems()]

    def close(self) -> None:
        """See `FrameSource`."""
        self._stream.close()

    def _count(self, away_s: float) -> float:
        self._breaks += 1
        self._away_s += away_s
        self._report(f"After {away_s:.1f} s {self.name} is back.")
        return away_s

    def _reopen(self, came_at: float, reason: str) -> None:
        """Waits until it can be opened again.

        Raises:
            VideoError: it has been away for too long.
        """
        self._problems += self._stream.problems()
        pause_s = _FIRST_PAUSE_S
        while (left_s := came_at + self._patience_s - time.monotonic()) > 0:
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                self._stream = self._open_stream()
            except VideoError as error:
                reason = str(error)
            else:
                return
        raise VideoError(
            f"Gave up on {self.name} after {self._patience_s:g} s, at last: {reason} Start again when it is "
            f"back, or give it longer: --reconnect-s."
        )


class Timeline:
    """Places frames in time.

    A missing stamp follows the frame before by 1 / `rate`; so does a stamp that lies far before it, with
    which the stream has begun anew. One that lies a little before it counts as simultaneous.
    """

    def __init__(self, rate: float | None) -> None:
        self._step_s = 1 / rate if rate else 0.0
        self._origin_s: float | None = None
        self._last_s = 0.0

    def place(self, stamp_s: float | None) -> float:
        """Seconds since the first frame, for the stamp that the stream gives the next one, in seconds."""
        if self._origin_s is None:
            self._origin_s = 0.0 if stamp_s is None else stamp_s
            return self._last_s
        following_s = self._last_s + self._step_s
        time_s = following_s if stamp_s is None else stamp_s - self._origin_s
        if time_s < self._last_s - _RESTART_S:
            self._origin_s += time_s - following_s
            time_s = following_s
        self._last_s = max(self._last_s, time_s)
        return self._last_s
