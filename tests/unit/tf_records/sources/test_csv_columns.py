"""The CSV's optional columns, whole videos, patterns, and paths that leave its folder."""

import shutil
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError
from tf_records.sources.csv_manifest import read_csv

GOOD = "a.mp4,0.5,1.5,wave,train"


@pytest.fixture
def table(tmp_path: Path, videos: Path) -> Path:
    """A CSV still to be written, beside a.mp4, of 2 s, and three more below day/."""
    home = tmp_path / "home"
    (home / "day" / "one").mkdir(parents=True)
    names = ("a.mp4", "day/b.mp4", "day/c.mp4", "day/one/d.mp4", "../outside.mp4")
    for number, name in enumerate(names):
        # An empty box of MP4, so that none is a copy of another.
        box = b"\0\0\0\x0cfree" + f"{number:4}".encode()
        (home / name).write_bytes((videos / "00000.mp4").read_bytes() + box)
    return home / "mine.csv"


def write(table: Path, header: str, *rows: str) -> Path:
    table.write_text("\n".join((header, *rows)) + "\n")
    return table


def test_label_and_split_may_be_left_out(table: Path) -> None:
    (sample,) = read_csv(write(table, "video,start_s,end_s", "a.mp4,0,1")).samples
    assert (sample.label, sample.split, sample.fps, sample.offset_s) == (None, "train", None, None)
    samples = read_csv(write(table, "video,start_s,end_s,label", "a.mp4,0,1,wave")).samples
    assert [s.label for s in samples] == ["wave"]


def test_a_row_may_end_before_optional_cells(table: Path) -> None:
    samples = read_csv(write(table, "video,start_s,end_s,label,split", "a.mp4,0,1,wave", "a.mp4,1,2")).samples
    assert [(s.label, s.split) for s in samples] == [("wave", "train"), (None, "train")]


def test_a_row_may_have_its_own_clock_and_distance(table: Path) -> None:
    header = "video,start_s,end_s,label,split,fps,offset_s"
    write(table, header, GOOD + ",,", GOOD + ",10,", GOOD + ",,0.75", GOOD + ",10,0.75")
    samples = read_csv(table).samples
    assert [(s.fps, s.offset_s) for s in samples] == [(None, None), (10.0, None), (None, 0.75), (10.0, 0.75)]
    assert len({s.id for s in samples}) == 4


def test_empty_times_mean_the_whole_video(table: Path) -> None:
    (sample,) = read_csv(write(table, "video,start_s,end_s,label", "a.mp4,,,wave")).samples
    assert (sample.start_s, sample.end_s) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("day/*.mp4", ["day/b.mp4", "day/c.mp4"]),
        ("day/[bx].mp4", ["day/b.mp4"]),
        ("?.mp4", ["a.mp4"]),
        ("day/**/*.mp4", ["day/b.mp4", "day/c.mp4", "day/one/d.mp4"]),
    ],
)
def test_a_pattern_stands_for_every_file_that_fits(table: Path, pattern: str, found: list[str]) -> None:
    samples = read_csv(write(table, "video,start_s,end_s,label", f"{pattern},0.5,1,wave")).samples
    assert [s.video for s in samples] == found
    assert all((s.start_s, s.end_s, s.label) == (0.5, 1.0, "wave") for s in samples)
    assert [s.path for s in samples] == [str(table.parent / name) for name in found]


def test_a_file_named_like_a_pattern_is_itself(table: Path) -> None:
    shutil.copy(table.parent / "a.mp4", table.parent / "take [ab].mp4")
    (sample,) = read_csv(write(table, "video,start_s,end_s,label", "take [ab].mp4,0,1,wave")).samples
    assert sample.video == "take [ab].mp4"


