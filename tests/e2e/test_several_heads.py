"""Verb, noun and action from one network: records in EPIC-KITCHENS' layout, the whole loop, and bad input.

The videos are rendered ones: "move" and "scale" are the verbs, "up" and "down" the nouns.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

from kdant_tf.evaluation.heads import PRODUCT, evaluate_heads
from kdant_tf.evaluation.predictions import load_predictions
from kdant_tf.runs import load_run, read_evaluation, read_metrics
from tf_records.heads import column_slices, columns
from tf_records.manifest import load_manifest
from tf_records.records import Records

HEADS = ["verb", "noun", "action"]
# Rendered class → verb and noun, by their numbers.
MEANS = {"rise": (0, 0), "fall": (0, 1), "grow": (1, 0), "shrink": (1, 1)}
VERBS, NOUNS = ("move", "scale"), ("up", "down")
CLIPS = ("--clip-frames", 8, "--anticipation-s", 0.4, "--fps", 20, "--short-side", 64)
TRAINING = ("--model", "tiny_network:build", "--crop", 32, "--batch-size", 4, "--epochs", 2, "--xla", "off")
HEADER = ("uid", "participant_id", "video_id", "start_timestamp", "stop_timestamp")


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
def epic(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EPIC-KITCHENS-55's layout of the rendered videos that have a label."""
    root = tmp_path_factory.mktemp("heads") / "epic"
    with (videos / "annotations.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"]]
    lines = [(*HEADER, "verb_class", "noun", "noun_class")]
    for number, row in enumerate(rows):
        participant = "P26" if row["split"] == "test" else "P01"
        verb, noun = MEANS[row["label"]]
        video = f"{participant}_{number:02d}"
        (root / participant).mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / row["video"], root / participant / f"{video}.mp4")
        times = (f"00:00:{float(row[name]):05.2f}" for name in ("start_s", "end_s"))
        lines.append((str(number), participant, video, *times, str(verb), NOUNS[noun], str(noun)))
    (root / "EPIC_train_action_labels.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    named = "".join(f"{number},{name}\n" for number, name in enumerate(VERBS))
    (root / "EPIC_verb_classes.csv").write_text(f"verb_id,class_key\n{named}")
    return root


def build(epic: Path, out: Path, *options: object) -> Path:
    kdant_json("build-records", "--source", "epic55", "--input", epic, "--out", out, *CLIPS, *options)
    return out


@pytest.fixture(scope="module")
def records(epic: Path) -> Path:
    """Of all three targets; a quarter of the training pairs has lost its labels."""
    options = ("--target", ",".join(HEADS), "--label-fraction", 0.75, "--longest-anticipation-s", 0.5)
    return build(epic, epic.parent / "records", *options)


@pytest.fixture(scope="module")
def teacher(records: Path) -> Path:
    out = records.parent / "teacher"
    kdant_json("train-teacher", "--records", records, "--out", out, *TRAINING, "--validation-fraction", 0.3)
    return out


@pytest.fixture(scope="module")
def student(records: Path, teacher: Path) -> Path:
    out = records.parent / "student"
    options = ("--feature-loss", "bidirectional", "--soft-weight", 0.5, "--epochs", 1, "--mixup", 0.2)
    kdant_json("distill", "--records", records, "--teacher", teacher, "--out", out, *TRAINING, *options)
    return out


@pytest.fixture(scope="module")
def evaluated(student: Path, records: Path) -> dict:
    return kdant_json("evaluate", student, "--records", records)


def test_each_record_has_a_label_for_each_head_and_the_columns_are_counted(records: Path) -> None:
    manifest = load_manifest(records)
    assert [head.name for head in manifest.heads] == HEADS
    assert [head.classes for head in manifest.heads] == [
        VERBS,
        NOUNS,
        ("move up", "move down", "scale up", "scale down"),
    ]
    assert manifest.classes == columns(manifest.heads)
    assert manifest.classes[:3] == ("verb: move", "verb: scale", "noun: up")
    train = manifest.splits["train"]
    assert (train.labeled, train.unlabeled) == (12, 4)
    counts = train.count_classes(manifest.classes)
    assert counts["verb: move"] + counts["verb: scale"] == 12
    assert sum(n for name, n in counts.items() if name.startswith("action: ")) == 12
    labels, _ = Records.open(records).labels_and_videos("train")
    known = labels[labels[:, 0] >= 0]
    assert labels.shape == (16, 3)
    assert np.array_equal(known[:, 2], 2 * known[:, 0] + known[:, 1])
    assert kdant("inspect", records, "--verify").exit_code == 0
    assert "verb (2 classes), noun (2 classes), action (4 classes)" in kdant("inspect", records).stdout


def test_records_of_one_target_are_those_of_before(epic: Path, tmp_path: Path) -> None:
    manifest = load_manifest(build(epic, tmp_path / "records"))
    assert (manifest.format_version, manifest.heads, manifest.classes) == (3, (), VERBS)
    text = (tmp_path / "records" / "manifest.json").read_text()
    assert "heads" not in text
    assert "labeled_records" not in text


def test_metrics_have_a_column_for_each_head(teacher: Path, student: Path) -> None:
    for row in read_metrics(teacher / "metrics.csv"):
        own = [row[f"accuracy_{name}"] for name in HEADS]
        assert row["accuracy"] == pytest.approx(sum(own) / 3)
        validated = [row[f"validation_accuracy_{name}"] for name in HEADS]
        assert row["validation_accuracy"] == pytest.approx(sum(validated) / 3)
    (row,) = read_metrics(student / "metrics.csv")
    assert row["feature_loss"] > 0
    assert [head.name for head in load_run(student).heads] == HEADS


def test_each_head_and_the_product_is_evaluated_and_kept(
    evaluated: dict, student: Path, records: Path
) -> None:
    assert list(evaluated["heads"]) == [*HEADS, PRODUCT]
    samples = {name: each["samples"] for name, each in evaluated["heads"].items()}
    assert samples == dict.fromkeys(samples, 8)
    kept = {
        name: load_predictions(student / "predictions.npz", f"observed, {name}/test")
        for name in evaluated["heads"]
    }
    verb, noun, product = (kept[name].probabilities for name in ("verb", "noun", PRODUCT))
    expected = (verb[:, :, None] * noun[:, None, :]).reshape(8, 4)
    assert product == pytest.approx(expected)
    assert kept[PRODUCT].labels.tolist() == kept["action"].labels.tolist()
    for name, each in kept.items():
        assert each.probabilities.sum(axis=1) == pytest.approx(np.ones(8))
        assert evaluated["heads"][name]["top1"] == np.mean(each.probabilities.argmax(axis=1) == each.labels)
    assert set(read_evaluation(student)) == {f"observed, {name}" for name in kept}
    table = kdant("evaluate", student, "--records", records, "--per-class").stdout
    assert PRODUCT in table
    assert "scale down" in table


def test_streams_are_added_head_by_head(student: Path, records: Path, evaluated: dict) -> None:
    twice = kdant_json("evaluate", student, "--records", records, "--with", student)
    for name, each in twice["heads"].items():
        assert each["top1"] == evaluated["heads"][name]["top1"]
    from_python = evaluate_heads(student, records, others=[student], weights=(1, 0))
    assert from_python["noun"].top1 == evaluated["heads"]["noun"]["top1"]


def test_an_export_has_outputs_for_each_head_and_predict_names_each(
    student: Path, records: Path, epic: Path
) -> None:
    out = records.parent / "served"
    exported = kdant_json("export", student, "--out", out, "--records", records)
    outputs = exported["signatures"]["serving_default"]["outputs"]
    assert outputs["probabilities"]["shape"] == [None, 8]
    assert outputs["action_probabilities"]["shape"] == [None, 4]
    assert {"verb_top_k_classes", "noun_top_k_probabilities"} <= set(outputs)
    assert exported["parity"]["same_top1"] == 1
    assert "- noun: up, down." in (out / "1" / "model_card.md").read_text()
    video = next(iter((epic / "P26").glob("*.mp4")))
    lines = {}
    for model in (student, out):
        result = kdant("predict", video, "--model", model, "--json-lines", "--top", 4)
        assert result.exit_code == 0, result.stderr
        lines[model] = json.loads(result.stdout.splitlines()[0])["expected"]
    assert list(lines[student]) == HEADS
    for name in HEADS:
        values = [each["probability"] for each in lines[student][name]]
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert [each["class"] for each in lines[out][name]] == [
            each["class"] for each in lines[student][name]
        ]
    text = kdant("predict", video, "--model", out, "--top", 1).stdout
    assert "verb: " in text
    assert " | action: " in text


@pytest.mark.parametrize("name", ["savedmodel", "openvino"])
def test_an_export_in_any_format_streams_each_head(
    name: str, student: Path, records: Path, evaluated: dict, tmp_path: Path
) -> None:
    if name != "savedmodel":
        pytest.importorskip(name)
    out = tmp_path / name
    # Without records the trial clips are noise, which has no labels.
    trial = () if name == "savedmodel" else ("--records", records)
    parity = kdant_json("export", student, "--out", out, "--format", name, *trial)["parity"]
    assert (parity["run_accuracy"] is None) == (name == "savedmodel")
    both = ("evaluate", student, out, "--records", records, "--streaming", "--latency-ms", "0,100")
    rows = kdant_json(*both)["latency"]
    assert {row["head"] for row in rows} == {*HEADS, PRODUCT}
    own, others = (
        {(row["head"], row["latency"]): row["top1"] for row in rows if row["network"] == str(each)}
        for each in (student, out)
    )
    assert own == others
    assert {head: own[head, 0.0] for head in evaluated["heads"]} == {
        head: each["top1"] for head, each in evaluated["heads"].items()
    }
    assert "verb x noun" in kdant(*both).stdout


def test_report_and_pictures_are_of_each_head_or_of_the_last(
    student: Path, teacher: Path, records: Path, evaluated: dict, tmp_path: Path
) -> None:
    kdant_json("evaluate", teacher, "--records", records, "--view", "observed")
    page = tmp_path / "page.html"
    assert kdant("report", student, teacher, "--records", records, "--out", page).exit_code == 0
    text = page.read_text()
    assert "observed, verb x noun" in text
    assert "scale down" in text
    draw = ("visualize", student, "--records", records, "--samples", 2, "--out", tmp_path / "pictures")
    kdant_json(*draw, "--pictures", "heat-maps,confusion,grad-cam", "--class", "scale down")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "confusion_student.png",
        "grad_cam.png",
        "heat_maps.png",
    }
    said = refuse(*draw, "--pictures", "features", "--overwrite")
    assert "features are coloured by those of one" in said
    assert "observed, noun" in kdant("runs", student).stdout


