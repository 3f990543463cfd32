"""What every source gives, samples, classes and what was missing, and the tables that they are read from."""

import csv
import dataclasses
import difflib
import io
import math
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tf_records.errors import AnnotationError
from tf_records.heads import Heads
from tf_records.manifest import Skipped

_NAMES_LISTED = 40
# Of bad rows, in an error; the manifest names all that were skipped.
_ROWS_NAMED = 20
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FolderClock:
    """What the annotations say of a video that may lie there as a folder of frames.

    Args:
        duration_s: length of the video.
        rates: frames per second at which the frames may have been taken out of it; the one that
            their number fits is right.
    """

    duration_s: float
    rates: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One action in one video, before any frame is read.

    Args:
        id: unique within the data set, the same on every machine.
        video: name of the video in the data set, relative, with forward slashes.
        path: where the file, or the folder of frames, lies on this machine.
        split: "train", "val" or "test".
        label: class name, or None for unlabelled.
        start_s, end_s: the action in seconds of the video; both None where the action is the video.
        observed_fraction: for test samples, the share of the video the protocol lets A see; None
            for one clip before the action.
        fps: rate of the clock that frames are taken on, in place of the build's.
        offset_s: seconds between the first frames of the two clips, in place of the build's distance.
        folder: needed where `path` is a folder of frames.
        labels: of `Annotations.heads`, see `tf_records.heads.names_of_heads`; they count where `label` is
            not None.
        time: which of several anticipation times a training pair is for, in place of the build's distance.
    """

    id: str
    video: str
    path: str
    split: str
    label: str | None
    start_s: float | None = None
    end_s: float | None = None
    observed_fraction: float | None = None
    fps: float | None = None
    offset_s: float | None = None
    folder: FolderClock | None = None
    labels: tuple[str, ...] = ()
    time: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """A video in which unlabelled pairs may lie; `fps` and `duration_s` are None where unknown."""

    path: str
    fps: float | None = None
    duration_s: float | None = None
    folder: FolderClock | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a video that an annotation names, whether or not it became a sample."""

    video: str
    start_s: float
    end_s: float
    split: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """What a source read: `samples` in the source's order, `classes` in index order.

    Args:
        dataset: name of the source.
        samples, classes: as above.
        options: settings of the source, for the manifest.
        skipped: inputs that could not be used, and why.
        absent: names that the annotations list and that are not on this machine.
        too_early: how many of `skipped`, from its first on, the protocol leaves out because they start
            too early; these are no fault of the input.
        segments: every annotated stretch, where the videos hold more than the actions.
        footage: video name → what is known of it, for the same sources.
        overlaps: a line for each sample that shares a stretch of video with a sample of another split.
        notes: lines for the user.
        heads: of which samples have `labels`; `classes` are then their columns. None for one label a sample.
    """

    dataset: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    absent: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    too_early: int = 0
    segments: tuple[Segment, ...] = ()
    footage: dict[str, Footage] = dataclasses.field(default_factory=dict)
    overlaps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    heads: Heads = ()


