"""EPIC-KITCHENS-55: the real annotations, a made-up tree, and how each mistake is named."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError
from tf_records.sources.epic_kitchens import read_epic55
from tf_records.sources.sample import FolderClock

HEADER = (
    "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
ROWS = (
    "0,P01,P01_01,open door,00:00:02.14,00:00:03.37,8,202,open,2,door,8,['door'],[8]",
    "7,P25,P25_02,take the plate,00:01:00.00,00:01:02.00,1,2,take,0,plate,5,['plate'],[5]",
    "8,P25,P25_02,grab dish,00:01:00.00,00:01:02.00,1,2,grab,0,dish,5,['dish'],[5]",
    "9,P25,P25_02,take plate,00:01:10.00,01:01:02.5,1,2,take,0,plate,5,['plate'],[5]",
    "5,P26,P26_10,take door,00:00:02,00:00:03,1,2,take,0,door,8,['door'],[8]",
)
VERBS = "verb_id,class_key,verbs\n2,open,['open']\n0,take,\"['take', 'grab']\"\n1,put,['put']\n"
INFO = "video,resolution,duration,fps\nP01_01,1920x1080,100.5,59.94\nP25_02,1920x1080,4000,29.97\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five actions of three participants; no video."""
    write(tmp_path, *ROWS)
    (tmp_path / "EPIC_verb_classes.csv").write_text(VERBS)
    (tmp_path / "EPIC_video_info.csv").write_text(INFO)
    return tmp_path


def write(tree: Path, *rows: str, header: str = HEADER) -> None:
    (tree / "EPIC_train_action_labels.csv").write_text("\n".join((header, *rows)) + "\n")


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"never decoded here")
    return path


def test_verbs_are_named_by_the_class_file_in_the_order_of_its_numbers(tree: Path) -> None:
    annotations = read_epic55(tree, need_videos=False)
    assert annotations.classes == ("take", "put", "open")
    assert [s.label for s in annotations.samples] == ["open", "take", "take", "take", "take"]
    assert [s.split for s in annotations.samples] == ["train"] * 4 + ["test"]
    assert [s.id for s in annotations.samples] == [
        "P01_01/0",
        "P25_02/7",
        "P25_02/8",
        "P25_02/9",
        "P26_10/5",
    ]
    assert annotations.options == {"target": "verb"}


def test_times_are_hours_minutes_and_seconds(tree: Path) -> None:
    samples = read_epic55(tree, need_videos=False).samples
    assert (samples[0].start_s, samples[0].end_s) == (2.14, 3.37)
    assert (samples[3].start_s, samples[3].end_s) == (70.0, 3662.5)
    assert (samples[4].start_s, samples[4].end_s) == (2.0, 3.0)


def test_a_noun_class_is_called_what_its_actions_call_it_most_often(tree: Path) -> None:
    annotations = read_epic55(tree, "noun", need_videos=False)
    assert annotations.classes == ("plate", "door")
    assert [s.label for s in annotations.samples] == ["door", "plate", "plate", "plate", "door"]
    (tree / "EPIC_verb_classes.csv").unlink()
    assert read_epic55(tree, "noun", need_videos=False) == annotations


def test_an_action_is_a_verb_and_a_noun(tree: Path) -> None:
    annotations = read_epic55(tree, "action", need_videos=False)
    assert annotations.classes == ("take plate", "take door", "open door")
    assert annotations.samples[2].label == "take plate"


def test_classes_leave_out_other_actions_but_their_stretches_stay_annotated(tree: Path) -> None:
    annotations = read_epic55(tree, classes=("open",), need_videos=False)
    assert annotations.classes == ("open",)
    assert [s.id for s in annotations.samples] == ["P01_01/0"]
    assert len(annotations.segments) == 5
    with pytest.raises(AnnotationError, match=r"names fly, .*Choose from: take, put, open\."):
        read_epic55(tree, classes=("fly",), need_videos=False)
    with pytest.raises(AnnotationError, match="has no action of the classes put"):
        read_epic55(tree, classes=("put",), need_videos=False)


def test_without_any_video_all_is_counted_or_refused(tree: Path) -> None:
    annotations = read_epic55(tree, need_videos=False)
    assert annotations.absent == {"videos": []}
    assert annotations.notes == (f"No video is under {tree}; this is counted from the annotations alone.",)
    with pytest.raises(AnnotationError, match=r"None of the 3 videos is under .*P01/P01_01\.MP4"):
        read_epic55(tree)


