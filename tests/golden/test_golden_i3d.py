"""I3D against numbers from another implementation, piergiaj/pytorch-i3d, at an eighth of the width.

i3d_reference.npz was written by that port's pytorch_i3d.py (commit 05783d1, file unchanged) in PyTorch
2.13, float64, rounded to float32. Its Unit3D was given `max(1, round(width * channels))` channels, batch
norm a gamma of 1, and weights and clips came from i3d_weights.py. Its logits are a time step each: the
numbers are their mean. Its 2x7x7 pooling does not fit these small maps: a kernel of the map's height and
width, and of min(2, T) in time, took its place.
Of Mixed_4f there are every fifth value, and the mean and standard deviation of each channel.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from i3d_weights import checksum, draw_clip, draw_weights
from keras import ops

from kdant_tf.models import i3d

pytestmark = pytest.mark.slow

EXPECTED = np.load(Path(__file__).with_name("i3d_reference.npz"))
CLASSES = 400
WIDTH = 0.125
TOLERANCE = 1e-4
SAMPLE_STEP = 5
KERNEL = ".conv_3d/kernel"

CASES = {
    "rgb_8x112x112": (1, 8, 112, 112, 3),
    "rgb_20x75x90": (1, 20, 75, 90, 3),
    "flow_8x112x112": (1, 8, 112, 112, 2),
    "flow_20x75x90": (1, 20, 75, 90, 2),
}
SMALL = "rgb_8x112x112"


def build(case: str) -> tuple[keras.Model, dict[str, np.ndarray]]:
    """The network with its drawn weights, and these by name."""
    model = i3d.build_i3d(CLASSES, CASES[case][1:], width=WIDTH)
    variables = variables_of(model)
    shapes = {
        name.removesuffix(KERNEL): tuple(v.shape) for name, v in variables.items() if name.endswith(KERNEL)
    }
    weights = draw_weights(shapes)
    assert set(weights) == set(variables)
    for name, variable in variables.items():
        variable.assign(weights[name])
    return model, weights


def variables_of(model: keras.Model) -> dict[str, keras.Variable]:
    return {f"{layer.name}/{variable.name}": variable for layer in model.layers for variable in layer.weights}


def errors(model: keras.Model, case: str) -> dict[str, float]:
    """Of the logits and of what is kept of Mixed_4f."""
    outputs = model(draw_clip(CASES[case]), training=False)
    feature_map = ops.convert_to_numpy(outputs["Mixed_4f"])
    seen = {
        "logits": ops.convert_to_numpy(outputs["logits"]),
        "sample": feature_map.ravel()[::SAMPLE_STEP],
        "mean": feature_map.mean((0, 1, 2, 3), dtype=np.float64),
        "deviation": feature_map.std((0, 1, 2, 3), dtype=np.float64),
    }
    return {name: relative_error(values, EXPECTED[f"{case}_{name}"]) for name, values in seen.items()}


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    """max |a - b| / max |b|."""
    assert values.shape == expected.shape
    return float(np.max(np.abs(values - expected)) / np.max(np.abs(expected)))


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_pytorch_port(case):
    model, weights = build(case)
    drawn = checksum({**weights, "clip": draw_clip(CASES[case])})
    assert drawn == EXPECTED[f"{case}_drawn"], "other weights or clips were drawn than the port was given"
    found = errors(model, case)
    assert max(found.values()) <= TOLERANCE, found


def test_another_epsilon_would_be_seen(monkeypatch):
    monkeypatch.setattr(i3d, "BATCH_NORM_EPSILON", 1e-5)
    model, _ = build(SMALL)
    assert min(errors(model, SMALL).values()) > 10 * TOLERANCE


def test_a_tenth_more_of_any_kernel_would_be_seen():
    model, weights = build(SMALL)
    forward = tf.function(lambda clip: model(clip, training=False)["logits"])
    clip = tf.constant(draw_clip(CASES[SMALL]))
    found = {}
    for name, variable in variables_of(model).items():
        if name.endswith(KERNEL):
            variable.assign(weights[name] * np.float32(1.1))
            found[name] = relative_error(forward(clip).numpy(), EXPECTED[f"{SMALL}_logits"])
            variable.assign(weights[name])
    assert len(found) == 58
    assert min(found.values()) > 10 * TOLERANCE, min(found, key=found.__getitem__)
