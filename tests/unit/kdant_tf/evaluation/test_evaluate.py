"""Probabilities averaged over windows, all numbers that follow, and runs given by their folders."""

import dataclasses
import json
import shutil
import textwrap
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.evaluation.curves import evaluate_observed_shares
from kdant_tf.evaluation.evaluate import (
    DENSE_CLASSES,
    Evaluation,
    evaluate_run,
    evaluate_streams,
    predict,
    summarize,
)
from kdant_tf.evaluation.metrics import bootstrap_interval, mean_class_accuracy
from kdant_tf.evaluation.predictions import (
    Predictions,
    describe_differences,
    describe_stale,
    load_predictions,
    read_curves,
    read_evaluated,
    save_predictions,
)
from kdant_tf.runs import (
    load_run,
    manifest_sha256,
    record_evaluation,
    stale_results,
    weights_sha256,
)
from tf_records.errors import RecordError, RunError
from tf_records.records import Records
from tf_records.schema import ClipSpec

pytestmark = pytest.mark.slow


def test_probabilities_are_averaged_over_the_windows_of_a_sample():
    clip = layers.Input((3,))
    network = keras.Model(clip, {"logits": layers.Identity()(clip)})
    clips = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    index = np.array([1, 0, 1, 0, 1])
    names = {"id": np.array([b"first", b"second"])[index], "video": np.array([b"v", b"w"])[index]}
    batch = {"clip": clips, "index": index, "label": np.array([2, 0, 2, 0, 2]), **names}
    counts: list[int] = []
    result = predict(network, tf.data.Dataset.from_tensor_slices(batch).batch(2), 2, counts.append)
    softmax = np.exp(clips) / np.exp(clips).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.probabilities[0], softmax[[1, 3]].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(result.probabilities[1], softmax[[0, 2, 4]].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(result.labels, [0, 2])
    assert result.ids.tolist() == ["first", "second"]
    assert result.videos.tolist() == ["v", "w"]
    assert counts == [2, 2, 1]


def test_every_sample_counts_also_where_the_network_gives_no_number():
    clip = layers.Input((2,))
    network = keras.Model(clip, {"logits": layers.Identity()(clip)})
    clips = np.array([[0, 1], [np.nan, 0], [2, 0]], np.float32)
    names = {"id": np.array([b"a", b"b", b"c"]), "video": np.array([b"v", b"v", b"w"])}
    batch = {"clip": clips, "index": np.array([0, 1, 3]), "label": np.array([1, 0, 0]), **names}
    result = predict(network, tf.data.Dataset.from_tensor_slices(batch).batch(3), 5)
    # Samples 2 and 4 were not read, such as in validation.
    assert result.ids.tolist() == ["a", "b", "c"]
    assert np.isfinite(result.probabilities).all(axis=1).tolist() == [True, False, True]
    with pytest.raises(RunError, match="for 1 of 3 samples: b"):
        result.check_finite("R")


@pytest.fixture
def evaluation() -> Evaluation:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]])
    predictions = Predictions(
        probabilities=probabilities,
        labels=np.array([0, 0, 1, 1]),
        ids=np.array(["a", "b", "c", "d"]),
        videos=np.array(["v", "v", "w", "x"]),
    )
    counts = {"golf": 101, "walk": 100}
    return summarize(predictions, ("golf", "walk", "run"), view="observed", split="test", train_counts=counts)


def test_every_number_is_right(evaluation):
    assert evaluation.top1 == 0.75
    assert evaluation.top5 == 1.0
    assert evaluation.mean_class_accuracy == 0.75
    assert evaluation.interval.low < 0.75 < evaluation.interval.high
    assert evaluation.mean_top5_recall == 1.0
    assert evaluation.negative_log_likelihood == pytest.approx(-np.log([0.7, 0.6, 0.8, 0.3]).mean())
    assert (evaluation.samples, evaluation.videos) == (4, 3)
    assert evaluation.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert [(each.name, each.samples, each.top1) for each in evaluation.per_class] == [
        ("golf", 2, 1.0),
        ("walk", 2, 0.5),
        ("run", 0, None),
    ]