@pytest.mark.parametrize("need_videos", [True, False])
def test_with_some_videos_the_others_are_left_out_and_named(tree: Path, need_videos: bool) -> None:
    path = put(tree / "P25" / "P25_02.mp4")
    annotations = read_epic55(tree, need_videos=need_videos)
    assert {s.path for s in annotations.samples} == {str(path)}
    assert annotations.absent == {"videos": ["P01_01", "P26_10"]}
    assert set(annotations.footage) == {"P25_02"}
    assert annotations.notes == ()


@pytest.mark.parametrize(
    "place",
    [
        "P01/P01_01.MP4",
        "P01/P01_01.mP4",
        "videos/train/P01/P01_01.MP4",
        "P01/videos/P01_01.MP4",
        "P01/P01_01/frame_0000000001.jpg",
        "frames_rgb_flow/rgb/train/P01/P01_01/frame_0000000001.jpg",
        "P01/rgb_frames/P01_01/frame_0000000001.jpg",
    ],
)
def test_videos_are_found_in_every_layout_of_the_data_set(tree: Path, place: str) -> None:
    path = put(tree / place)
    sample = read_epic55(tree).samples[0]
    frames = path.suffix == ".jpg"
    assert sample.path == str(path.parent if frames else path)
    assert sample.folder == (FolderClock(duration_s=100.5, rates=(59.94, 60.0)) if frames else None)


def test_a_file_is_taken_before_frames_and_an_empty_folder_is_no_video(tree: Path) -> None:
    (tree / "P01" / "P01_01").mkdir(parents=True)
    with pytest.raises(AnnotationError, match="None of the 3 videos"):
        read_epic55(tree)
    put(tree / "P01" / "P01_01" / "frame_0000000001.jpg")
    path = put(tree / "P01" / "P01_01.MP4")
    assert read_epic55(tree).samples[0].path == str(path)


def test_frames_of_a_video_without_a_stated_rate_are_refused(tree: Path) -> None:
    put(tree / "P26" / "P26_10" / "frame_0000000001.jpg")
    with pytest.raises(AnnotationError, match=r"EPIC_video_info\.csv states no frame rate of P26_10"):
        read_epic55(tree)


def test_the_annotations_may_lie_in_a_folder_of_their_own(tree: Path) -> None:
    (tree / "annotations").mkdir()
    expected = read_epic55(tree, need_videos=False)
    for path in tree.glob("*.csv"):
        path.rename(tree / "annotations" / path.name)
    assert read_epic55(tree, need_videos=False) == expected


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROWS[0].replace("P01,", "P02,"), "participant_id and video_id should read like P01 and P01_01"),
        (ROWS[0].replace("P01_01", "../P01_01"), "Received: 'P01' and '../P01_01'"),
        (ROWS[0].replace("00:00:02.14", "2.14"), "start_timestamp should read hours:minutes:seconds"),
        (ROWS[0].replace("00:00:03.37", "00:00:63.37"), "stop_timestamp should read .*'00:00:63.37'"),
        (ROWS[0].replace("00:00:03.37", "00:00:02.14"), "later than start_timestamp"),
        (ROWS[0].replace("00:00:03.37", "00:02:03.37"), "past the end of P01_01, which lasts 100.50 s"),
        (ROWS[0].replace("open,2", "open,two"), "verb_class should be a whole number. Received: 'two'"),
        (ROWS[0].replace("open,2", "open,3"), "verb_class 3 is not in EPIC_verb_classes.csv"),
        (ROWS[0].replace("0,P01", "x,P01"), "uid should be a whole number"),
        (ROWS[0].replace("0,P01", "5,P01"), "repeats the uid 5 of .*:2"),
        ("0,P01,P01_01", "has 3 cells"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tree: Path, row: str, words: str) -> None:
    write(tree, ROWS[4], row)
    with pytest.raises(AnnotationError, match=words) as error:
        read_epic55(tree, need_videos=False)
    assert str(error.value).startswith(f"{tree / 'EPIC_train_action_labels.csv'}:3 ") or ":3:" in str(
        error.value
    )


