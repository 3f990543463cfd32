"""A page: the parts it consists of, as plain text and pictures, and the one HTML file made of them."""

from __future__ import annotations

import base64
import dataclasses
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import jinja2
from markupsafe import Markup
from PIL import Image

from tf_records.files import write_text_atomically

_FOLDER = Path(__file__).parent
_QUALITY = 90


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableCell:
    """Of a table.

    Args:
        text: as the page has it.
        key: number to sort by in place of the text; None sorts last in a column of numbers.
    """

    text: str
    key: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """With a header cell at the start of each row.

    Args:
        caption: above it.
        columns: names, the first that of the row headers.
        rows: cells, as many as columns.
        note: below it.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    note: str = ""

    def is_numeric(self, column: int) -> bool:
        """Whether its cells have numbers to sort by."""
        return any(row[column].key is not None for row in self.rows)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A still picture.

    Args:
        source: data URI.
        width, height: in pixels.
        alt: what it shows, for those who do not see it.
        caption: below it.
    """

    kind: ClassVar[str] = "picture"
    source: str
    width: int
    height: int
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A class that a network finds probable, and whether it is the label."""

    name: str
    probability: float
    correct: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A sample's two clips side by side, and the most probable classes by each network.

    Args:
        label: name of its class.
        id: of the sample.
        still, moving: data URIs.
        width, height: in pixels.
        frames: of each clip.
        times: of the clips in the video, in words.
        guesses: network → its most probable classes, most probable first.
    """

    label: str
    id: str
    still: str
    moving: str
    width: int
    height: int
    frames: int
    times: str
    guesses: dict[str, tuple[Guess, ...]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Clips under a heading of their own."""

    kind: ClassVar[str] = "gallery"
    title: str
    text: str
    clips: Sequence[Clip]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page; `id` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Table | Picture | Gallery]
    text: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All of it."""

    title: str
    lead: str
    sections: Sequence[Section]
    version: str

    @property
    def clips(self) -> int:
        """How many samples it shows."""
        return sum(
            len(block.clips)
            for section in self.sections
            for block in section.blocks
            if isinstance(block, Gallery)
        )


def write_page(page: Page, path: Path) -> int:
    """Writes a page, whole or not at all; returns its size in bytes."""
    text = render_page(page)
    write_text_atomically(path, text)
    return len(text.encode("utf-8"))


def render_page(page: Page) -> str:
    """HTML that fetches nothing: style, script and pictures are inside. The same page gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = (Markup((_FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(page=page, style=style, script=script)


def interval_cell(value: float, low: float, high: float) -> TableCell:
    """A difference of accuracies with its interval, in percentage points."""
    # Adding zero makes a zero of what was rounded to minus zero.
    points = [round(100 * part, 1) + 0.0 for part in (value, low, high)]
    return TableCell(text="{:+.1f} ({:+.1f} to {:+.1f})".format(*points), key=value)


def draw_inline(draw: Callable[[Path], object], *, alt: str, caption: str, frames: bool = False) -> Picture:
    """What a function writes into a PNG, as WebP.

    Args:
        draw: path of the PNG → anything.
        alt, caption: see Picture.
        frames: it shows frames of videos, which lossless compression leaves large.
    """
    with tempfile.TemporaryDirectory(prefix="kdant-") as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        with Image.open(path) as image:
            width, height = image.size
            file = io.BytesIO()
            image.convert("RGB").save(file, "WEBP", lossless=not frames, quality=_QUALITY)
    source = data_uri("image/webp", file.getvalue())
    return Picture(source=source, width=width, height=height, alt=alt, caption=caption)


def data_uri(media_type: str, data: bytes) -> str:
    """Such as "data:image/webp;base64,UklGR…"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
