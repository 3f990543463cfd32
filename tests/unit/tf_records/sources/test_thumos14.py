"""THUMOS14: the real lists counted in another way, a made-up tree, and how each mistake is named."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError
from tf_records.sources.sample import Segment
from tf_records.sources.thumos14 import read_thumos14

VAL = "video_validation_0000"
LISTS = {
    "annotation/Diving_val.txt": f"{VAL}001  2.0 3.5\n{VAL}001  9.0 12\n{VAL}002  1.9 4.0 \n\n",
    "annotation/CliffDiving_val.txt": f"{VAL}001  9.0 12.0\n",
    "annotation/Ambiguous_val.txt": f"{VAL}002  7.0 8.0\n",
    "annotation/Diving_test.txt": "video_test_0000003  5.0 6.0\n",
    "annotation/Ambiguous_test.txt": "video_test_0000004  5.0 6.0\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The layout that the two archives unpack to; no video."""
    for name, text in LISTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"never decoded here")
    return path


def test_validation_videos_train_and_test_videos_test(tree: Path) -> None:
    annotations = read_thumos14(tree, need_videos=False)
    rows = [(s.video, s.start_s, s.end_s, s.label, s.split) for s in annotations.samples]
    assert rows == [
        (f"{VAL}001", 9.0, 12.0, "CliffDiving", "train"),
        ("video_test_0000003", 5.0, 6.0, "Diving", "test"),
        (f"{VAL}001", 2.0, 3.5, "Diving", "train"),
        (f"{VAL}001", 9.0, 12.0, "Diving", "train"),
    ]
    assert annotations.classes == ("CliffDiving", "Diving")
    assert len({s.id for s in annotations.samples}) == 4


def test_an_action_too_early_for_an_observed_clip_is_skipped_with_the_reason(tree: Path) -> None:
    annotations = read_thumos14(tree, need_videos=False)
    (skipped,) = annotations.skipped
    assert skipped.video == f"{VAL}002"
    assert skipped.reason == (
        "annotation/Diving_val.txt:3: Diving starts at 1.9 s, before 2 s: "
        "there is no room for an observed clip"
    )
    assert annotations.too_early == 1
    sooner = read_thumos14(tree, lead_s=1.9, need_videos=False)
    assert (len(sooner.samples), sooner.skipped, sooner.too_early) == (5, (), 0)


def test_ambiguous_is_no_class_but_its_stretches_stay_annotated(tree: Path) -> None:
    annotations = read_thumos14(tree, ("CliffDiving",), need_videos=False)
    assert [s.label for s in annotations.samples] == ["CliffDiving"]
    assert annotations.skipped == ()
    assert Segment(video=f"{VAL}002", start_s=7.0, end_s=8.0, split="train") in annotations.segments
    assert len(annotations.segments) == 7
    with pytest.raises(AnnotationError, match=r"names Ambiguous, .*Choose from: CliffDiving, Diving"):
        read_thumos14(tree, ("Ambiguous",), need_videos=False)


def test_instances_listed_under_two_classes_stay_two_samples_and_are_counted(tree: Path) -> None:
    assert read_thumos14(tree, need_videos=False).options == {"instances_listed_twice": {"train": 1}}
    assert read_thumos14(tree, ("Diving",), need_videos=False).options == {"instances_listed_twice": {}}


@pytest.mark.parametrize(
    ("val", "test"),
    [
        (".", "."),
        ("annotation_val", "annotation_test"),
        ("TH14_Temporal_annotations_validation/annotation", "TH14_Temporal_annotations_test/annotation"),
    ],
)
def test_lists_are_found_in_every_layout(tree: Path, val: str, test: str) -> None:
    expected = read_thumos14(tree, need_videos=False).samples
    for name in LISTS:
        folder = tree / (val if name.endswith("_val.txt") else test)
        folder.mkdir(parents=True, exist_ok=True)
        (tree / name).rename(folder / Path(name).name)
    assert read_thumos14(tree, need_videos=False).samples == expected


@pytest.mark.parametrize("name", ["{}.mp4", "validation/{}.mp4", "TH14_validation_set_mp4/{}.MP4"])
def test_videos_are_found_in_the_folder_and_in_folders_within_it(tree: Path, name: str) -> None:
    path = put(tree / name.format(f"{VAL}001"))
    annotations = read_thumos14(tree)
    assert {s.path for s in annotations.samples} == {str(path)}
    assert annotations.absent == {"videos": ["video_test_0000003"]}


