"""Parsers of annotations never crash on junk, and read back what was written."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_records.errors import AnnotationError, KdantError
from tf_records.schema import SPLITS
from tf_records.sources.csv_manifest import COLUMNS, OPTIONAL, REQUIRED, read_csv
from tf_records.sources.jhmdb import read_jhmdb

CELLS = st.one_of(
    st.sampled_from(
        ["", "a.mp4", "./a.mp4", "b.mp4", ".", "..", "/", "train", "test", "0", "1", "2", "-1", "1e9"]
    ),
    st.sampled_from(["\0", "x" * 300, "\ud7ff", '"', "a.mp4/", "~", "nan", "1_0", "٣"]),
    st.sampled_from(["*", "**", "a*", "[", "[!", "[z-a]*", "?.mp4", "../*", "/*", "**/*.mp4", "*/../*"]),
    st.text(max_size=20),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    made = tmp_path_factory.mktemp("csv")
    shutil.copy(videos / "00000.mp4", made / "a.mp4")
    return made


def as_csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def read_or_refuse(path: Path) -> None:
    try:
        annotations = read_csv(path)
    except AnnotationError as error:
        message = str(error)
    else:
        message = path.name
        assert all(sample.end_s > sample.start_s >= 0 for sample in annotations.samples)
    assert path.name in message


@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_read_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "bytes.csv"
    path.write_bytes(content)
    read_or_refuse(path)


@given(text=st.text(max_size=200))
def test_any_text_below_a_good_header_is_read_or_refused(folder: Path, text: str) -> None:
    path = folder / "text.csv"
    path.write_text(",".join(COLUMNS) + "\n" + text, encoding="utf-8")
    read_or_refuse(path)


@given(
    header=st.one_of(
        st.just([*REQUIRED, *OPTIONAL]), st.permutations(COLUMNS), st.lists(st.sampled_from([*COLUMNS, "x"]))
    ),
    rows=st.lists(st.lists(CELLS, max_size=8), max_size=4),
)
def test_any_cells_are_read_or_refused(folder: Path, header: list[str], rows: list[list[str]]) -> None:
    path = folder / "cells.csv"
    path.write_text(as_csv([header, *rows]), encoding="utf-8", newline="")
    read_or_refuse(path)


LABELS = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 99), st.integers(1, 100), LABELS, st.sampled_from(SPLITS)),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row[:2],
    )
)
def test_good_rows_come_back_in_order(folder: Path, rows: list[tuple[int, int, str, str]]) -> None:
    """Times are hundredths of the 2 s that the video lasts."""
    good = [
        ("a.mp4", first / 100, (first + length) / 100, label, split) for first, length, label, split in rows
    ]
    known = [("a.mp4", 1 + i / 1000, 2.0, label, "train") for i, (*_, label, _) in enumerate(good, start=1)]
    path = folder / "good.csv"
    path.write_text(as_csv([list(COLUMNS), *good, *known]), encoding="utf-8", newline="")
    annotations = read_csv(path)
    read = [(s.video, s.start_s, s.end_s, s.label, s.split) for s in annotations.samples]
    assert read == good + known
    assert annotations.classes == tuple(sorted({row[3] for row in good}))


@given(content=st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_any_split_file_of_jhmdb_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "splits").mkdir(exist_ok=True)
    (folder / "wave").mkdir(exist_ok=True)
    (folder / "splits" / "wave_test_split1.txt").write_bytes(content)
    with pytest.raises(KdantError):
        read_jhmdb(folder)
