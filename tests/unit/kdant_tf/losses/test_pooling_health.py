"""What is said of pooling and maps at the ends of their scales, and when a training warns of it."""

import re

import numpy as np
import pytest

from kdant_tf.losses import ATTENTION_LOSS_NAMES, FEATURE_LOSS_NAMES
from kdant_tf.losses.pooling_health import describe_trouble, pooling_health


def health_of(student, teacher, name="bidirectional", **settings):
    measured = pooling_health(name, student.astype(np.float32), teacher.astype(np.float32), **settings)
    return {key: float(value) for key, value in measured.items()}


@pytest.mark.parametrize("chunk", [0, 3])
def test_equal_weights_have_an_entropy_of_1_and_one_weight_alone_0(chunk):
    # Four positions, each with a channel of its own.
    student = teacher = np.broadcast_to(np.eye(4), (2, 4, 4))
    assert health_of(student, teacher, alpha=0.0, chunk=chunk)["pooling_entropy"] == pytest.approx(1)
    assert health_of(student, teacher, alpha=1e4, chunk=chunk)["pooling_entropy"] == pytest.approx(
        0, abs=1e-6
    )
    # Two keys of four that fit equally well: log 2 of log 4.
    pairs = np.repeat(np.eye(2), 2, axis=0)[None]
    assert health_of(pairs, pairs, alpha=1e4, chunk=chunk)["pooling_entropy"] == pytest.approx(0.5)


def test_small_activations_pool_nearly_uniformly_and_normalised_ones_do_not():
    maps = np.abs(np.random.default_rng(0).standard_normal((2, 2, 8, 16))) * 0.01
    assert health_of(*maps)["pooling_entropy"] > 0.9999
    assert health_of(*maps, normalization="layer", alpha=10.0)["pooling_entropy"] < 0.8


def test_variation_is_0_where_the_map_is_the_same_everywhere_and_1_around_a_mean_of_0():
    rows = np.random.default_rng(0).standard_normal((2, 1, 4))
    teacher = np.ones((2, 5, 4))
    assert health_of(np.repeat(rows, 6, axis=1), teacher)["map_variation"] == pytest.approx(0, abs=1e-12)
    assert health_of(np.concatenate([rows, -rows], axis=1), teacher)["map_variation"] == pytest.approx(1)
    assert health_of(np.zeros((2, 6, 4)), teacher)["map_variation"] == 0


@pytest.mark.parametrize("name", FEATURE_LOSS_NAMES[1:])
def test_only_pooling_by_attention_has_an_entropy(name):
    maps = np.random.default_rng(0).uniform(size=(2, 2, 3, 4))
    assert ("pooling_entropy" in health_of(*maps, name=name)) == (name in ATTENTION_LOSS_NAMES)


def test_one_position_is_its_own_mean():
    health = health_of(np.ones((2, 1, 4)), np.ones((2, 3, 4)))
    assert health == {"pooling_entropy": 1.0, "map_variation": 0.0}


def epochs(entropies, variations):
    pairs = zip(entropies, variations, strict=True)
    return [{"pooling_entropy": entropy, "map_variation": variation} for entropy, variation in pairs]


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (epochs([0.5, 0.999, 0.995, 0.99], [0.3] * 4), "sees little but means: .* 0.990 of the largest"),
        (epochs([0.5] * 3, [0.3, 0.3, 0.009]), None),
        (epochs([0.5] * 4, [0.3, 0.009, 0.009, 0.004]), "nearly the same everywhere: 0.004 of it"),
        (epochs([0.99, 0.99, 0.98], [0.3] * 3), None),
        (epochs([0.99, 0.99], [0.3] * 2), None),
        (epochs([0.98, 0.98, 0.98], [0.01] * 3), None),
        ([{"map_variation": 0.0}] * 3, "nearly the same everywhere"),
        ([{}] * 3, None),
    ],
)
def test_three_epochs_in_a_row_are_trouble(history, says):
    sentence = describe_trouble(history)
    if says is None:
        assert sentence is None
    else:
        assert sentence is not None
        assert re.search(says, sentence)
        sharper = ", a larger --alpha" if "pooling_entropy" in history[-1] else ""
        assert sentence.endswith(f"Give --feature-normalization l2{sharper} or a smaller --feature-weight.")