def select_classes(found: Iterable[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of `found` in alphabetical order, or those `wanted`, in the same order.

    Args:
        found: labels that occur.
        wanted: names to keep; empty for all.

    Returns:
        Class names in index order.

    Raises:
        AnnotationError: a wanted class does not occur.
    """
    return keep_classes(tuple(sorted(found)), wanted)


def keep_classes(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """`names` in their order, or those of them that are `wanted`, however their characters are composed.

    Args:
        names: all classes, in index order.
        wanted: names to keep; empty for all.

    Returns:
        Class names in index order.

    Raises:
        AnnotationError: a wanted class is not among them.
    """
    composed: dict[str, list[str]] = {}
    for name in names:
        composed.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    chosen, unknown = set(), []
    for name in wanted:
        same = [name] if name in names else composed.get(unicodedata.normalize("NFC", name), [])
        chosen.update(same)
        if not same:
            unknown.append(name)
    if unknown:
        raise AnnotationError(_describe_unknown(unknown, names))
    return tuple(name for name in names if not wanted or name in chosen)


def _describe_unknown(unknown: list[str], names: tuple[str, ...]) -> str:
    listed = names
    if len(names) > _NAMES_LISTED:
        near = dict.fromkeys(near for name in unknown for near in difflib.get_close_matches(name, names))
        listed = (*(near or names[:_NAMES_LISTED]), f"… ({len(names)} in all)")
    shown = ", ".join(f'"{name}"' if "," in name else name for name in listed)
    commas = " Put a name that holds a comma in quotes: --classes '\"a, b\",c'." if '"' in shown else ""
    return f"`--classes` names {', '.join(unknown)}, which does not occur. Choose from: {shown}.{commas}"


class AnnotationRow(NamedTuple):
    """One row of a table: `where` is its file and line, `cells` its cells by column.

    `cells` lacks optional columns that the table, or the end of a short row, does not have.
    """

    where: str
    cells: dict[str, str]


def read_text(path: str | Path) -> str:
    """The text of a file of annotations, without a byte order mark.

    Args:
        path: the file.

    Returns:
        Its text.

    Raises:
        AnnotationError: it is not UTF-8.
    """
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise AnnotationError(
            f"{path}:{line} is no text in UTF-8 (byte 0x{content[error.start]:02x}). Save the file as UTF-8."
        ) from error


class BadRows:
    """What is wrong with rows of a table: named all at once, or left out.

    Args:
        path: the table.
        skip: leave such rows out in place of refusing the table; None where the source has no such option.
    """

    def __init__(self, path: str | Path, *, skip: bool | None = None) -> None:
        self._path = Path(path)
        self._skip = skip
        self._messages: list[str] = []
        self.skipped: list[Skipped] = []

    def add(self, video: str, error: AnnotationError) -> None:
        """Takes the row of an error, which says where it is, and the video that the row names, if any."""
        self._messages.append(str(error))
        reason = str(error).replace(str(self._path), self._path.name)  # the same on every machine
        self.skipped.append(Skipped(video=video or self._path.name, reason=reason))

    def refuse(self) -> None:
        """Ends the reading if there are bad rows that are not to be skipped.

        Raises:
            AnnotationError: names the first 20 of them and their number.
        """
        if self._skip or not self._messages:
            return
        if len(self._messages) == 1:
            raise AnnotationError(self._messages[0])
        first = "\n".join(self._messages[:_ROWS_NAMED])
        more = len(self._messages) - _ROWS_NAMED
        advice = (
            "Correct them" if self._skip is None else "Correct them, or leave them out with --skip-bad-rows"
        )
        raise AnnotationError(
            f"{self._path} has {len(self._messages)} bad rows. {advice}.\n{first}"
            + (f"\n… and {more} more." if more > 0 else "")
        )


def read_table(
    path: str | Path,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
    *,
    as_is: tuple[str, ...] = (),
    bad: BadRows | None = None,
) -> list[AnnotationRow]:
    """Rows of a CSV with a header; columns in neither tuple are left out, blank lines too.

    Args:
        path: the CSV.
        required: names of columns that it must have.
        optional: names of columns that it may have.
        as_is: those of them whose cells are not stripped, since a name may begin with a space in quotes.
        bad: takes rows that end before a required cell or have too many, in place of an error.

    Returns:
        At least one row, unless all of them are bad.

    Raises:
        AnnotationError: no such file, not UTF-8, a column missing, twice there or nearly named as one
            of `optional`, such a row, or no row at all.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise AnnotationError(f"CSV file {path} {problem}. Its columns should be {','.join(required)}.")
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    rows, found = [], False
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(f"{path}:1", header, required, optional)
        wanted = [(number, name) for number, name in enumerate(header) if name in (*required, *optional)]
        fewest = 1 + max(number for number, name in wanted if name in required)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            found = True
            own = {name: cells[number] for number, name in wanted if number < len(cells)}
            where = f"{path}:{reader.line_num}"
            if fewest <= len(cells) and not any(cell.strip() for cell in cells[len(header) :]):
                stripped = {name: cell if name in as_is else cell.strip() for name, cell in own.items()}
                rows.append(AnnotationRow(where, stripped))
                continue
            error = AnnotationError(
                f"{where} has {len(cells)} cells, the header names {len(header)} columns. "
                f"Put a cell that holds a comma in quotes."
            )
            if bad is None:
                raise error
            bad.add("", error)
    except csv.Error as error:
        raise AnnotationError(f"{path}:{reader.line_num} is no line of a CSV file: {error}.") from error
    if not found:
        raise AnnotationError(f"{path} has no rows below its header.")
    return rows


def _check_header(
    where: str, header: list[str], required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        raise AnnotationError(
            f"{where} lacks the column {', '.join(missing)}. It should have {','.join(required)}. "
            f"Received: {','.join(name for name in header if name) or 'nothing'}."
        )
    for name in header:
        if name in (*required, *optional):
            if header.count(name) > 1:
                raise AnnotationError(f"{where} has the column {name} more than once. Keep one.")
            continue
        absent = [column for column in optional if column not in header]
        if near := difflib.get_close_matches(name.lower(), absent, n=1, cutoff=0.8):
            raise AnnotationError(f"{where} has a column {name!r}. Did you mean {near[0]}? Rename it.")


def decimal(text: str) -> float:
    """A plain number that is not negative, in ASCII digits, or NaN where `text` is something else."""
    return float(text) if _DECIMAL.fullmatch(text) else math.nan
