"""Colour jitter against its steps, one after the other, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from tf_records.augment import change_colours, colour_matrix

TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def reference(clip: np.ndarray, b: float, c: float, s: float, hue: float) -> np.ndarray:
    """Each step on values in [0, 1], the last in YIQ, where a turn of the hue is a turn of (I, Q)."""
    pixels = b * (clip.astype(np.float64) + 1) / 2
    pixels = c * pixels + (1 - c) * 0.5
    pixels = s * pixels + (1 - s) * (pixels @ TO_YIQ[0])[..., None]
    y, i, q = np.moveaxis(pixels @ TO_YIQ.T, -1, 0)
    turned = (i + 1j * q) * np.exp(2j * np.pi * hue)
    pixels = np.stack([y, turned.real, turned.imag], axis=-1) @ np.linalg.inv(TO_YIQ).T
    return np.clip(2 * pixels - 1, -1, 1)


@pytest.mark.parametrize(
    "change",
    [
        (1.0, 1.0, 1.0, 0.0),
        (1.4, 1.0, 1.0, 0.0),
        (0.0, 1.0, 1.0, 0.0),
        (1.0, 0.3, 1.0, 0.0),
        (1.0, 1.0, 0.0, 0.0),
        (1.0, 1.0, 1.8, 0.0),
        (1.0, 1.0, 1.0, 0.25),
        (1.0, 1.0, 1.0, -0.5),
        (0.7, 1.3, 0.6, 0.1),
        (1.9, 1.9, 1.9, -0.4),
    ],
)
def test_colours_change_as_in_the_steps(change: tuple[float, float, float, float]) -> None:
    clip = np.random.default_rng(0).uniform(-1, 1, (2, 5, 6, 3)).astype(np.float32)
    changed = change_colours(tf.constant(clip), colour_matrix(*map(tf.constant, change)))
    assert (changed.shape, changed.dtype) == ((2, 5, 6, 3), tf.float32)
    np.testing.assert_allclose(changed, reference(clip, *change), atol=2e-6)


def test_half_a_turn_of_the_hue_makes_red_cyan_and_leaves_grey() -> None:
    """Cyan as dark as red, whose luma is 0.299: in [0, 1], R = 2·0.299 - 1 is below 0."""
    half = colour_matrix(*map(tf.constant, (1.0, 1.0, 1.0, 0.5)))
    colours = tf.constant([[1.0, -1, -1], [0, 0, 0], [0.5, 0.5, 0.5]])[:, None, None]
    red, *greys = change_colours(colours, half).numpy().reshape(3, 3)
    np.testing.assert_allclose(red, 2 * np.array([0, 0.598, 0.598]) - 1, atol=1e-5)
    np.testing.assert_allclose(greys, [[0] * 3, [0.5] * 3], atol=1e-6)