def test_the_confusion_of_many_classes_is_a_list_of_counts_and_kept_whole(tmp_path):
    classes = tuple(f"class {number}" for number in range(DENSE_CLASSES + 1))
    probabilities = np.full((5, len(classes)), 1e-6)
    probabilities[np.arange(5), [7, 7, 7, 200, 0]] = 0.5
    names = np.array(list("abcde"))
    predictions = Predictions(
        probabilities=probabilities, labels=np.array([7, 7, 3, 200, 0]), ids=names, videos=names
    )
    many = summarize(predictions, classes, view="observed", split="test", train_counts={})
    printed = json.loads(json.dumps(many.to_dict()))
    assert printed["confusion"] is None
    assert printed["confusion_counts"] == [[0, 0, 1], [3, 7, 1], [7, 7, 2], [200, 200, 1]]
    fewer = dataclasses.replace(predictions, probabilities=probabilities[:, :DENSE_CLASSES])
    fewer = dataclasses.replace(fewer, labels=np.minimum(fewer.labels, DENSE_CLASSES - 1))
    few = summarize(fewer, classes[:-1], view="observed", split="test", train_counts={}).to_dict()
    assert few["confusion"] == few_counts(fewer).tolist()
    assert "confusion_counts" not in few
    save_predictions(tmp_path / "p.npz", "observed/test", predictions, many.confusion)
    with np.load(tmp_path / "p.npz") as kept:
        assert kept["observed/test/confusion"].sum() == 5
        assert kept["observed/test/confusion"][3, 7] == 1
    loaded = load_predictions(tmp_path / "p.npz", "observed/test")
    assert loaded is not None
    np.testing.assert_array_equal(loaded.probabilities, probabilities)


def few_counts(predictions: Predictions) -> np.ndarray:
    counts = np.zeros((DENSE_CLASSES, DENSE_CLASSES), int)
    np.add.at(counts, (predictions.labels, predictions.probabilities.argmax(axis=1)), 1)
    return counts


def test_the_interval_of_the_mean_class_accuracy_is_that_of_sorting_in_each_draw():
    """To the last digit: the same draws, and the same sums."""
    rng = np.random.default_rng(0)
    predictions = Predictions(
        probabilities=rng.dirichlet(np.ones(6), 50),
        labels=rng.integers(0, 5, 50),
        ids=np.arange(50).astype(str),
        videos=rng.integers(0, 9, 50).astype(str),
    )
    result = summarize(predictions, tuple("abcdef"), view="observed", split="test", train_counts={})
    slow = bootstrap_interval(
        lambda drawn: mean_class_accuracy(predictions.probabilities[drawn], predictions.labels[drawn]),
        predictions.videos,
    )
    assert result.mean_class_accuracy_interval == slow


def test_many_shot_classes_come_from_training(evaluation):
    assert evaluation.many_shot_mean_top5_recall == 1.0
    predictions = Predictions(
        probabilities=np.eye(2), labels=np.arange(2), ids=np.array(["a", "b"]), videos=np.array(["a", "b"])
    )
    none = summarize(predictions, ("x", "y"), view="future", split="val", train_counts={"x": 3})
    assert none.many_shot_mean_top5_recall is None


def test_it_is_printed_as_json(evaluation):
    printed = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert printed["top1"] == 0.75
    assert printed["top1_interval"] == [evaluation.interval.low, evaluation.interval.high]
    assert printed["classes"] == ["golf", "walk", "run"]
    assert printed["per_class"][2] == {"name": "run", "samples": 0, "top1": None}


@pytest.fixture
def folder(tiny_run: Path, record_folder: Path, tmp_path: Path) -> Path:
    """A folder with a run, "student", and records, "records"."""
    shutil.copytree(tiny_run, tmp_path / "student")
    (tmp_path / "records").symlink_to(record_folder)
    return tmp_path


def test_the_example_of_the_documentation_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    example = textwrap.dedent(evaluate_run.__doc__.split("Example:\n")[1])
    names = {"evaluate_run": evaluate_run}
    exec(example, names)
    result = names["result"]
    assert capsys.readouterr().out.startswith(f"top-1 {result.top1:.3f}, 95 % from ")
    assert result.interval.low <= result.top1 <= result.interval.high
    assert names["worst"].top1 == min(each.top1 for each in result.per_class if each.samples)
    assert len(names["mistaken"]) == round((1 - result.top1) * result.samples)


def test_folders_and_opened_ones_give_the_same_and_are_kept(folder):
    by_text = evaluate_run(str(folder / "student"), str(folder / "records"))
    opened = evaluate_run(load_run(folder / "student"), Records.open(folder / "records"))
    assert by_text == opened
    kept = load_predictions(folder / "student" / "predictions.npz", "future/test")
    np.testing.assert_array_equal(kept.probabilities, by_text.predictions.probabilities)
    results = json.loads((folder / "student" / "evaluation.json").read_text())
    digests = {
        "weights_sha256": weights_sha256(folder / "student" / "model.keras"),
        "records_sha256": manifest_sha256(folder / "records"),
    }
    digests["predictions_sha256"] = kept.sha256
    expected = {**json.loads(json.dumps(by_text.to_dict())), "windows": 5, **digests}
    assert results["future"] == expected
    assert [kept.weights_sha256, kept.records_sha256, kept.sha256] == list(digests.values())


