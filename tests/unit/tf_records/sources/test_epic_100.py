"""EPIC-KITCHENS-100: its layout, the splits of its files, unseen people, tail classes, and bad input."""

from pathlib import Path

import numpy as np
import pytest

from kdant_tf.evaluation.evaluate import measure_groups, summarize
from kdant_tf.evaluation.predictions import Predictions
from tf_records.errors import AnnotationError
from tf_records.sources.epic_kitchens import read_epic100

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,"
    "stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
TRAIN = (
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,1,door,2,['door'],[2]",
    "P01_01_1,P01,P01_01,00:00:02.629,00:00:04.37,00:00:06.17,262,370,take cup,take,0,cup,0,['cup'],[0]",
)
VALIDATION = (
    "P18_01_0,P18,P18_01,00:00:01.0,00:00:01.56,00:00:02.45,93,147,take plate,take,0,plate,1,['plate'],[1]",
    "P01_11_3,P01,P01_11,,00:01:00.00,00:01:02.5,1,2,open cup,open,1,cup,0,['cup'],[0]",
)
FILES = {
    "EPIC_100_train.csv": (HEADER, *TRAIN),
    "EPIC_100_validation.csv": (HEADER, *VALIDATION),
    "EPIC_100_verb_classes.csv": ("id,key,instances,category", "0,take,[],x", "1,open,[],x"),
    "EPIC_100_noun_classes.csv": ("id,key,instances,category", "0,cup,[],x", "1,plate,[],x", "2,door,[],x"),
    "EPIC_100_video_info.csv": ("video_id,duration,fps,resolution", "P01_01,100.5,59.94,1920x1080"),
    "EPIC_100_unseen_participant_ids_validation.csv": ("participant_id", "P18"),
    "EPIC_100_tail_verbs.csv": ("verb", "1"),
    "EPIC_100_tail_nouns.csv": ("noun", "1"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two actions to train on and two to test; no video."""
    for name, lines in FILES.items():
        write(tmp_path, name, *lines)
    return tmp_path


def write(tree: Path, name: str, *lines: str) -> None:
    (tree / name).write_text("\n".join(lines) + "\n")


def test_its_files_are_the_splits_and_its_class_files_the_names(tree: Path) -> None:
    annotations = read_epic100(tree, "verb,noun,action", need_videos=False)
    assert [(s.id, s.split, s.labels) for s in annotations.samples] == [
        ("P01_01/0", "train", ("open", "door", "open door")),
        ("P01_01/1", "train", ("take", "cup", "take cup")),
        ("P18_01/0", "test", ("take", "plate", "take plate")),
        ("P01_11/3", "test", ("open", "cup", "open cup")),
    ]
    assert [head.classes for head in annotations.heads] == [
        ("take", "open"),
        ("cup", "plate", "door"),
        ("take cup", "take plate", "open cup", "open door"),
    ]
    assert annotations.samples[3].start_s == 60
    assert annotations.dataset == "epic100"


def test_unseen_participants_and_tail_classes_are_noted_of_each_target(tree: Path) -> None:
    options = read_epic100(tree, "verb,noun,action", need_videos=False).options
    assert options["unseen_participants"] == ["P18"]
    assert options["tail_classes"] == {
        "verb": ["open"],
        "noun": ["plate"],
        "action": ["take plate", "open cup", "open door"],
    }
    assert read_epic100(tree, "noun", need_videos=False).options["tail_classes"] == {"noun": ["plate"]}
    (tree / "EPIC_100_tail_nouns.csv").unlink()
    assert "tail_classes" not in read_epic100(tree, need_videos=False).options


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        (
            "EPIC_100_train.csv",
            (HEADER, TRAIN[0], TRAIN[0]),
            r"train\.csv:3 repeats the narration_id P01_01_0",
        ),
        (
            "EPIC_100_train.csv",
            (HEADER, TRAIN[0].replace("P01_01_0", "P02_01_0")),
            r"train\.csv:2: narration_id should read like P01_01_0\. Received: 'P02_01_0'",
        ),
        (
            "EPIC_100_validation.csv",
            (HEADER, VALIDATION[0].replace("plate,1,", "plate,9,")),
            r"validation\.csv:2: noun_class 9 is not in EPIC_100_noun_classes\.csv",
        ),
        (
            "EPIC_100_train.csv",
            (HEADER.replace("narration_id", "uid"), TRAIN[0]),
            "lacks the column narration_id",
        ),
    ],
)
def test_a_row_that_cannot_be_is_named(tree: Path, name: str, lines: tuple[str, ...], message: str) -> None:
    write(tree, name, *lines)
    with pytest.raises(AnnotationError, match=message):
        read_epic100(tree, "verb,noun", need_videos=False)


def test_a_file_that_is_missing_is_named(tree: Path) -> None:
    (tree / "EPIC_100_validation.csv").unlink()
    with pytest.raises(AnnotationError, match=r"EPIC_100_validation\.csv does not exist"):
        read_epic100(tree, need_videos=False)
    (tree / "EPIC_100_train.csv").unlink()
    with pytest.raises(AnnotationError, match=r"Found no EPIC_100_train\.csv .* EPIC-KITCHENS-100's annot"):
        read_epic100(tree, need_videos=False)


def test_recall_is_also_of_unseen_participants_and_of_tail_classes() -> None:
    labels = np.array([0, 0, 1, 6, 6, 6])
    probabilities = np.full((6, 7), 0.1)
    probabilities[:, 0] = 0.9
    probabilities[3, 6] = 0.5
    predictions = Predictions(
        probabilities=probabilities,
        labels=labels,
        ids=np.array([str(number) for number in range(6)]),
        videos=np.array(["P01_01", "P18_02", "P18_02", "P18_02", "P01_01", "P01_01"]),
    )
    classes = tuple("abcdefg")
    result = summarize(predictions, classes, view="observed", split="test", train_counts={})
    assert "tail_mean_top5_recall" not in result.to_dict()
    options = {"unseen_participants": ["P18"], "tail_classes": {"verb": ["b", "g", "f"]}}
    measured = measure_groups(result, options, "verb").to_dict()
    # Ties go to the first class, so that of "g" only the sample that gives it 0.5 is found among five.
    assert measured["mean_top5_recall"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert measured["unseen_mean_top5_recall"] == pytest.approx(1)
    assert measured["tail_mean_top5_recall"] == pytest.approx((1 + 1 / 3) / 2)
    assert measure_groups(result, {}, "verb") == result
