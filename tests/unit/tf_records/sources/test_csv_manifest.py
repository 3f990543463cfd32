"""A person's own CSV: what is read, and how each mistake is named."""

import shutil
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError
from tf_records.sources.csv_manifest import read_csv

HEADER = "video,start_s,end_s,label,split\n"
GOOD = "a.mp4,0.5,1.5,wave,train\n"


@pytest.fixture
def table(tmp_path: Path, videos: Path) -> Path:
    """A CSV of one good row beside its video, which lasts 2 s."""
    shutil.copy(videos / "00000.mp4", tmp_path / "a.mp4")
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + GOOD)
    return path


def test_a_row_becomes_a_sample(table: Path) -> None:
    annotations = read_csv(table)
    (sample,) = annotations.samples
    assert (sample.video, sample.path) == ("a.mp4", str(table.parent / "a.mp4"))
    assert (sample.start_s, sample.end_s, sample.label, sample.split) == (0.5, 1.5, "wave", "train")
    assert sample.observed_fraction is None
    assert annotations.classes == ("wave",)
    assert annotations.skipped == ()


def test_an_empty_label_is_unlabelled_and_an_empty_split_is_train(table: Path) -> None:
    table.write_text(HEADER + GOOD + "a.mp4,0,1,,\n")
    sample = read_csv(table).samples[1]
    assert (sample.label, sample.split) == (None, "train")


def test_column_order_extra_columns_spaces_and_a_byte_order_mark_do_not_matter(table: Path) -> None:
    table.write_text(
        "\ufeffsplit,note,label,end_s,start_s,video\ntest,x, wave ,1.5, 0.5,a.mp4 \n,,wave,1,0,a.mp4\n"
    )
    first, second = read_csv(table).samples
    assert (first.split, first.label, first.start_s, first.end_s) == ("test", "wave", 0.5, 1.5)
    assert (second.split, second.label) == ("train", "wave")


def test_samples_keep_the_order_of_the_rows_and_classes_are_sorted(table: Path) -> None:
    table.write_text(HEADER + "a.mp4,1,2,wave,\na.mp4,0,1,clap,\na.mp4,0,2,bow,\n")
    annotations = read_csv(table)
    assert [sample.label for sample in annotations.samples] == ["wave", "clap", "bow"]
    assert annotations.classes == ("bow", "clap", "wave")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.mp4,soon,1,wave,train", "start_s should be a number"),
        ("a.mp4,0,,wave,train", "end_s should be a number"),
        ("a.mp4,nan,1,wave,train", "start_s should be a number"),
        ("a.mp4,0,inf,wave,train", "end_s should be a number"),
        ("a.mp4,-0.5,1,wave,train", "start_s should not be negative"),
        ("a.mp4,1.0,0.5,wave,train", "end_s should be later than start_s"),
        ("a.mp4,1.0,1.0,wave,train", "end_s should be later than start_s"),
        ("a.mp4,0,2.2,wave,train", "past the end of a.mp4, which lasts 2.000 s"),
        ("b.mp4,0,1,wave,train", "video 'b.mp4' does not exist"),
        (",0,1,wave,train", "video '' does not exist"),
        ("a.mp4,0,1,,test", "a test row needs a label"),
        ("a.mp4,0,1,,val", "a val row needs a label"),
        ("a.mp4,0,1,wave,holdout", "split should be one of train, val, test. Received: 'holdout'"),
        ("a.mp4,0,1,clap,test", "label 'clap' of a test row has no training row"),
        ("a.mp4", "has 1 cells, the header names 5 columns"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(table: Path, row: str, words: str) -> None:
    table.write_text(HEADER + GOOD + row + "\n")
    with pytest.raises(AnnotationError) as error:
        read_csv(table)
    assert f"{table}:3" in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("label", ["to\nwave", "to\rwave", "to\u2028wave"])
def test_a_label_is_one_line(table: Path, label: str) -> None:
    """Exports list classes one a line."""
    table.write_text(f'{HEADER}a.mp4,0,1,"{label}",train\n', newline="")
    with pytest.raises(AnnotationError, match=r"mine.csv:[23]: a label should be one line. Received: 'to"):
        read_csv(table)


def test_an_end_within_a_frame_of_the_videos_end_passes(table: Path) -> None:
    table.write_text(HEADER + "a.mp4,1,2.05,wave,train\n")
    assert len(read_csv(table).samples) == 1


@pytest.mark.parametrize("repeat", ["a.mp4,0.5,1.5,wave,train", "a.mp4,0.50,1.500,wave,train"])
def test_a_repeated_row_names_both_lines(table: Path, repeat: str) -> None:
    """The same video and times are the same however the numbers are written."""
    table.write_text(f"{HEADER}{GOOD}a.mp4,0,1,wave,\n{repeat}\n")
    with pytest.raises(AnnotationError) as error:
        read_csv(table)
    assert f"{table}:4 repeats {table}:2" in str(error.value)


def test_a_missing_column_is_named_with_what_was_found(table: Path) -> None:
    table.write_text("video,start_s,label\n")
    with pytest.raises(AnnotationError, match=r"lacks the column end_s\.") as error:
        read_csv(table)
    assert f"{table}:1" in str(error.value)
    assert "Received: video,start_s,label" in str(error.value)


def test_an_empty_file_lacks_all_columns(table: Path) -> None:
    table.write_text("")
    with pytest.raises(AnnotationError, match="Received: nothing"):
        read_csv(table)


def test_a_header_alone_has_no_rows(table: Path) -> None:
    table.write_text(HEADER)
    with pytest.raises(AnnotationError, match="has no rows"):
        read_csv(table)


def test_a_file_that_is_not_utf8_is_refused(table: Path) -> None:
    table.write_bytes(HEADER.encode() + "a.mp4,0,1,Gähnen,train\n".encode("latin-1"))
    with pytest.raises(AnnotationError, match=r"mine\.csv:2 is no text in UTF-8"):
        read_csv(table)


def test_a_missing_csv_is_named_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"does not exist\. Its columns should be video,start_s"):
        read_csv(tmp_path / "none.csv")


