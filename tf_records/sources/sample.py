"""What every source gives: samples in order, the classes, and what was missing."""

import csv
import dataclasses
import difflib
import io
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tf_records.errors import AnnotationError
from tf_records.manifest import Skipped

_NAMES_LISTED = 40


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
        notes: lines for the user.
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
    notes: tuple[str, ...] = ()


def select_classes(found: Iterable[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of `found` in alphabetical order, or those `wanted`, in the same order.

    Raises:
        AnnotationError: a wanted class does not occur.
    """
    return keep_classes(tuple(sorted(found)), wanted)


def keep_classes(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """`names` in their order, or those of them that are `wanted`.

    Raises:
        AnnotationError: a wanted class is not among them.
    """
    unknown = [name for name in wanted if name not in names]
    if unknown:
        listed = names
        if len(names) > _NAMES_LISTED:
            near = dict.fromkeys(near for name in unknown for near in difflib.get_close_matches(name, names))
            listed = (*(near or names[:_NAMES_LISTED]), f"… ({len(names)} in all)")
        raise AnnotationError(
            f"`--classes` names {', '.join(unknown)}, which does not occur. Choose from: {', '.join(listed)}."
        )
    return tuple(name for name in names if not wanted or name in wanted)


# Which of the videos that annotations name are on this machine, and where.


def place_videos(
    annotations: Annotations,
    footage: Mapping[str, Footage],
    found: Mapping[str, Path],
    *,
    root: Path,
    need_videos: bool,
    hint: str,
) -> Annotations:
    """Tells each sample where its video lies; videos that are not there are left out, and named as absent.

    Where none is there, all samples are kept for counting, unless videos are needed.

    Args:
        annotations: samples without paths.
        footage: of every video of the samples.
        found: video → where it lies.
        root: where they were looked for.
        need_videos: refuse to go on without any.
        hint: where to put them.

    Raises:
        AnnotationError: `need_videos`, and there is none.
    """
    names = sorted({sample.video for sample in annotations.samples})
    there = [name for name in names if name in found]
    if names and not there and need_videos:
        raise AnnotationError(
            f"None of the {len(names)} videos is under {root}. {hint} Without videos there is --dry-run."
        )
    note = f"No video is under {root}; this is counted from the annotations alone."
    usable = {name: footage[name] for name in there or names}
    return dataclasses.replace(
        annotations,
        samples=tuple(
            dataclasses.replace(s, path=usable[s.video].path, folder=usable[s.video].folder)
            for s in annotations.samples
            if s.video in usable
        ),
        footage=usable,
        absent={"videos": [name for name in names if name not in usable]},
        notes=annotations.notes if there else (*annotations.notes, note),
    )


# Text and tables of annotations, read so that each mistake has a file and a line.


_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


class Row(NamedTuple):
    """One row of a table: `where` is its file and line, `cells` its stripped cells by column.

    `cells` lacks optional columns that the table, or the end of a short row, does not have.
    """

    where: str
    cells: dict[str, str]


def read_text(path: Path) -> str:
    """The text of `path`, without a byte order mark.

    Raises:
        AnnotationError: it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise AnnotationError(
            f"{path}:{line} is no text in UTF-8 (byte 0x{content[error.start]:02x}). Save the file as UTF-8."
        ) from error


def read_table(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[Row]:
    """Rows of a CSV with a header; columns in neither tuple are left out, blank lines too.

    Raises:
        AnnotationError: no such file, not UTF-8, a column missing, twice there or nearly named as one
            of `optional`, a row that ends before a required cell or has too many, or no row at all.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise AnnotationError(f"CSV file {path} {problem}. Its columns should be {','.join(required)}.")
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(f"{path}:1", header, required, optional)
        wanted = [(number, name) for number, name in enumerate(header) if name in (*required, *optional)]
        fewest = 1 + max(number for number, name in wanted if name in required)
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < fewest or any(cell.strip() for cell in cells[len(header) :]):
                raise AnnotationError(
                    f"{where} has {len(cells)} cells, the header names {len(header)} columns. "
                    f"Put a cell that holds a comma in quotes."
                )
            rows.append(
                Row(where, {name: cells[number].strip() for number, name in wanted if number < len(cells)})
            )
    except csv.Error as error:
        raise AnnotationError(f"{path}:{reader.line_num} is no line of a CSV file: {error}.") from error
    if not rows:
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