def test_what_does_not_fit_is_said_in_one_sentence(
    epic: Path, student: Path, teacher: Path, records: Path, tmp_path: Path
) -> None:
    one = build(epic, tmp_path / "one", "--target", "noun")
    two = build(epic, tmp_path / "two", "--target", "verb,noun")
    said = refuse("evaluate", student, "--records", one)
    assert "has the heads verb (2 classes), noun (2 classes), action (4 classes), records" in said
    assert "have labels for one head" in said
    said = refuse("distill", "--records", two, "--teacher", teacher, "--out", tmp_path / "s", *TRAINING)
    assert "have labels for the heads verb (2 classes), noun (2 classes). Use records" in said
    assert not (tmp_path / "s").exists()
    said = refuse("evaluate", student, "--records", one, "--streaming", "--latency-ms", 0)
    assert "--longest-anticipation-s" in said or "has the heads" in said
    said = refuse("evaluate", student, "--records", records, "--tau", "0.1")
    assert "this is for runs with one answer" in said
    wrong = ("--source", "epic55", "--input", epic, "--dry-run", "--target")
    assert "each once" in refuse("build-records", *wrong, "verb,verb", code=2)
    said = refuse("build-records", *wrong, "verb,noun", "--classes", "up")
    assert "`--classes` chooses among the classes of one target" in said


def test_the_slices_of_a_network_are_its_heads(student: Path) -> None:
    run = load_run(student)
    slices = column_slices(run.heads)
    assert {name: len(run.classes[part]) for name, part in slices.items()} == {
        "verb": 2,
        "noun": 2,
        "action": 4,
    }
