"""Prediction: probabilities averaged over windows."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kdant_tf.evaluation.evaluate import predict


def test_probabilities_are_averaged_over_the_windows_of_a_sample():
    clip = layers.Input((3,))
    network = keras.Model(clip, {"logits": layers.Identity()(clip)})
    clips = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    index = np.array([1, 0, 1, 0, 1])
    names = {"id": np.array([b"first", b"second"])[index], "video": np.array([b"v", b"w"])[index]}
    batch = {"clip": clips, "index": index, "label": np.array([2, 0, 2, 0, 2]), **names}
    seen: list[int] = []
    result = predict(network, tf.data.Dataset.from_tensor_slices(batch).batch(2), 2, seen.append)
    softmax = np.exp(clips) / np.exp(clips).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.probabilities[0], softmax[[1, 3]].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(result.probabilities[1], softmax[[0, 2, 4]].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(result.labels, [0, 2])
    assert result.ids.tolist() == ["first", "second"]
    assert result.videos.tolist() == ["v", "w"]
    assert seen == [2, 2, 1]