def test_streams_are_given_by_their_folders_too(folder):
    student, records = folder / "student", folder / "records"
    fused = evaluate_streams([student, str(student)], records, weights=(1.0, 1.0), view="observed")
    assert fused.top1 == evaluate_run(student, records, view="observed").top1


def test_what_cannot_be_evaluated_is_one_sentence(folder):
    student, records = folder / "student", folder / "records"
    with pytest.raises(RunError, match=r"`view` should be observed or future. Received: 'past'"):
        evaluate_run(student, records, view="past")
    with pytest.raises(RunError, match="does not exist"):
        evaluate_run(folder / "none", records)
    with pytest.raises(RecordError, match="no records in split 'val'"):
        evaluate_run(student, records, split="val")


def train_further(folder: Path) -> None:
    """Other weights, as after --resume with more epochs."""
    network = keras.saving.load_model(folder / "model.keras", compile=False)
    network.set_weights([0.5 * value for value in network.get_weights()])
    network.save(folder / "model.keras")


def test_results_of_an_earlier_network_are_not_those_of_the_run(folder):
    student, records = folder / "student", folder / "records"
    evaluate_run(student, records)
    assert [each.view for each in read_evaluated(load_run(student), "student")] == ["future"]
    assert describe_stale(load_run(student)) is None
    train_further(student)
    assert read_evaluated(load_run(student), "student") == []
    sentence = describe_stale(load_run(student))
    words = f"Run {student} has another network than when it was evaluated (future). Evaluate it again"
    assert words in sentence
    evaluate_run(student, records)
    assert describe_stale(load_run(student)) is None


def test_a_sum_of_streams_is_stale_once_one_of_them_is_trained_further(folder):
    student, records = folder / "student", folder / "records"
    flow = Path(shutil.copytree(student, folder / "flow"))
    evaluate_streams([student, flow], records, weights=[1, 1])
    assert stale_results(student) == ()
    train_further(flow)
    assert stale_results(student) == ("future, fused",)
    shutil.rmtree(flow)
    assert stale_results(student) == ()


@pytest.fixture
def other_records(folder, edit_manifest):
    """Makes the records differ from those that the run, now a student, was trained on."""
    run = load_run(folder / "student")
    dataclasses.replace(run, role="student", teacher="teacher").save()
    records = Path(shutil.copytree((folder / "records").resolve(), folder / "other"))

    def edit(**changes):
        edit_manifest(records, **changes)
        return records

    return edit


def test_records_of_another_offset_are_refused_unless_insisted_on(folder, other_records):
    student = folder / "student"
    records = other_records(clip=ClipSpec(clip_frames=8, offset_frames=20))
    words = r"their clips have offset 20, the run's offset 16\..*take these all the same: add --insist"
    with pytest.raises(RunError, match=words):
        evaluate_run(student, records)
    with pytest.raises(RunError, match=words):
        evaluate_streams([student], records, weights=[1.0])
    assert not (student / "evaluation.json").exists()
    # Of the future segment alone the offset does not matter.
    assert evaluate_run(student, records, view="future").differences == ()
    insisted = evaluate_run(student, records, insist=True)
    assert insisted.differences == ("their clips have offset 20, the run's offset 16",)
    assert insisted.to_dict()["differences"] == list(insisted.differences)
    results = json.loads((student / "evaluation.json").read_text())
    name = f"observed, records {manifest_sha256(records)[:8]}"
    assert results[name]["differences"] == list(insisted.differences)
    assert "differences" not in evaluate_run(student, folder / "records").to_dict()


def test_a_network_of_another_training_is_refused_unless_insisted_on(folder):
    """A model.keras that was copied here, as far as its weights tell, not its date."""
    student, records = folder / "student", folder / "records"
    run = load_run(student)
    dataclasses.replace(run, network_sha256=weights_sha256(run.model_path)).save()
    keras.saving.load_model(run.model_path, compile=False).save(run.model_path)
    assert evaluate_run(student, records).differences == ()
    train_further(student)
    for evaluate in (evaluate_run, partial(evaluate_streams, weights=[1.0])):
        given = student if evaluate is evaluate_run else [student]
        with pytest.raises(RunError, match=r"has another model\.keras than its training left.* --insist"):
            evaluate(given, records)
    insisted = evaluate_run(student, records, insist=True)
    assert insisted.differences == ("its model.keras is not the network that its training left",)
    (shown,) = read_evaluated(load_run(student), "student")
    assert describe_differences(shown).startswith("not evaluated as it was trained: its model.keras is not")


