"""Several anticipation times from one forward pass: records and a head of each, the whole loop, bad input."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main

from kdant_tf.evaluation.predictions import load_predictions
from kdant_tf.runs import load_run, read_evaluation, read_metrics
from kdant_tf.training.distiller import Distiller
from tf_records.heads import time_heads
from tf_records.manifest import load_manifest
from tf_records.reader import training_batches
from tf_records.records import Records

TIMES = (0.1, 0.3, 0.6)
NAMES = ["0.1s", "0.3s", "0.6s"]
CLIPS = ("--clip-frames", 8, "--anticipation-s", "0.3,0.1,0.6", "--short-side", 64)
LONGER = ("--longest-anticipation-s", 0.7)
TRAINING = ("--model", "tiny_network:build", "--crop", 32, "--batch-size", 4, "--epochs", 1, "--xla", "off")


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kdant_json(*args: object) -> dict:
    result = kdant(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refuse(*args: object, code: int = 1) -> str:
    result = kdant(*args)
    assert result.exit_code == code, result.output
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered videos; actions begin at 1.2 s."""
    root = tmp_path_factory.mktemp("times") / "videos"
    shutil.copytree(videos, root)
    return root


@pytest.fixture(scope="module")
def records(folder: Path) -> Path:
    out = folder.parent / "records"
    source = ("--source", "csv", "--input", folder / "annotations.csv")
    kdant_json("build-records", *source, "--out", out, *CLIPS)
    return out


@pytest.fixture(scope="module")
def teacher(records: Path) -> Path:
    out = records.parent / "teacher"
    kdant_json("train-teacher", "--records", records, "--out", out, *TRAINING)
    return out


@pytest.fixture(scope="module")
def student(records: Path, teacher: Path) -> Path:
    out = records.parent / "student"
    options = ("--feature-loss", "bidirectional", "--soft-weight", 0.5, "--cache-teacher", "--views", 1)
    kdant_json("distill", "--records", records, "--teacher", teacher, "--out", out, *TRAINING, *options)
    return out


@pytest.fixture(scope="module")
def evaluated(student: Path, records: Path) -> dict:
    return kdant_json("evaluate", student, "--records", records)


def test_each_action_is_a_training_pair_at_each_time(records: Path) -> None:
    manifest = load_manifest(records)
    assert (manifest.times_s, manifest.clip.anticipation_s) == (TIMES, 0.1)
    assert (manifest.longest_anticipation_s, manifest.heads) == (0.6, ())
    train = manifest.splits["train"]
    assert (train.records, train.labeled, manifest.splits["test"].records) == (60, 48, 8)
    options = {"views": ("observed", "future"), "batch_size": 4, "crop": 32, "seed": 0, "epoch": 0}
    counts: Counter[int] = Counter()
    for batch in training_batches(Records.open(records), **options):
        counts.update(batch["time"].numpy().tolist())
    assert counts == {0: 20, 1: 20, 2: 20}
    gaps = set()
    for serialized in tf.data.TFRecordDataset(Records.open(records).paths("train")):
        context = tf.train.SequenceExample.FromString(serialized.numpy()).context.feature
        time = context["clip/time/index"].int64_list.value[0]
        gaps.add((time, context["clip/offset_frames"].int64_list.value[0]))
        assert context["clip/id"].bytes_list.value[0].decode().endswith(f" {TIMES[time]:g} s ahead")
    # 20 frames a second, after a clip of 8.
    assert gaps == {(0, 10), (1, 14), (2, 20)}
    assert kdant("inspect", records, "--verify").exit_code == 0
    assert "0.1 s, 0.3 s, 0.6 s" in kdant("inspect", records).stdout


def test_a_student_has_a_head_for_each_time_and_its_teacher_one(teacher: Path, student: Path) -> None:
    assert load_run(teacher).heads == ()
    run = load_run(student)
    assert [head.name for head in run.heads] == NAMES
    assert [head.ahead_s for head in run.heads] == list(TIMES)
    assert len(run.classes) == 12
    (row,) = read_metrics(student / "metrics.csv")
    assert row["feature_loss"] > 0


def test_each_time_is_evaluated_on_the_clip_that_ends_so_long_before(
    evaluated: dict, student: Path, teacher: Path, records: Path
) -> None:
    assert list(evaluated["heads"]) == NAMES
    kept = {name: load_predictions(student / "predictions.npz", f"observed, {name}/test") for name in NAMES}
    for name, each in kept.items():
        assert each.probabilities.shape == (8, 4)
        assert each.probabilities.sum(axis=1) == pytest.approx(np.ones(8))
        assert evaluated["heads"][name]["top1"] == np.mean(each.probabilities.argmax(axis=1) == each.labels)
    assert set(read_evaluation(student)) == {f"observed, {name}" for name in NAMES}
    assert "0.6s" in kdant("evaluate", student, "--records", records).stdout
    assert kdant_json("evaluate", teacher, "--records", records)["samples"] == 8


