"""JHMDB's layout, on a made-up tree and on the real partial copy."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tf_records.errors import AnnotationError
from tf_records.sources.jhmdb import read_jhmdb, source_videos

ODD_NAMES = ("Boom  Clap!_(Challenge)_0.avi", "a & b_1.avi", "_@20 x__2.avi")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes with videos (never decoded here) and one that is only listed."""
    splits = tmp_path / "splits"
    splits.mkdir()
    for name, videos in {"golf": ODD_NAMES, "walk": ("w0.avi", "w1.avi", "w2.avi")}.items():
        (tmp_path / name).mkdir()
        for video in videos:
            (tmp_path / name / video).write_bytes(b"tiny")
        lines = "".join(f"{video} {1 + i % 2} \n" for i, video in enumerate(videos))
        (splits / f"{name}_test_split1.txt").write_text(lines)
    (splits / "climb_stairs_test_split1.txt").write_text("c.avi 1\n")
    return tmp_path


def test_videos_are_read_in_the_order_of_classes_and_lines(tree: Path) -> None:
    annotations = read_jhmdb(tree)
    names = [f"golf/{name}" for name in ODD_NAMES] + ["walk/w0.avi", "walk/w1.avi", "walk/w2.avi"]
    assert [sample.video for sample in annotations.samples] == names
    assert [sample.split for sample in annotations.samples] == ["train", "test", "train"] * 2
    assert [sample.label for sample in annotations.samples] == ["golf"] * 3 + ["walk"] * 3
    assert annotations.classes == ("golf", "walk")
    assert annotations.options["split"] == 1


def test_odd_file_names_point_to_their_files(tree: Path) -> None:
    assert all(Path(sample.path).is_file() for sample in read_jhmdb(tree).samples)


def test_only_test_samples_see_a_fifth(tree: Path) -> None:
    samples = read_jhmdb(tree).samples
    assert {sample.observed_fraction for sample in samples if sample.split == "test"} == {0.2}
    assert {sample.observed_fraction for sample in samples if sample.split == "train"} == {None}
    assert {(sample.start_s, sample.end_s) for sample in samples} == {(None, None)}


def test_absent_classes_and_videos_are_named(tree: Path) -> None:
    (tree / "walk" / "w1.avi").unlink()
    annotations = read_jhmdb(tree)
    assert annotations.absent == {"classes": ["climb_stairs"], "videos": ["walk/w1.avi"]}
    assert len(annotations.samples) == 5


def test_classes_keep_only_those_named(tree: Path) -> None:
    annotations = read_jhmdb(tree, classes=("walk",))
    assert annotations.classes == ("walk",)
    assert {sample.label for sample in annotations.samples} == {"walk"}
    assert annotations.absent["classes"] == ["climb_stairs"]


@pytest.mark.parametrize("name", ["flying", "climb_stairs"])
def test_a_class_without_videos_is_refused_with_those_there_are(tree: Path, name: str) -> None:
    with pytest.raises(AnnotationError, match=f"names {name}, .*Choose from: golf, walk"):
        read_jhmdb(tree, classes=("golf", name))


@pytest.mark.parametrize("line", ["w1.avi", "w1.avi 3", "w1.avi one", " 1", "w1.avi1"])
def test_a_bad_split_line_is_named(tree: Path, line: str) -> None:
    path = tree / "splits" / "walk_test_split1.txt"
    path.write_text(f"w0.avi 1\n\n{line}\n")
    with pytest.raises(AnnotationError) as error:
        read_jhmdb(tree)
    assert f"{path}:3 should read" in str(error.value)
    assert repr(line) in str(error.value)


def test_a_split_file_that_is_not_utf8_is_refused(tree: Path) -> None:
    (tree / "splits" / "walk_test_split1.txt").write_bytes(b"gr\xfc\xdfe.avi 1\n")
    with pytest.raises(AnnotationError, match=r"walk_test_split1\.txt"):
        read_jhmdb(tree)


def test_videos_marked_unused_are_left_out(tree: Path) -> None:
    (tree / "splits" / "walk_test_split1.txt").write_text("w0.avi 1\nw1.avi 0\nw2.avi 2\n")
    annotations = read_jhmdb(tree, classes=("walk",))
    assert [sample.video for sample in annotations.samples] == ["walk/w0.avi", "walk/w2.avi"]
    assert annotations.absent["videos"] == []


def test_a_split_number_without_files_is_refused(tree: Path) -> None:
    with pytest.raises(AnnotationError, match=r"Found no splits/\*_test_split2.txt.*split of 1, 2 or 3"):
        read_jhmdb(tree, split=2)


def test_a_folder_without_any_listed_video_is_refused(tree: Path) -> None:
    for path in tree.glob("*/*.avi"):
        path.unlink()
    with pytest.raises(AnnotationError, match="None of the videos"):
        read_jhmdb(tree)


def test_the_real_copy_has_196_training_and_80_test_videos_in_split_1(jhmdb: Path) -> None:
    annotations = read_jhmdb(jhmdb)
    assert Counter(sample.split for sample in annotations.samples) == {"train": 196, "test": 80}
    assert annotations.classes == ("clap", "golf", "pick", "pullup", "swing_baseball", "walk")
    assert len(annotations.absent["classes"]) == 15
    assert annotations.absent["videos"] == []
    assert len({sample.id for sample in annotations.samples}) == 276


@pytest.mark.parametrize("split", [1, 2, 3])
def test_no_real_video_is_in_both_parts(jhmdb: Path, split: int) -> None:
    samples = read_jhmdb(jhmdb, split).samples
    train = {sample.video for sample in samples if sample.split == "train"}
    assert train.isdisjoint(sample.video for sample in samples if sample.split == "test")
    assert len(samples) == 276


def test_clips_of_one_video_are_told_by_hmdb_names_alone() -> None:
    names = [
        "walk/A_walk_f_cm_np2_ba_med_0.avi",
        "walk/A_walk_f_cm_np2_ba_med_11.avi",
        "run/A_walk_f_cm_np2_ba_med_0.avi",
        "clip_0.avi",
        "clip_1.avi",
        "P01_01.MP4",
        "video_walk_f_cm_np2_ba_med_0.mp4",
    ]
    sources = ["walk/A_walk_f_cm_np2_ba_med", "walk/A_walk_f_cm_np2_ba_med", "run/A_walk_f_cm_np2_ba_med"]
    assert source_videos(np.array(names)).tolist() == [*sources, *names[3:]]
    of_bytes = source_videos(np.array([name.encode() for name in names], dtype=object))
    assert of_bytes.tolist() == [*sources, *names[3:]]
    assert source_videos(np.array([], dtype=str)).shape == (0,)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_official_splits_keep_the_clips_of_one_video_together(jhmdb: Path, split: int) -> None:
    """Of all 928 clips, by the split files alone; the copy has the videos of six classes."""
    parts: dict[str, set[str]] = {"1": set(), "2": set()}
    clips = 0
    for path in (jhmdb / "splits").glob(f"*_test_split{split}.txt"):
        rows = [line.rsplit(" ", 1) for line in path.read_text().splitlines() if line.strip()]
        for name, mark in rows:
            clips += 1
            (source,) = source_videos(np.array([f"{path.stem}/{name}"]))
            parts[mark.strip()].add(source)
    assert clips == 928
    assert not parts["1"] & parts["2"]
    assert len(parts["1"] | parts["2"]) == 571