def test_an_offset_in_other_words_is_the_same(folder, other_records):
    """At 20 frames a second, 0.4 s after a clip of 8 frames is 16 frames after its first."""
    fps = load_run(folder / "student").fps
    same = ClipSpec(clip_frames=8, anticipation_s=8 / fps)
    assert evaluate_run(folder / "student", other_records(clip=same)).differences == ()


def test_records_of_another_frame_rate_are_refused_unless_insisted_on(folder, other_records):
    fps = load_run(folder / "student").fps
    records = other_records(fps=fps + 5)
    with pytest.raises(RunError, match=f"they have {fps + 5:g} frames per second, the run's {fps:g}"):
        evaluate_run(folder / "student", records, view="future")
    assert len(evaluate_run(folder / "student", records, view="future", insist=True).differences) == 1
    # Where the rate is not known there is nothing to compare.
    assert evaluate_run(folder / "student", other_records(fps=None), view="future").differences == ()
    records = other_records(fps=fps + 5, options={"observed_fraction": 0.2})
    with pytest.raises(RunError, match="frames per second"):
        evaluate_observed_shares(folder / "student", records, [0.5])


def test_results_of_another_split_or_other_records_stand_beside_those_of_the_test_split(
    folder, tmp_path, edit_manifest
):
    student, records = folder / "student", folder / "records"
    other = Path(shutil.copytree(records, tmp_path / "other"))
    splits = Records.open(records).manifest.splits
    edit_manifest(other, splits={**splits, "val": splits["test"]})
    suffix = f"records {manifest_sha256(other)[:8]}"
    test = evaluate_run(student, records)
    for split in ("test", "val"):
        evaluate_run(student, other, split=split)
    evaluated = {each.view: each for each in read_evaluated(load_run(student), "student")}
    assert set(evaluated) == {"future", f"future, {suffix}", f"future, val, {suffix}"}
    assert evaluated["future"].result["top1"] == test.top1
    assert evaluated[f"future, val, {suffix}"].result["split"] == "val"
    for each in evaluated.values():
        assert each.predictions.records_sha256 == each.result["records_sha256"]


def test_curves_of_other_splits_and_records_stand_beside_each_other(folder):
    student = load_run(folder / "student")
    for name, value in (("share, val", 0.25), ("share, records 1a2b3c4d", 0.5), ("share", 0.75)):
        points = [{"share": 0.5, "value": value, "low": 0.0, "high": 1.0}]
        record_evaluation(student, name, {"split": "test", "top1": points})
    curves = read_curves(student, "share")
    assert {name: [(point.x, point.top1.value) for point in curve] for name, curve in curves.items()} == {
        "share, val": [(0.5, 0.25)],
        "share, records 1a2b3c4d": [(0.5, 0.5)],
        "share": [(0.5, 0.75)],
    }
    assert read_curves(student, "tau") == {}


@pytest.mark.parametrize("killed_at", ["save_predictions", "record_evaluation"])
def test_a_kill_between_the_two_files_lets_nothing_be_shown_that_does_not_belong_together(
    folder, monkeypatch, killed_at
):
    """Of one network, evaluated again with one window in place of five."""
    student, records = folder / "student", folder / "records"
    before = evaluate_run(student, records)
    run = load_run(student)
    dataclasses.replace(run, config=dataclasses.replace(run.config, windows=1)).save()

    def kill(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"kdant_tf.evaluation.evaluate.{killed_at}", kill)
        with pytest.raises(KeyboardInterrupt):
            evaluate_run(student, records)
    (shown,) = read_evaluated(load_run(student), "student")
    assert (shown.result["windows"], shown.result["top1"]) == (5, before.top1)
    if killed_at == "save_predictions":
        np.testing.assert_array_equal(shown.predictions.probabilities, before.predictions.probabilities)
    else:
        assert shown.predictions is None
    after = evaluate_run(student, records)
    (shown,) = read_evaluated(load_run(student), "student")
    np.testing.assert_array_equal(shown.predictions.probabilities, after.predictions.probabilities)


def test_predictions_of_another_run_are_not_shown_beside_a_result(folder):
    student, records = folder / "student", folder / "records"
    other = Path(shutil.copytree(student, folder / "other run"))
    train_further(other)
    for run in (student, other):
        evaluate_run(run, records)
    shutil.copy(other / "predictions.npz", student)
    (shown,) = read_evaluated(load_run(student), "student")
    assert shown.predictions is None
    # Results of before predictions had a digest say which network and records they are of.
    results = json.loads((student / "evaluation.json").read_text())
    for result in results.values():
        del result["predictions_sha256"]
    (student / "evaluation.json").write_text(json.dumps(results))
    (shown,) = read_evaluated(load_run(student), "student")
    assert shown.predictions is None
    evaluate_run(student, records)
    (shown,) = read_evaluated(load_run(student), "student")
    assert shown.predictions is not None
