"""Grad-CAM in float64 NumPy: with a linear head in closed form, with others by finite differences."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from kdant_tf.visualization.grad_cam import NoGradientError, class_activation, grad_cam

CLIP_SHAPE, CHANNELS, CLASSES = (3, 4, 5, 2), 6, 4
Head = Callable[[np.ndarray], np.ndarray]


def reference(feature_map: np.ndarray, head: Head, class_index: int, step: float = 1e-6) -> np.ndarray:
    """ReLU of the channels, each weighted by the mean of the logit's central differences in it."""
    alpha = np.zeros(feature_map.shape[-1])
    for place in np.ndindex(feature_map.shape):
        ends = []
        for sign in (1, -1):
            moved = feature_map.copy()
            moved[place] += sign * step
            ends.append(head(moved)[class_index])
        alpha[place[-1]] += (ends[0] - ends[1]) / (2 * step)
    alpha /= np.prod(feature_map.shape[:-1])
    return np.maximum(np.einsum("thwd,d->thw", feature_map, alpha), 0)


def build(head: Callable[..., keras.KerasTensor]) -> keras.Model:
    """A map by one product, and what `head` makes of it."""
    keras.utils.set_random_seed(1)
    clip = layers.Input(CLIP_SHAPE)
    feature_map = layers.Dense(CHANNELS, name="map")(clip)
    return keras.Model(clip, {"logits": head(feature_map), "map": feature_map})


def weights(network: keras.Model, name: str) -> list[np.ndarray]:
    return [np.float64(each) for each in network.get_layer(name).get_weights()]


@pytest.fixture
def clip() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *CLIP_SHAPE)).astype(np.float32)


@pytest.mark.parametrize("class_index", range(CLASSES))
def test_with_a_linear_head_it_is_the_class_activation_map(clip: np.ndarray, class_index: int) -> None:
    """Zhou et al. 2016: the head's weights over the map, here over the number of places (Selvaraju, §3.1)."""
    network = build(lambda x: layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling3D()(x)))
    network.trainable = False  # as a teacher is
    (kernel, bias), (head, _) = weights(network, "map"), weights(network, "head")
    feature_map = np.float64(clip[0]) @ kernel + bias
    expected = np.maximum(feature_map @ head[:, class_index], 0) / np.prod(CLIP_SHAPE[:3])
    found = grad_cam(network, clip, [class_index])[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert 0 < (found > 0).mean() < 1


def test_with_any_head_it_follows_finite_differences(clip: np.ndarray) -> None:
    def hidden(x: keras.KerasTensor) -> keras.KerasTensor:
        x = layers.Dense(5, activation="tanh", name="hidden")(layers.Flatten()(x))
        return layers.Dense(CLASSES, name="head")(x)

    network = build(hidden)
    (kernel, bias), (first, first_bias) = weights(network, "map"), weights(network, "hidden")
    second, second_bias = weights(network, "head")
    feature_map = np.float64(clip[0]) @ kernel + bias

    def head(values: np.ndarray) -> np.ndarray:
        return np.tanh(values.reshape(-1) @ first + first_bias) @ second + second_bias

    for class_index in range(CLASSES):
        expected = reference(feature_map, head, class_index)
        np.testing.assert_allclose(grad_cam(network, clip, [class_index])[0], expected, rtol=1e-3, atol=1e-6)


def test_a_map_that_was_reshaped_beside_the_logits_is_followed(clip: np.ndarray) -> None:
    """As TSN's, whose logits are made of frames (B·T, H, W, d)."""
    keras.utils.set_random_seed(1)
    given = layers.Input(CLIP_SHAPE)
    frames = keras.ops.reshape(layers.Dense(CHANNELS, name="map")(given), (-1, *CLIP_SHAPE[1:3], CHANNELS))
    scores = layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling2D()(frames))
    logits = keras.ops.mean(keras.ops.reshape(scores, (-1, CLIP_SHAPE[0], CLASSES)), axis=1)
    shown = keras.ops.reshape(frames, (-1, *CLIP_SHAPE[:3], CHANNELS))
    network = keras.Model(given, {"logits": logits, "frames": shown})
    (kernel, bias), (head, _) = weights(network, "map"), weights(network, "head")
    expected = np.maximum((np.float64(clip[0]) @ kernel + bias) @ head[:, 2], 0) / np.prod(CLIP_SHAPE[:3])
    found = grad_cam(network, np.concatenate([-clip, clip]), [0, 2])
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-6)


def test_logits_that_are_not_made_of_the_map(clip: np.ndarray) -> None:
    given = layers.Input(CLIP_SHAPE)
    logits = layers.Dense(CLASSES)(layers.GlobalAveragePooling3D()(given))
    network = keras.Model(given, {"logits": logits, "map": layers.Dense(CHANNELS)(given)})
    with pytest.raises(NoGradientError, match="not made of its feature map"):
        grad_cam(network, clip, [0])


def test_what_speaks_against_a_class_is_left_out() -> None:
    feature_map = np.array([[[[1.0, 2.0]], [[0.0, 5.0]]]])  # (1, 2, 1, 2)
    gradient = np.array([[[[3.0, -1.0]], [[1.0, -1.0]]]])
    np.testing.assert_array_equal(class_activation(feature_map, gradient), [[[0.0], [0.0]]])
    np.testing.assert_array_equal(class_activation(feature_map, -gradient), [[[0.0], [5.0]]])
    with pytest.raises(ValueError, match=r"Received: \(1, 2\) and \(2, 1\)"):
        class_activation(np.zeros((2, 1)), np.zeros((1, 2)))


def test_several_clips_at_once_have_what_each_has_alone() -> None:
    clips = np.random.default_rng(1).normal(size=(3, *CLIP_SHAPE)).astype(np.float32)
    network = build(lambda x: layers.Dense(CLASSES, name="head")(layers.Flatten()(x)))
    asked = [2, 0, 2]
    alone = [grad_cam(network, clips[i : i + 1], asked[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(grad_cam(network, clips, asked), alone, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(alone[0], alone[2])
