"""Tables of annotations, and bad rows: named all at once, or left out."""

import shutil
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError
from tf_records.sources import csv_manifest
from tf_records.sources.csv_manifest import read_csv
from tf_records.sources.sample import BadRows, decimal, read_table

HEADER = "video,start_s,end_s,label,split\n"
BAD = (
    ("a.mp4,soon,1,wave,", "start_s should be a number of seconds"),
    ("a.mp4,0,1,,test", "a test row needs a label"),
    ("none.mp4,0,1,wave,", "video 'none.mp4' does not exist"),
    ("a.mp4", "has 1 cells"),
    ("a.mp4,0,1,bow,test", "label 'bow' of a test row has no training row"),
    ("a.mp4,0.0,1.0,wave,", "repeats"),
)


@pytest.fixture
def table(tmp_path: Path, videos: Path) -> Path:
    """A CSV still to be written, beside a.mp4, of 2 s."""
    shutil.copy(videos / "00000.mp4", tmp_path / "a.mp4")
    return tmp_path / "mine.csv"


def write(table: Path, *rows: str) -> Path:
    table.write_text(HEADER + "".join(f"{row}\n" for row in ("a.mp4,0,1,wave,", *rows)))
    return table


def test_all_bad_rows_are_named_before_any_video_is_opened(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(csv_manifest, "probe")
    with pytest.raises(AnnotationError) as error:
        read_csv(write(table, *(row for row, _ in BAD)))
    first, *lines = str(error.value).splitlines()
    assert first == (f"{table} has 6 bad rows. Correct them, or leave them out with --skip-bad-rows.")
    for number, (_, words) in enumerate(BAD, start=3):
        assert any(line.startswith(f"{table}:{number}") and words in line for line in lines), words


def test_twenty_bad_rows_are_named_and_the_others_counted(table: Path) -> None:
    with pytest.raises(AnnotationError) as error:
        read_csv(write(table, *(f"a.mp4,{number},0,wave," for number in range(25))))
    _, *lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [f"{table}:{number}" for number in range(3, 23)]
    assert lines[-1] == "… and 5 more."


def test_rows_past_the_end_are_named_together(table: Path) -> None:
    rows = ("a.mp4,1,2.2,wave,", "a.mp4,1,1.5,wave,", "a.mp4,1,3,wave,")
    with pytest.raises(AnnotationError) as error:
        read_csv(write(table, *rows))
    _, *lines = str(error.value).splitlines()
    assert lines == [
        f"{table}:3: end_s 2.2 is past the end of a.mp4, which lasts 2.000 s.",
        f"{table}:5: end_s 3.0 is past the end of a.mp4, which lasts 2.000 s.",
    ]


def test_bad_rows_are_skipped_by_name_if_that_is_asked_for(table: Path) -> None:
    rows = (*(row for row, _ in BAD), "a.mp4,1,9,wave,", "a.mp4,0.5,1.5,wave,test")
    annotations = read_csv(write(table, *rows), skip_bad_rows=True)
    assert [(s.start_s, s.split) for s in annotations.samples] == [(0.0, "train"), (0.5, "test")]
    reasons = {item.reason.split(" ")[0].rstrip(":") for item in annotations.skipped}
    assert reasons == {f"mine.csv:{number}" for number in range(3, 10)}  # no folder: the same everywhere
    assert {item.video for item in annotations.skipped} == {"a.mp4", "none.mp4", "mine.csv"}


def test_a_test_row_whose_training_rows_are_skipped_is_skipped_too(table: Path) -> None:
    annotations = read_csv(write(table, "a.mp4,1,9,clap,", "a.mp4,1,2,clap,test"), skip_bad_rows=True)
    assert annotations.classes == ("wave",)
    assert [s.label for s in annotations.samples] == ["wave"]
    assert [item.reason.split(":")[1] for item in annotations.skipped] == ["3", "4"]


def test_a_table_of_bad_rows_alone_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1\n")
    with pytest.raises(AnnotationError, match=r"t\.csv:2 has 1 cells"):
        read_table(path, ("a", "b"))
    bad = BadRows(path, skip=True)
    assert read_table(path, ("a", "b"), bad=bad) == []
    assert [item.video for item in bad.skipped] == ["t.csv"]


def test_cells_are_stripped_but_for_those_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n" x"," y"\n')
    (row,) = read_table(path, ("a", "b"), as_is=("a",))
    assert row.cells == {"a": " x", "b": "y"}


@pytest.mark.parametrize(("text", "number"), [("1.5", 1.5), (".5", 0.5), ("7", 7.0)])
def test_plain_numbers_are_read(text: str, number: float) -> None:
    assert decimal(text) == number


@pytest.mark.parametrize("text", ["", "-1", "1e3", "1_0", "nan", "٣", "."])
def test_other_texts_are_no_plain_number(text: str) -> None:
    assert decimal(text) != decimal(text)  # NaN
