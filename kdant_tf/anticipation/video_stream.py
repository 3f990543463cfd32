"""What PyAV decodes: a video file, stdin or an RTSP stream, read once from its start to its end."""

from collections.abc import Callable, Iterator

import av

from kdant_tf.anticipation.source import TimedFrame
from kdant_tf.anticipation.timeline import Timeline
from tf_records.container import choose_stream, open_container, reason_of
from tf_records.errors import VideoError
from tf_records.limits import Limits
from tf_records.video_file import END_TOLERANCE_S

_LIMITS = Limits()
# Seconds to wait for a server's first answer, and for each packet.
_TIMEOUT_S = (10.0, 10.0)


class VideoStream:
    """A `Source` of a file, of stdin or of a URL.

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
        self._reading = False
        self.on_audio: Callable[[av.Packet], None] | None = None
        is_file = path == name and "://" not in path
        self._container = open_container(path) if is_file else _open_stream(name, path)
        try:
            self.stream = choose_stream(self._container, name, _LIMITS, remote="://" in path)
        except BaseException:
            self._container.close()
            raise
        self.stated_s = (self._container.duration or 0) / av.time_base
        stated = self.stream.average_rate or self.stream.guessed_rate
        self.rate = float(stated) if stated else rate

    @property
    def audio(self) -> tuple[av.AudioStream, ...]:
        """The streams of sound."""
        return self._container.streams.audio

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in order, see `Source`; the packets of sound between them are handed to `on_audio`.

        The file is closed at the end, by the thread that reads it.
        """
        self._reading = True
        try:
            yield from self._read()
        finally:
            self._container.close()

    def _read(self) -> Iterator[TimedFrame]:
        timeline, none = Timeline(self.rate), True
        for packet in self._packets():
            if packet.stream is not self.stream:
                assert self.on_audio is not None
                self.on_audio(packet)
                continue
            for frame in self._decode(packet):
                _LIMITS.check_size(self.name, frame.width, frame.height)
                none, self._end_s = False, timeline.place(stamp_s(frame))
                yield TimedFrame(self._end_s, frame)
        if none:
            raise VideoError(f"{self.name} holds no frame that can be decoded.")
        self._ended = True

    def complaints(self) -> list[str]:
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

    def _packets(self) -> Iterator[av.Packet]:
        audio = () if self.on_audio is None else self.audio
        try:
            yield from self._container.demux(self.stream, *audio)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.name} cannot be read on: {reason_of(error)}.") from error

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._damaged += 1
            return []
        self._damaged += sum(frame.is_corrupt for frame in frames)
        return frames


def stamp_s(frame: av.VideoFrame) -> float | None:
    """When the stream says that a frame is shown, in seconds; None where it does not."""
    stamp = frame.dts if frame.pts is None else frame.pts
    return None if stamp is None or not frame.time_base else float(stamp * frame.time_base)


def _open_stream(name: str, path: str) -> av.container.InputContainer:
    # Over UDP, RTSP's default, packets get lost, and the pictures with them.
    options = {"rtsp_transport": "tcp"} if "://" in path else {}
    try:
        return av.open(path, options=options, timeout=_TIMEOUT_S, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{name} cannot be opened as a video: {reason_of(error)}.") from error
