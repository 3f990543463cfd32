"""All numbers of an evaluation, on a hand-made case."""

import json

import numpy as np
import pytest

from kdant_tf.evaluation.evaluate import Evaluation, summarize
from kdant_tf.evaluation.predictions import Predictions


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
    assert evaluation.top1.value == 0.75
    assert evaluation.top5.value == 1.0
    assert evaluation.mean_class_accuracy.value == 0.75
    assert evaluation.top1.low < 0.75 < evaluation.top1.high
    assert evaluation.mean_top5_recall == 1.0
    assert evaluation.negative_log_likelihood == pytest.approx(-np.log([0.7, 0.6, 0.8, 0.3]).mean())
    assert (evaluation.samples, evaluation.videos) == (4, 3)
    assert evaluation.confusion == ((2, 0, 0), (1, 1, 0), (0, 0, 0))
    assert [(each.name, each.samples, each.top1) for each in evaluation.per_class] == [
        ("golf", 2, 1.0),
        ("walk", 2, 0.5),
        ("run", 0, None),
    ]


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
    assert printed["top1_interval"] == [evaluation.top1.low, evaluation.top1.high]
    assert printed["classes"] == ["golf", "walk", "run"]
    assert printed["per_class"][2] == {"name": "run", "samples": 0, "top1": None}
