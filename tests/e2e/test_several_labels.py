"""Several labels a clip: a CSV whose labels have | between them, the whole loop on it, and bad input."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

from kdant_tf.evaluation.predictions import load_predictions
from kdant_tf.runs import load_run, read_evaluation, read_metrics
from tf_records.manifest import load_manifest
from tf_records.records import Records

CLASSES = ("down", "large", "moves", "small")
# Rendered class → what is true of it.
LABELS = {"rise": "moves", "fall": "moves|down", "grow": "large", "shrink": " small | down"}
CLIPS = ("--offset-frames", 16, "--short-side", 64, "--longest-anticipation-s", 0.5)
TRAINING = ("--model", "tiny_network:build", "--crop", 32, "--batch-size", 4, "--epochs", 2, "--xla", "off")


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kdant_json(*args: object) -> dict:
    result = kdant(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refuse(*args: object) -> str:
    result = kdant(*args)
    assert result.exit_code == 1, result.output
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered videos and labels.csv."""
    root = tmp_path_factory.mktemp("labels") / "videos"
    shutil.copytree(videos, root)
    with (root / "annotations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = LABELS.get(row["label"], "")
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def records(folder: Path) -> Path:
    out = folder.parent / "records"
    kdant_json("build-records", "--source", "csv", "--input", folder / "labels.csv", "--out", out, *CLIPS)
    return out


@pytest.fixture(scope="module")
def teacher(records: Path) -> Path:
    out = records.parent / "teacher"
    kdant_json("train-teacher", "--records", records, "--out", out, *TRAINING, "--validation-fraction", 0.3)
    return out


@pytest.fixture(scope="module")
def student(records: Path, teacher: Path) -> Path:
    out = records.parent / "student"
    options = ("--feature-loss", "direct", "--soft-weight", 0.5, "--mixup", 0.2, "--epochs", 1)
    kdant_json("distill", "--records", records, "--teacher", teacher, "--out", out, *TRAINING, *options)
    return out


@pytest.fixture(scope="module")
def evaluated(student: Path, records: Path) -> dict:
    return kdant_json("evaluate", student, "--records", records)


def test_a_record_has_all_its_labels(records: Path) -> None:
    manifest = load_manifest(records)
    (head,) = manifest.heads
    assert (head.name, head.several, head.classes, manifest.classes) == ("labels", True, CLASSES, CLASSES)
    train = manifest.splits["train"]
    assert (train.labeled, train.unlabeled) == (16, 4)
    assert train.count_classes(CLASSES) == {"down": 8, "large": 4, "moves": 8, "small": 4}
    labels, _ = Records.open(records).labels_and_videos("train")
    rows = {tuple(row) for row in labels.tolist()}
    assert rows == {(0, 0, 1, 0), (1, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 1), (-1,) * 4}
    assert kdant("inspect", records, "--verify").exit_code == 0
    assert kdant("inspect", records, "--contact-sheet", records.parent / "sheet.png").exit_code == 0


def test_an_epoch_is_validated_by_mean_average_precision(teacher: Path, student: Path) -> None:
    for row in read_metrics(teacher / "metrics.csv"):
        assert 0 < row["validation_mean_average_precision"] <= 1
        assert row["validation_accuracy"] == row["validation_mean_average_precision"]
    (row,) = read_metrics(student / "metrics.csv")
    assert row["feature_loss"] > 0
    assert load_run(student).heads == load_run(teacher).heads


def test_evaluation_is_mean_average_precision_of_independent_probabilities(
    evaluated: dict, student: Path, records: Path
) -> None:
    kept = load_predictions(student / "predictions.npz", "observed/test")
    assert kept.labels.shape == kept.probabilities.shape == (8, 4)
    assert not np.allclose(kept.probabilities.sum(axis=1), 1, atol=1e-3)
    shares = [each["average_precision"] for each in evaluated["per_class"]]
    assert evaluated["mean_average_precision"] == pytest.approx(np.mean(shares))
    low, high = evaluated["mean_average_precision_interval"]
    assert low <= evaluated["mean_average_precision"] <= high
    assert "top1" not in evaluated
    assert set(read_evaluation(student)) == {"observed"}
    text = kdant("evaluate", student, "--records", records, "--per-class").stdout
    assert "mean average precision" in text
    assert "moves" in text


def test_streaming_accuracy_is_mean_average_precision(student: Path, records: Path, tmp_path: Path) -> None:
    kdant_json("export", student, "--out", tmp_path / "served")
    own = kdant_json("evaluate", student, "--records", records)["mean_average_precision"]
    streaming = ("--streaming", "--latency-ms", "0,100")
    rows = kdant_json("evaluate", student, tmp_path / "served", "--records", records, *streaming)["latency"]
    assert rows[0]["mean_average_precision"] == pytest.approx(own)
    assert rows[2]["mean_average_precision"] == pytest.approx(own)
    assert rows[1]["latency"] == 0.1
    alone = kdant("evaluate", student, "--records", records, *streaming).stdout
    assert "mean average precision" in alone
    assert "latency" in read_evaluation(student)


def test_export_predict_report_and_runs_follow(
    student: Path, records: Path, folder: Path, evaluated: dict, tmp_path: Path
) -> None:
    exported = kdant_json("export", student, "--out", tmp_path / "served", "--records", records)
    assert exported["heads"][0]["several"] is True
    assert "A clip may have several" in (tmp_path / "served" / "1" / "model_card.md").read_text()
    video = next(iter(folder.glob("*.mp4")))
    answers = []
    for model in (student, tmp_path / "served"):
        result = kdant("predict", video, "--model", model, "--json-lines", "--top", 4)
        assert result.exit_code == 0, result.stderr
        expected = json.loads(result.stdout.splitlines()[0])["expected"]
        answers.append({each["class"]: each["probability"] for each in expected})
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)
    assert sum(answers[0].values()) != pytest.approx(1, abs=1e-3)
    assert kdant("report", student, "--out", tmp_path / "page.html").exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert "mean average precision" in text
    assert "Average precision of each class" in text
    assert f"{100 * evaluated['mean_average_precision']:.1f} %" in kdant("runs", student).stdout