def test_without_any_video_a_build_is_refused(tree: Path) -> None:
    with pytest.raises(AnnotationError, match=r"None of the 2 videos is under .*dry-run"):
        read_thumos14(tree)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{VAL}001  1.0", "should read `video_validation_0000266  72.8 76.4`"),
        (f"{VAL}001  1.0 2.0 3.0", "should read"),
        (f"{VAL}001  one 2.0", "should read"),
        (f"{VAL}001  nan 2.0", "should read"),
        (f"{VAL}001  -1.0 2.0", "should read"),
        (f"{VAL}001  2.0 2.0", "the end should be later than the start"),
        ("video_test_0000001  1.0 2.0", "should read"),
        ("../../etc/passwd  1.0 2.0", "should read"),
        (f"{VAL}001 9.0 12.0", "repeats .*Diving_val.txt:2"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tree: Path, line: str, words: str) -> None:
    path = tree / "annotation" / "Diving_val.txt"
    path.write_text(LISTS["annotation/Diving_val.txt"] + line + "\n")
    with pytest.raises(AnnotationError, match=words) as error:
        read_thumos14(tree, need_videos=False)
    assert f"{path}:5" in str(error.value)
    assert "repeats" in words or repr(line) in str(error.value)


def test_a_class_without_training_actions_is_named(tree: Path) -> None:
    (tree / "annotation" / "Golf_test.txt").write_text("video_test_0000003  5.0 6.0\n")
    with pytest.raises(
        AnnotationError, match=r"Golf_test\.txt:1: Golf has no action in a list Golf_val\.txt"
    ):
        read_thumos14(tree, need_videos=False)
    assert len(read_thumos14(tree, ("Diving",), need_videos=False).samples) == 3


def test_a_list_in_two_places_is_refused(tree: Path) -> None:
    (tree / "Diving_val.txt").write_text(f"{VAL}001  2.0 3.5\n")
    with pytest.raises(AnnotationError, match="is there a second time"):
        read_thumos14(tree, need_videos=False)


def test_a_folder_without_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"Found no CLASS_val\.txt under"):
        read_thumos14(tmp_path, need_videos=False)


def test_the_real_lists_agree_with_a_count_by_awk(thumos14: Path) -> None:
    """Lines of all lists but Ambiguous', and those of them that start before 2 s."""
    annotations = read_thumos14(thumos14, need_videos=False)
    early = Counter("train" if "_val.txt" in s.reason else "test" for s in annotations.skipped)
    for split, part in (("train", "val"), ("test", "test")):
        lists = [str(p) for p in thumos14.glob(f"annotation_{part}/*.txt") if "Ambiguous" not in p.name]
        count = "NF == 3 { all++; if ($2 < 2) early++ } END { print all, early + 0 }"
        printed = subprocess.run(["awk", count, *lists], capture_output=True, text=True, check=True).stdout
        all_lines, early_lines = map(int, printed.split())
        assert early[split] == early_lines
        assert sum(s.split == split for s in annotations.samples) == all_lines - early_lines
    assert len(annotations.classes) == 20
    assert len({s.video for s in annotations.segments if s.split == "train"}) == 200


@pytest.mark.slow
def test_every_real_cliff_dive_is_also_listed_as_a_dive(thumos14: Path) -> None:
    annotations = read_thumos14(thumos14, need_videos=False)
    assert annotations.options["instances_listed_twice"] == {"train": 143, "test": 218}
    times = {(s.video, s.start_s, s.end_s) for s in annotations.samples if s.label == "Diving"}
    assert times.issuperset(
        (s.video, s.start_s, s.end_s) for s in annotations.samples if s.label == "CliffDiving"
    )


def test_all_bad_lines_of_all_lists_are_named_at_once(tree: Path) -> None:
    for name in ("Diving_val.txt", "CliffDiving_val.txt"):
        with (tree / "annotation" / name).open("a") as file:
            file.write(f"{VAL}007 5.0 4.0\n{VAL}007 x 4.0\n")
    with pytest.raises(AnnotationError) as error:
        read_thumos14(tree, need_videos=False)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{tree} has 4 bad rows. Correct them."
    assert ["CliffDiving_val.txt:" in line for line in lines[1:]] == [True, True, False, False]
