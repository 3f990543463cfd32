"""What is drawn over a frame: the likeliest coming actions as bars, and a time line of what was expected."""

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from kdant_tf.pictures.style import OKABE_ITO, text_on

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is expected from `from_s` on: classes and probabilities, the likeliest first; maybe none."""

    from_s: float
    likeliest: tuple[tuple[str, float], ...]


class Panel:
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
        shown = name
        while shown and self._width(shown) > width:
            shown = f"{shown.removesuffix('…')[:-1]}…" if len(shown) > 1 else ""
        return shown


@functools.lru_cache(maxsize=8)
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings along on every system."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