def test_an_answer_that_takes_time_is_of_an_earlier_clip_at_each_time(
    student: Path, evaluated: dict, folder: Path, tmp_path: Path
) -> None:
    source = ("--source", "csv", "--input", folder / "annotations.csv")
    kdant_json("build-records", *source, "--out", tmp_path / "longer", *CLIPS, *LONGER)
    kdant_json("export", student, "--out", tmp_path / "served")
    networks = (student, tmp_path / "served")
    at = ("evaluate", *networks, "--records", tmp_path / "longer", "--streaming", "--latency-ms")
    rows = kdant_json(*at, "0,100")["latency"]
    own = {(row["head"], row["latency"]): row["top1"] for row in rows if row["network"] == str(student)}
    assert [row["top1"] for row in rows[:6]] == [row["top1"] for row in rows[6:]]
    assert {head: own[head, 0.0] for head in NAMES} == {
        head: each["top1"] for head, each in evaluated["heads"].items()
    }
    assert "Build them with --longest-anticipation-s 0.8" in refuse(*at, "200")


def test_export_and_predict_draw_a_time_line(
    student: Path, records: Path, folder: Path, tmp_path: Path
) -> None:
    exported = kdant_json("export", student, "--out", tmp_path / "served", "--records", records)
    assert exported["signatures"]["serving_default"]["outputs"]["0.3s_probabilities"]["shape"] == [None, 4]
    video = next(iter(folder.glob("*.mp4")))
    for model in (student, tmp_path / "served"):
        result = kdant("predict", video, "--model", model, "--json-lines", "--top", 1)
        assert result.exit_code == 0, result.stderr
        line = json.loads(result.stdout.splitlines()[0])
        assert list(line["expected"]) == NAMES
        # The last frame of the first clip is shown at 0.35 s, and the clip ends a frame later.
        assert line["expected_at_s"] == pytest.approx({"0.1s": 0.5, "0.3s": 0.7, "0.6s": 1.0})
    text = kdant("predict", video, "--model", tmp_path / "served", "--top", 1).stdout.splitlines()
    assert text[1].count("→") == 3
    assert "→    0.50 s" in text[1]
    assert "→    1.00 s" in text[1]
    drawn = kdant("predict", video, "--model", student, "--overlay", tmp_path / "drawn.mp4")
    assert drawn.exit_code == 0, drawn.stderr
    assert (tmp_path / "drawn.mp4").stat().st_size > 1000


def test_a_report_has_a_row_for_each_time_and_no_clips(
    student: Path, records: Path, evaluated: dict, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert kdant("report", student, "--out", page).exit_code == 0
    assert "observed, 0.6s" in page.read_text()
    said = refuse("report", student, "--records", records, "--out", tmp_path / "clips.html")
    assert "a page shows no clips of such" in said


def test_a_sample_trains_the_head_of_its_time_alone() -> None:
    import keras

    keras.utils.set_random_seed(0)
    clip = keras.Input((2, 4, 4, 3))
    maps = keras.layers.Conv3D(4, 3, padding="same", activation="relu")(clip)
    logits = keras.layers.Dense(6)(keras.layers.GlobalAveragePooling3D()(maps))
    student = keras.Model(clip, {"logits": logits, "map": maps})
    distiller = Distiller(student, heads=time_heads((0.5, 1.0), ("a", "b", "c")), xla="off")
    clips = np.random.default_rng(0).uniform(-1, 1, (3, 2, 4, 4, 3)).astype(np.float32)
    labels, time = np.array([0, 2, -1]), np.array([1, 0, 1])
    batch = {"observed": clips, "label": tf.constant(labels), "time": tf.constant(time)}
    losses = distiller.compute_losses(batch)
    rows = student(clips)["logits"].numpy().astype(np.float64).reshape(3, 2, 3)
    expected = 0.0
    for b in range(2):
        own = rows[b, time[b]]
        expected += np.log(np.exp(own).sum()) - own[labels[b]]
    assert float(losses["classification_loss"]) == pytest.approx(expected / 3, rel=1e-4)
    right = sum(rows[b, time[b]].argmax() == labels[b] for b in range(2))
    assert (float(losses["correct"]), float(losses["labeled"])) == (right, 2)


def test_what_does_not_fit_is_said_in_one_sentence(
    folder: Path, student: Path, teacher: Path, records: Path, tmp_path: Path
) -> None:
    source = ("--source", "csv", "--input", folder / "annotations.csv")
    said = refuse("evaluate", student, "--records", records, "--view", "future")
    assert "names what comes at several times after an observed clip" in said
    said = refuse("visualize", student, "--records", records, "--out", tmp_path / "pictures")
    assert "names what comes at several times, and these pictures are of one" in said
    given = ("--records", records, "--out", tmp_path / "run", *TRAINING)
    said = refuse("distill", *given, "--teacher", teacher, "--validation-split", "test")
    assert "Setting `validation_split` is for students of one anticipation time" in said
    said = refuse("train-teacher", *given, "--teacher-view", "observed")
    assert "Setting `teacher_view` should be future on records of several anticipation times" in said
    said = refuse("build-records", *source, "--dry-run", "--anticipation-s", "0.5,0.5")
    assert "should have each time once" in said
    said = refuse("build-records", *source, "--dry-run", "--anticipation-s", "0.5,x", code=2)
    assert "seconds, at least 0" in said
    lines = (folder / "annotations.csv").read_text().splitlines()
    with (folder / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*lines[0].split(","), "offset_s"], [*lines[1].split(","), "0.8"]])
    wrong = ("--source", "csv", "--input", folder / "own.csv")
    said = refuse("build-records", *wrong, "--dry-run", "--anticipation-s", "0.5,1")
    assert "has a distance of its own. Give one time." in said
