"""A copy of a video with the anticipations drawn over it, its sound kept."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from PIL import Image

from kdant_tf.anticipation.overlay_panel import Expectation, Panel
from kdant_tf.anticipation.sound_track import SoundTrack
from kdant_tf.anticipation.source import Source, TimedFrame
from kdant_tf.anticipation.video_stream import VideoStream, stamp_s
from tf_records.container import reason_of
from tf_records.errors import KdantError
from tf_records.files import atomic_path
from tf_records.limits import Limits
from tf_records.resize import Resizer

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_OPTIONS = {"preset": "veryfast", "crf": "20"}
# H.264's common form of colours wants even sides.
_EVEN, _ODD = "yuv420p", "yuv444p"
# Colour spaces that swscale converts to by name; all others it treats as ITU-R BT.601.
_BT709 = 1
_LIMITED_RANGE = 1
# In which frames without time stamps are counted.
_TICK = Fraction(1, 90_000)


def check_overlay(path: Path, source: str) -> None:
    """Refuses a name that no overlay can have, before anything is loaded.

    Raises:
        KdantError: another suffix, no such folder, or the source's own name.
    """
    if path.suffix.lower() not in FORMATS:
        raise KdantError(f"An overlay's name should end in {', '.join(FORMATS)}. Received: {path}.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise KdantError(f"Overlay {path} cannot be written: no folder that can be written. Choose another.")
    if path.is_dir() or (path.exists() and os.path.exists(source) and path.samefile(source)):
        raise KdantError(f"Overlay {path} would replace what it is drawn of. Choose another name.")


class OverlayVideo(AbstractContextManager["OverlayVideo"]):
    """Writes a source's frames with a panel drawn over them: upright, in their size and at their times.

    The file has a temporary name until the context ends well. Sound is copied as it is, or encoded anew where
    the new file's format knows no such sound.

    Args:
        path: see `check_overlay`.
        source: of the frames; a `VideoStream` is made to hand over its sound.
        panel: draws.
    """

    def __init__(self, path: Path, source: Source, panel: Panel) -> None:
        self._path, self._source, self._panel = path, source, panel
        self._stack = ExitStack()
        self._resizer = Resizer(None, Limits())
        self._early: list[av.Packet] = []
        self._sound: dict[int, SoundTrack] = {}
        self._picture: av.VideoStream | None = None
        self._origin_s, self._last = 0.0, -1

    def __enter__(self) -> "OverlayVideo":
        temporary = self._stack.enter_context(atomic_path(self._path))
        name = FORMATS[self._path.suffix.lower()]
        self._container = self._stack.enter_context(av.open(str(temporary), "w", format=name))
        if isinstance(self._source, VideoStream):
            self._source.on_audio = self._take_audio
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            with self._errors_named():
                if self._picture is not None:
                    self._container.mux(self._picture.encode(None))
                for track in self._sound.values():
                    track.finish()

    def expect(self, from_s: float, likeliest: Sequence[tuple[str, float]]) -> None:
        """Takes what is expected from `from_s` on, for the frames to come; see `Expectation`."""
        self._panel.expect(Expectation(from_s=from_s, likeliest=tuple(likeliest)))

    def draw(self, timed: TimedFrame) -> None:
        """Takes the next frame.

        Raises:
            KdantError: the file cannot be written.
        """
        rgb = self._resizer.convert(timed.frame, self._source.name)
        picture = Image.fromarray(np.ascontiguousarray(rgb))
        with self._errors_named():
            stream = self._start(timed, picture.size) if self._picture is None else self._picture
            if picture.size != (stream.width, stream.height):
                picture = picture.resize((stream.width, stream.height))
            self._panel.draw(picture, timed.time_s)
            frame = _to_frame(np.asarray(picture), stream, timed.frame)
            base = stream.codec_context.time_base
            frame.time_base = base
            frame.pts = self._last = max(self._last + 1, round(timed.time_s / base))
            self._container.mux(stream.encode(frame))

    def _start(self, timed: TimedFrame, size: tuple[int, int]) -> av.VideoStream:
        """Lays out the file, when it is known which way up the frames are."""
        source, frame = self._source, timed.frame
        rate = Fraction(source.rate or 30).limit_denominator(1001)
        stream = self._container.add_stream("libx264", rate=rate, options=_OPTIONS)
        stream.width, stream.height = size
        stream.pix_fmt = _EVEN if size[0] % 2 == size[1] % 2 == 0 else _ODD
        context = stream.codec_context
        context.time_base = _TICK if frame.pts is None or not frame.time_base else frame.time_base
        context.colorspace, context.color_range = frame.colorspace, _LIMITED_RANGE
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        if isinstance(source, VideoStream):
            shape = source.stream.sample_aspect_ratio or Fraction(1)
            context.sample_aspect_ratio = 1 / shape if round(frame.rotation / 90) % 2 else shape
            self._sound = {track.index: SoundTrack(self._container, track) for track in source.audio}
        self._origin_s = (stamp_s(frame) or 0.0) - timed.time_s
        self._picture = stream
        for packet in self._early:
            self._take_audio(packet)
        self._early.clear()
        return stream

    def _take_audio(self, packet: av.Packet) -> None:
        if self._picture is None:
            self._early.append(packet)
            return
        with self._errors_named():
            self._sound[packet.stream.index].write(packet, self._origin_s)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise KdantError(f"Overlay {self._path} cannot be written: {reason_of(error)}.") from error


def _to_frame(rgb: np.ndarray, stream: av.VideoStream, like: av.VideoFrame) -> av.VideoFrame:
    """uint8 `(H, W, 3)` → a frame for the encoder, in the colour space of another one."""
    space = "ITU709" if like.colorspace == _BT709 else "ITU601"
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format=stream.pix_fmt, dst_colorspace=space, dst_color_range="MPEG"
    )
    frame.colorspace, frame.color_range = like.colorspace, _LIMITED_RANGE
    return frame