def test_what_does_not_fit_is_said_in_one_sentence(
    folder: Path, student: Path, records: Path, tmp_path: Path
) -> None:
    said = refuse("evaluate", student, "--records", records, "--with", student)
    assert "gives several labels a clip; no streams of such are added" in said
    said = refuse("visualize", student, "--records", records, "--out", tmp_path / "pictures")
    assert "gives several labels a clip, and these pictures are of one" in said
    said = refuse("report", student, "--records", records, "--out", tmp_path / "page.html")
    assert "a page shows no clips of such" in said
    balance = ("--class-balance", "inverse")
    said = refuse("train-teacher", "--records", records, "--out", tmp_path / "t", *TRAINING, *balance)
    assert "Setting `class_balance` is for one label a clip" in said


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("moves|", "should be names, each once. Received: 'moves|'"),
        ("moves| moves", "should be names, each once"),
        ("moves|fly", "label 'fly' of a test row has no training row"),
    ],
)
def test_a_list_of_labels_that_cannot_be_is_named_by_its_line(folder: Path, label: str, message: str) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    row = next(number for number, line in enumerate(lines) if line.endswith("test"))
    video, start_s, end_s, *_ = lines[row].split(",")
    lines[row] = f"{video},{start_s},{end_s},{label},test"
    (folder / "wrong.csv").write_text("\n".join(lines) + "\n")
    wrong = ("--source", "csv", "--input", folder / "wrong.csv", "--dry-run")
    said = refuse("build-records", *wrong)
    assert f"wrong.csv:{row + 1}: " in said
    assert message in said


def test_a_stretch_in_two_rows_is_refused_where_labels_are_lists(folder: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    video, start_s, end_s, *_ = lines[1].split(",")
    again = f"{video},{start_s},{end_s},small,train"
    (folder / "wrong.csv").write_text("\n".join([*lines, again]) + "\n")
    said = refuse("build-records", "--source", "csv", "--input", folder / "wrong.csv", "--dry-run")
    assert "repeats" in said
    assert "Put all its labels into one row, with | between them." in said


def test_chosen_classes_leave_the_other_labels_out(folder: Path) -> None:
    given = ("--source", "csv", "--input", folder / "labels.csv", "--dry-run", "--classes", "down,small")
    summary = kdant_json("build-records", *given)
    assert summary["classes"] == ["down", "small"]
    assert summary["splits"]["train"]["classes"] == {"down": 8, "small": 4}
    assert (summary["splits"]["train"]["labeled"], summary["splits"]["train"]["unlabeled"]) == (8, 4)
