"""What a page consists of, before it is HTML: plain text, which the templates escape."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Of a table.

    Args:
        text: shown.
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
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def is_numeric(self, column: int) -> bool:
        """Whether its cells have numbers to sort by."""
        return any(row[column].key is not None for row in self.rows)


def interval_cell(value: float, low: float, high: float) -> Cell:
    """A difference of accuracies with its interval, in percentage points."""
    # Adding zero makes a zero of what was rounded to minus zero.
    shown = [round(100 * part, 1) + 0.0 for part in (value, low, high)]
    return Cell(text="{:+.1f} ({:+.1f} to {:+.1f})".format(*shown), key=value)


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
    """A class that a network named: with its probability, and whether it is the label."""

    name: str
    probability: float
    right: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A sample's two clips side by side, and what each network said.

    Args:
        label: name of its class.
        id: of the sample.
        still, moving: data URIs.
        width, height: in pixels.
        frames: of each clip.
        times: of the clips in the video, in words.
        said: network → its most probable classes, most probable first.
    """

    label: str
    id: str
    still: str
    moving: str
    width: int
    height: int
    frames: int
    times: str
    said: dict[str, tuple[Guess, ...]]


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