@pytest.mark.parametrize("target", ["noun", "action"])
def test_a_noun_of_two_classes_is_refused(tree: Path, target: str) -> None:
    write(tree, ROWS[0], ROWS[0].replace("0,P01", "1,P01").replace("door,8", "door,9"))
    with pytest.raises(AnnotationError, match="noun 'door' is empty or names two classes"):
        read_epic55(tree, target, need_videos=False)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "EPIC_verb_classes.csv",
            VERBS + "1,push,[]\n",
            ":5: verb_id and class_key should name a class once",
        ),
        ("EPIC_verb_classes.csv", VERBS + "9,take,[]\n", ":5: verb_id and class_key .*Received: 9, 'take'"),
        ("EPIC_verb_classes.csv", "verb_id,verbs\n0,take\n", ":1 lacks the column class_key"),
        ("EPIC_video_info.csv", INFO + "P26_10,x,0,60\n", ":4: duration and fps should be numbers above 0"),
        ("EPIC_video_info.csv", INFO + "P26_10,x,9,nan\n", ":4: .*Received: '9' and 'nan'"),
    ],
)
def test_a_bad_auxiliary_file_is_named_by_line(tree: Path, name: str, text: str, words: str) -> None:
    (tree / name).write_text(text)
    with pytest.raises(AnnotationError, match=re.escape(str(tree / name)) + words):
        read_epic55(tree, need_videos=False)


def test_missing_files_are_named_and_the_lengths_are_not_needed(tree: Path) -> None:
    (tree / "EPIC_video_info.csv").unlink()
    assert {f.fps for f in read_epic55(tree, need_videos=False).footage.values()} == {None}
    (tree / "EPIC_verb_classes.csv").unlink()
    with pytest.raises(AnnotationError, match=r"EPIC_verb_classes\.csv does not exist; it names the verb"):
        read_epic55(tree, need_videos=False)
    (tree / "EPIC_train_action_labels.csv").unlink()
    with pytest.raises(AnnotationError, match=r"Found no EPIC_train_action_labels\.csv in"):
        read_epic55(tree, need_videos=False)


def test_the_real_annotations_give_the_papers_split(epic55: Path) -> None:
    annotations = read_epic55(epic55, need_videos=False)
    assert Counter(s.split for s in annotations.samples) == {"train": 23191, "test": 5281}
    assert len(annotations.classes) == 125
    assert len({s.label for s in annotations.samples}) == 119
    assert annotations.classes[:3] == ("take", "put", "open")
    assert len({s.id for s in annotations.samples}) == 28472


@pytest.mark.slow
def test_the_real_samples_agree_with_another_reading_of_the_file(epic55: Path) -> None:
    with (epic55 / "EPIC_verb_classes.csv").open(newline="") as file:
        verbs = {row["verb_id"]: row["class_key"] for row in csv.DictReader(file)}
    with (epic55 / "EPIC_train_action_labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    samples = {sample.id: sample for sample in read_epic55(epic55, need_videos=False).samples}
    for row in rows:
        sample = samples[f"{row['video_id']}/{row['uid']}"]
        assert sample.label == verbs[row["verb_class"]]
        assert sample.split == ("train" if row["participant_id"] < "P26" else "test")
        # The file's own frame numbers are 60 a second.
        assert abs(sample.start_s * 60 - int(row["start_frame"])) < 2


@pytest.mark.slow
@pytest.mark.parametrize(("target", "count"), [("noun", 321), ("action", 2513)])
def test_the_real_annotations_have_as_many_nouns_and_actions_as_occur(
    epic55: Path, target: str, count: int
) -> None:
    annotations = read_epic55(epic55, target, need_videos=False)
    assert len(annotations.classes) == len(set(annotations.classes)) == count
    assert {s.label for s in annotations.samples} == set(annotations.classes)


def test_all_bad_rows_are_named_at_once(tree: Path) -> None:
    cells = ROWS[0].split(",")
    bad = [",".join((cells[0], *cells[1:4], "00:00:09", "00:00:08", *cells[6:])) for _ in range(25)]
    write(tree, ROWS[1], *bad, "too,few")
    with pytest.raises(AnnotationError) as error:
        read_epic55(tree, need_videos=False)
    text = str(error.value)
    assert "EPIC_train_action_labels.csv has 26 bad rows. Correct them.\n" in text
    assert text.count("EPIC_train_action_labels.csv:") == 20
    assert text.endswith("… and 6 more.")