def test_a_video_name_too_long_for_a_file_does_not_exist(table: Path) -> None:
    table.write_text(f"{HEADER}{'v' * 300}.mp4,0,1,wave,train\n")
    with pytest.raises(AnnotationError, match=r"mine\.csv:2: video 'vvv.*does not exist"):
        read_csv(table)


def test_a_video_that_does_not_open_is_skipped_and_named_once(table: Path) -> None:
    (table.parent / "junk.mp4").write_bytes(b"no video at all" * 100)
    table.write_text(HEADER + GOOD + "junk.mp4,0,1,wave,train\njunk.mp4,1,2,wave,train\n")
    annotations = read_csv(table)
    assert [sample.video for sample in annotations.samples] == ["a.mp4"]
    (skipped,) = annotations.skipped
    assert skipped.video == "junk.mp4"
    assert skipped.reason.startswith("junk.mp4 cannot be opened as a video")


def test_a_colon_in_a_name_beside_a_relative_csv_is_no_protocol(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (table.parent / "a.mp4").rename(table.parent / "take1:2.mp4")
    table.write_text(HEADER + "take1:2.mp4,0,1,wave,train\n")
    monkeypatch.chdir(table.parent)
    annotations = read_csv(Path("mine.csv"))
    assert annotations.skipped == ()
    assert len(annotations.samples) == 1


def test_classes_leave_out_other_rows_but_not_unlabelled_ones(table: Path) -> None:
    table.write_text(HEADER + "a.mp4,0,1,wave,\na.mp4,1,2,clap,\na.mp4,0,2,,\na.mp4,0.5,1,bow,test\n")
    annotations = read_csv(table, ("wave",))
    assert [sample.label for sample in annotations.samples] == ["wave", None]
    assert annotations.classes == ("wave",)


def test_an_unknown_class_is_refused_with_those_there_are(table: Path) -> None:
    with pytest.raises(
        AnnotationError, match=r"`--classes` names fly, which does not occur\. Choose from: wave"
    ):
        read_csv(table, ("fly",))
