"""Prediction: probabilities averaged over windows."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kdant_tf.evaluation.protocols import Evaluation, predict


def test_probabilities_are_averaged_over_the_windows_of_a_sample():
    clip = layers.Input((3,))
    network = keras.Model(clip, {"logits": layers.Identity()(clip)})
    clips = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    batch = {"clip": clips, "index": np.array([1, 0, 1, 0, 1]), "label": np.array([2, 0, 2, 0, 2])}
    seen: list[int] = []
    probabilities, labels = predict(
        network, tf.data.Dataset.from_tensor_slices(batch).batch(2), 2, seen.append
    )
    softmax = np.exp(clips) / np.exp(clips).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities[0], softmax[[1, 3]].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(probabilities[1], softmax[[0, 2, 4]].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(labels, [0, 2])
    assert seen == [2, 2, 1]


def test_an_evaluation_is_printed_as_json_types():
    result = Evaluation(
        top1=0.5, top5=1.0, mean_class_accuracy=0.4, samples=2, view="future", classes=("a", "b")
    )
    assert result.to_dict() == {
        "top1": 0.5,
        "top5": 1.0,
        "mean_class_accuracy": 0.4,
        "samples": 2,
        "view": "future",
        "classes": ["a", "b"],
    }