def test_a_pattern_and_a_row_of_its_own_repeat_one_another(table: Path) -> None:
    write(table, "video,start_s,end_s,label", "day/*.mp4,0,1,wave", "day/c.mp4,0,1,wave")
    with pytest.raises(AnnotationError, match=r"mine\.csv:3 repeats .*mine\.csv:2"):
        read_csv(table)


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("video,start_s,end_s,label", "night/*.mp4,0,1,wave", ":2: no file in .* fits the pattern 'night/"),
        ("video,start_s,end_s,fps", "a.mp4,0,1,fast", ":2: fps should be a number above 0, at most 1000"),
        ("video,start_s,end_s,fps", "a.mp4,0,1,0", ":2: fps should be a number above 0"),
        ("video,start_s,end_s,fps", "a.mp4,0,1,1001", ":2: fps should be a number above 0"),
        ("video,start_s,end_s,offset_s", "a.mp4,0,1,-1", ":2: offset_s should be .*or empty. Received: '-1'"),
        (
            "video,start_s,end_s,offset_s",
            "a.mp4,0,1,inf",
            ":2: offset_s should be a number above 0, or empty",
        ),
        ("video,start_s,end_s,label", "a.mp4,0,1,pick up, put down", ":2 has 5 cells.*in quotes"),
        ("video,start_s,end_s,label", "a.mp4,0", ":2 has 2 cells, the header names 4 columns"),
        ("video,start_s,end_s,lable", "a.mp4,0,1,wave", r":1 has a column 'lable'\. Did you mean label\?"),
        ("video,start_s,end_s,Split", "a.mp4,0,1,test", r":1 has a column 'Split'\. Did you mean split\?"),
        ("video,start_s,end_s,video", "a.mp4,0,1,b.mp4", ":1 has the column video more than once"),
        ("video,start_s,end_s", "day,0,1", ":2: video 'day' does not exist"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(table: Path, header: str, row: str, words: str) -> None:
    with pytest.raises(AnnotationError, match=r"mine\.csv" + words):
        read_csv(write(table, header, row))


def test_cells_are_checked_before_any_video_is_looked_for(table: Path) -> None:
    write(table, "video,start_s,end_s,fps", "none.mp4,0,1,", "a.mp4,0,1,fast")
    with pytest.raises(AnnotationError, match=r"mine\.csv:3: fps should be"):
        read_csv(table)


@pytest.mark.parametrize(
    "way", ["../outside.mp4", "day/../../outside.mp4", "../*.mp4", "absolute", "link.mp4"]
)
def test_a_path_that_leaves_the_folder_needs_to_be_allowed(table: Path, way: str) -> None:
    outside = table.parent.parent / "outside.mp4"
    (table.parent / "link.mp4").symlink_to(outside)
    named = str(outside) if way == "absolute" else way
    write(table, "video,start_s,end_s", f"{named},0,1")
    with pytest.raises(AnnotationError, match=r"mine\.csv:2: video .* lies outside .*Add --allow-outside"):
        read_csv(table)
    (sample,) = read_csv(table, allow_outside=True).samples
    assert Path(sample.path).resolve() == outside.resolve()


def test_a_linked_folder_is_noticed_behind_a_pattern(table: Path) -> None:
    (table.parent / "linked").symlink_to(table.parent.parent)
    write(table, "video,start_s,end_s", "linked/*.mp4,0,1")
    with pytest.raises(AnnotationError, match=r"mine\.csv:2: video 'linked/outside\.mp4' lies outside"):
        read_csv(table)


def test_a_path_that_comes_back_and_links_within_the_folder_are_fine(table: Path) -> None:
    (table.parent / "link.mp4").symlink_to(table.parent / "day" / "b.mp4")
    write(table, "video,start_s,end_s", "day/../a.mp4,0,1", "link.mp4,0,1")
    assert len(read_csv(table).samples) == 2


def test_a_csv_reached_through_a_link_to_its_folder_is_fine(table: Path) -> None:
    (table.parent.parent / "alias").symlink_to(table.parent)
    write(table, "video,start_s,end_s", "day/b.mp4,0,1")
    assert len(read_csv(table.parent.parent / "alias" / "mine.csv").samples) == 1


def test_every_row_is_an_annotated_stretch_also_of_classes_left_out(table: Path) -> None:
    write(table, "video,start_s,end_s,label", "a.mp4,0,1,wave", "a.mp4,1,2,clap", "a.mp4,0.5,1.5,")
    annotations = read_csv(table, ("wave",))
    assert [(s.start_s, s.end_s) for s in annotations.segments] == [(0.0, 1.0), (1.0, 2.0), (0.5, 1.5)]
    assert annotations.footage["a.mp4"].duration_s == 2.0


def test_a_stretch_with_two_labels_is_a_sample_for_each_and_counted(table: Path) -> None:
    rows = ("a.mp4,0,1,wave,train", "a.mp4,0,1,clap,train", "a.mp4,0,1,,train", "a.mp4,1,2,clap,train")
    annotations = read_csv(write(table, "video,start_s,end_s,label,split", *rows))
    assert [s.label for s in annotations.samples] == ["wave", "clap", None, "clap"]
    assert [s.id for s in annotations.samples] == [
        "a.mp4@0.0-1.0 wave train",
        "a.mp4@0.0-1.0 clap train",
        "a.mp4@0.0-1.0 unlabelled train",
        "a.mp4@1.0-2.0",
    ]
    assert annotations.options == {"instances_listed_twice": {"train": 1}}
    assert annotations.notes == ("Stretches that carry several labels are a sample for each: 1 in train.",)


def test_a_quoted_name_may_begin_with_a_space_and_a_space_may_stand_before_quotes(table: Path) -> None:
    (table.parent / "day" / "b.mp4").rename(table.parent / " b.mp4")
    (table.parent / "day" / "c.mp4").rename(table.parent / "c, d.mp4")
    rows = ('" b.mp4",0,1, "run, fast"', ' "c, d.mp4", 0, 1,wave', "  a.mp4 ,0,1, wave ")
    samples = read_csv(write(table, "video,start_s,end_s,label", *rows)).samples
    assert [(s.video, s.label) for s in samples] == [
        (" b.mp4", "run, fast"),
        ("c, d.mp4", "wave"),
        ("a.mp4", "wave"),
    ]


@pytest.mark.parametrize("number", ["0_1", "1_0.5", "٣", "infinity", "0x1", "1 2", "1e", "."])
def test_what_python_alone_takes_for_a_number_is_none(table: Path, number: str) -> None:
    with pytest.raises(AnnotationError, match=r"mine\.csv:2: end_s should be a number of seconds"):
        read_csv(write(table, "video,start_s,end_s", f"a.mp4,0,{number}"))


@pytest.mark.parametrize("number", ["1", "1.", ".5", "+1", "1e0", "15E-1"])
def test_usual_notations_of_a_number_pass(table: Path, number: str) -> None:
    (sample,) = read_csv(write(table, "video,start_s,end_s", f"a.mp4,0,{number}")).samples
    assert sample.end_s == float(number)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.mp4,0,1,a\x1b[31mb", "a label should hold no control characters. Received: 'a\\x1b[31mb'"),
        ("e\x1b[31m.mp4,0,1,wave", "the name of 'e\\x1b[31m.mp4' holds control characters"),
        ("[e]*.mp4,0,1,wave", "the name of 'e\\x1b[31m.mp4' holds control characters"),
        ("f\x1bg.mp4,0,1,wave", "video 'f\\x1bg.mp4' does not exist"),
    ],
    ids=ascii,
)
def test_an_escape_sequence_is_refused_and_not_printed(table: Path, row: str, words: str) -> None:
    shutil.copy(table.parent / "a.mp4", table.parent / "e\x1b[31m.mp4")
    with pytest.raises(AnnotationError) as error:
        read_csv(write(table, "video,start_s,end_s,label", row))
    assert words in str(error.value)
    assert "\x1b" not in str(error.value)
