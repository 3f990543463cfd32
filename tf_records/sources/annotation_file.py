"""Text and tables of annotations, read so that each mistake has a file and a line."""

import csv
import difflib
import io
import math
import re
from pathlib import Path
from typing import NamedTuple

from tf_records.errors import AnnotationError

_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


class AnnotationRow(NamedTuple):
    """One row of a table: `where` is its file and line, `cells` its stripped cells by column.

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


def read_table(
    path: str | Path, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> list[AnnotationRow]:
    """Rows of a CSV with a header; columns in neither tuple are left out, blank lines too.

    Args:
        path: the CSV.
        required: names of columns that it must have.
        optional: names of columns that it may have.

    Returns:
        At least one row.

    Raises:
        AnnotationError: no such file, not UTF-8, a column missing, twice there or nearly named as one
            of `optional`, a row that ends before a required cell or has too many, or no row at all.
    """
    path = Path(path)
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
                AnnotationRow(
                    where, {name: cells[number].strip() for number, name in wanted if number < len(cells)}
                )
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
