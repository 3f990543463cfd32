"""A copy of a video with the anticipations drawn over it, its sound kept.

`OverlayVideo` writes the file, an `OverlayPanel` draws the likeliest coming actions as bars and a time line
of what was expected, a `SoundTrack` takes the sound over.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kdant_tf.anticipation.sources import FrameSource, TimedFrame, VideoSource
from kdant_tf.visualization.style import OKABE_ITO, text_on
from tf_records.container import Limits, reason_of
from tf_records.errors import KdantError
from tf_records.files import atomic_path, check_apart
from tf_records.video_file import Resizer

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_OPTIONS = {"preset": "veryfast", "crf": "20"}
# H.264's common form of colours wants even sides.
_EVEN, _ODD = "yuv420p", "yuv444p"
# Colour spaces that swscale converts to by name; all others it treats as ITU-R BT.601.
_BT709 = 1
_LIMITED_RANGE = 1
# In which frames without time stamps are counted.
_TICK = Fraction(1, 90_000)

# Without black, which does not show on the dark panel; the palest first.
COLORS = tuple(color for color in reversed(OKABE_ITO) if color != "#000000")
BARS = 3
_TEXT, _FAINT, _TRACK, _DARK = "#FFFFFF", "#D0D0D0", "#707070", "#101010"
# Over a white picture white words still have 10 : 1.
_OPACITY = 0.8
# Of the frame's shorter side; below the smallest size letters run into each other.
_FONT_SHARE, _SMALLEST_FONT = 0.034, 9
# Share of the time line that lies ahead of now, and the seconds that it shows at least.
_AHEAD_SHARE, _LEAST_AHEAD_S = 0.25, 1.0


def check_overlay(path: str | Path, source: str | Path) -> None:
    """Refuses a name that no overlay can have, before anything is loaded.

    Raises:
        KdantError: another suffix, no such folder, or a name of or in the source.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise KdantError(f"An overlay's name should end in {', '.join(FORMATS)}. Received: {path}.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise KdantError(f"Overlay {path} cannot be written: no folder that can be written. Choose another.")
    if path.is_dir() or (path.exists() and os.path.exists(source) and path.samefile(source)):
        raise KdantError(f"Overlay {path} would replace what it is drawn of. Choose another name.")
    if os.path.isdir(source):
        check_apart(path, Path(source))


class OverlayVideo(AbstractContextManager["OverlayVideo"]):
    """Writes a source's frames with a panel drawn over them: upright, in their size and at their times.

    The file has a temporary name until the context ends well. Sound is copied as it is, or encoded anew where
    the new file's format knows no such sound.

    Args:
        path: see `check_overlay`.
        source: of the frames; a `VideoSource` is made to hand over its sound.
        panel: draws.
    """

    def __init__(self, path: str | Path, source: FrameSource, panel: OverlayPanel) -> None:
        self._path, self._source, self._panel = Path(path), source, panel
        self._stack = ExitStack()
        self._resizer = Resizer(None, Limits())
        self._early: list[av.Packet[Any]] = []
        self._sound: dict[int, SoundTrack] = {}
        self._video: av.VideoStream | None = None
        self._origin_s, self._last = 0.0, -1

    def __enter__(self) -> OverlayVideo:
        temporary = self._stack.enter_context(atomic_path(self._path))
        name = FORMATS[self._path.suffix.lower()]
        self._container = self._stack.enter_context(av.open(str(temporary), "w", format=name))
        if isinstance(self._source, VideoSource):
            self._source.on_audio = self._take_audio
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            with self._errors_named():
                if self._video is not None:
                    self._container.mux(self._video.encode(None))
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
            stream = self._start(timed, picture.size) if self._video is None else self._video
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
        if isinstance(source, VideoSource):
            shape = source.stream.sample_aspect_ratio or Fraction(1)
            context.sample_aspect_ratio = 1 / shape if round(frame.rotation / 90) % 2 else shape
            self._sound = {track.index: SoundTrack(self._container, track) for track in source.audio}
            self._origin_s = source.origin_s(timed)
        self._video = stream
        for packet in self._early:
            self._take_audio(packet)
        self._early.clear()
        return stream

    def _take_audio(self, packet: av.Packet[Any]) -> None:
        if self._video is None:
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is expected from `from_s` on: classes and probabilities, the likeliest first; maybe none."""

    from_s: float
    likeliest: tuple[tuple[str, float], ...]


class OverlayPanel:
    """Draws on frames in rising time; holds no more than the time line shows.

    Args:
        classes: in index order; a class has its colour by its place.
        ahead_s: seconds from the last frame seen to the beginning of what is expected.
        stride_s: seconds from one expectation to the next.
    """

    def __init__(self, classes: Sequence[str], *, ahead_s: float, stride_s: float) -> None:
        self._colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(classes)}
        self._ahead_s, self._stride_s = ahead_s, stride_s
        self._future_s = max(_LEAST_AHEAD_S, ahead_s + stride_s)
        self._past_s = self._future_s * (1 - _AHEAD_SHARE) / _AHEAD_SHARE
        self._expected: deque[Expectation] = deque()
        self._size = (0, 0)

    def expect(self, expectation: Expectation) -> None:
        """Takes what is expected from now on."""
        self._expected.append(expectation)

    def draw(self, picture: Image.Image, now_s: float) -> None:
        """Draws over the lower edge of an RGB picture, in place."""
        self._fit_to(picture.size)
        while len(self._expected) > 1 and self._expected[1].from_s < now_s - self._past_s:
            self._expected.popleft()
        width, height = self._size
        rows = self._row * (BARS + 3) + self._margin
        top = max(0, height - rows)
        below = picture.crop((0, top, width, height))
        strip = Image.blend(below, Image.new("RGB", below.size, _DARK), _OPACITY)
        draw = ImageDraw.Draw(strip)
        self._draw_head(draw, now_s)
        latest = self._expected[-1].likeliest[:BARS] if self._expected else ()
        for number, (name, probability) in enumerate(latest):
            self._draw_bar(draw, self._row * (number + 1) + self._margin // 2, name, probability)
        self._draw_time_line(draw, self._row * (BARS + 1) + self._margin // 2, now_s)
        picture.paste(strip, (0, top))

    def _fit_to(self, size: tuple[int, int]) -> None:
        """Sizes in pixels, for frames of (W, H)."""
        if size == self._size:
            return
        self._size = size
        self._font_size = max(_SMALLEST_FONT, round(_FONT_SHARE * min(size)))
        self._font = _load_font(self._font_size)
        self._row = round(1.45 * self._font_size)
        self._margin = max(2, self._font_size // 2)
        names = max(self._width(name) for name in self._colors)
        self._name_width = min(names, round(0.42 * size[0]))

    def _draw_head(self, draw: ImageDraw.ImageDraw, now_s: float) -> None:
        """What the bars tell at the left, the time at the right, where both have room."""
        y = self._row / 2 + self._margin // 2
        words = f"expected in {self._ahead_s:.2f} s" if self._ahead_s > 0 else "seen"
        if not self._expected:
            words = "watching"
        clock = f"{now_s:.1f} s"
        draw.text((self._margin, y), words, _TEXT, self._font, anchor="lm")
        room = self._size[0] - 3 * self._margin - self._width(words)
        if self._width(clock) <= room:
            draw.text((self._size[0] - self._margin, y), clock, _FAINT, self._font, anchor="rm")

    def _draw_bar(self, draw: ImageDraw.ImageDraw, y: int, name: str, probability: float) -> None:
        middle, thick = y + self._row / 2, round(0.8 * self._font_size)
        left = self._margin + self._name_width + self._margin
        right = self._size[0] - 2 * self._margin - self._width("100 %")
        draw.text((self._margin, middle), self._fit(name, self._name_width), _TEXT, self._font, anchor="lm")
        if right > left:
            top, bottom = middle - thick // 2, middle + thick // 2
            draw.rectangle((left, top, right, bottom), fill=_TRACK)
            draw.rectangle((left, top, left + (right - left) * probability, bottom), fill=self._colors[name])
        percent = f"{100 * probability:.0f} %"
        draw.text((self._size[0] - self._margin, middle), percent, _TEXT, self._font, anchor="rm")

    def _draw_time_line(self, draw: ImageDraw.ImageDraw, y: int, now_s: float) -> None:
        """What was expected for each time, the present at three quarters of the width."""
        bottom = y + round(0.95 * self._row)
        left, right = self._margin, self._size[0] - self._margin
        draw.rectangle((left, y, right, bottom), fill=_TRACK)
        now, thick = self._place(now_s, now_s), max(1, self._font_size // 8)
        for from_s, to_s, name in self._runs():
            start, stop = (self._place(time_s, now_s) for time_s in (from_s, to_s))
            start, stop = max(left, start), min(right, stop)
            if start >= stop:
                continue
            draw.rectangle((start, y, stop, bottom), fill=self._colors[name])
            # The name stands in the longer part at one side of the present.
            parts = ((start, min(stop, now - 2 * thick)), (max(start, now + 2 * thick), stop))
            start, stop = max(parts, key=lambda part: part[1] - part[0])
            if self._width(name) + self._margin <= stop - start:
                place = ((start + stop) / 2, (y + bottom) / 2)
                draw.text(place, name, text_on(self._colors[name]), self._font, anchor="mm")
        # White within dark, which shows on every class's colour.
        draw.rectangle((now - 2 * thick, y - thick, now + 2 * thick, bottom + thick), fill=_DARK)
        draw.rectangle((now - thick, y - thick, now + thick, bottom + thick), fill=_TEXT)
        self._draw_axis(draw, bottom + thick, now)

    def _draw_axis(self, draw: ImageDraw.ImageDraw, y: int, now: float) -> None:
        middle = y + self._row / 2
        draw.text((now, middle), "now", _TEXT, self._font, anchor="mm")
        half = self._width("now") / 2 + self._margin
        past, ahead = f"-{self._past_s:.2g} s", f"+{self._future_s:.2g} s"
        if self._margin + self._width(past) <= now - half:
            draw.text((self._margin, middle), past, _FAINT, self._font, anchor="lm")
        if now + half <= self._size[0] - self._margin - self._width(ahead):
            draw.text((self._size[0] - self._margin, middle), ahead, _FAINT, self._font, anchor="rm")

    def _runs(self) -> list[tuple[float, float, str]]:
        """From when to when which class was likeliest; an expectation lasts until the next, or a stride."""
        runs: list[tuple[float, float, str]] = []
        expected = list(self._expected)
        for each, following in itertools.zip_longest(expected, expected[1:]):
            stop_s = each.from_s + self._stride_s if following is None else following.from_s
            if not each.likeliest:
                continue
            name = each.likeliest[0][0]
            if runs and runs[-1][1:] == (each.from_s, name):
                runs[-1] = (runs[-1][0], stop_s, name)
            else:
                runs.append((each.from_s, stop_s, name))
        return runs

    def _place(self, time_s: float, now_s: float) -> float:
        width = self._size[0] - 2 * self._margin
        return self._margin + width * (time_s - now_s + self._past_s) / (self._past_s + self._future_s)

    def _width(self, text: str) -> float:
        return self._font.getlength(text)

    def _fit(self, name: str, width: float) -> str:
        """The name, or as much of it as has room, with an ellipsis."""
        while name and self._width(name) > width:
            name = f"{name.removesuffix('…')[:-1]}…" if len(name) > 1 else ""
        return name


@functools.lru_cache(maxsize=8)
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings along on every system."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


class SoundTrack:
    """Copies the packets of one stream of sound; where the new file takes no such codec, encodes it anew.

    Args:
        container: open for writing, nothing written yet.
        source: the stream of sound.
    """

    def __init__(self, container: av.container.OutputContainer, source: av.AudioStream) -> None:
        self._container = container
        self._source = source
        self._copied = source.codec_context.codec.canonical_name in container.supported_codecs
        self._last: int | None = None
        self._stream = (
            container.add_stream_from_template(source)
            if self._copied
            else container.add_stream("aac", rate=source.rate)
        )

    def write(self, packet: av.Packet[Any], origin_s: float) -> None:
        """Takes the next packet; `origin_s` is the time stamp that becomes 0, in seconds."""
        if packet.dts is None or packet.pts is None or packet.time_base is None:
            return
        shift = round(origin_s / packet.time_base)
        if self._copied:
            packet.pts -= shift
            packet.dts -= shift
            # A stream that begins anew would go back in time, which no file can.
            if self._last is None or packet.dts > self._last:
                self._last = packet.dts
                packet.stream = self._stream
                self._container.mux(packet)
            return
        for frame in self._source.decode(packet):
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(origin_s / frame.time_base)
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        if not self._copied:
            self._container.mux(self._stream.encode(None))
