"""Mixup and CutMix against their definitions, sample by sample in float64."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdant_tf.losses.classification import classification_loss, soft_classification_loss
from kdant_tf.training.mixing import choose_partners, look_up, outside_box, smaller_shares

RNG = np.random.default_rng(0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def kl(target: np.ndarray, logits: np.ndarray) -> float:
    pairs = zip(target, log_softmax(logits), strict=True)
    return math.fsum(t * (math.log(t) - log_p) for t, log_p in pairs if t > 0)


def mixed_target(label: int, partner: int, share: float, teacher: np.ndarray) -> np.ndarray:
    if label < 0:
        return np.exp(log_softmax(teacher))
    return share * np.eye(5)[label] + (1 - share) * np.eye(5)[partner]


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    return {
        "logits": RNG.normal(size=(4, 5)),
        "teacher": RNG.normal(size=(4, 5)),
        "label": np.array([3, -1, 0, 2]),
        "partner": np.array([0, -1, 2, 2]),
        "share": np.array([0.5, 0.8, 0.9, 1.0]),
    }


@pytest.mark.parametrize("soft_weight", [0.0, 0.4])
def test_a_mixed_sample_learns_from_both_labels_in_their_shares(
    batch: dict[str, np.ndarray], soft_weight: float
) -> None:
    temperature = 2.0
    partners = (batch["partner"], batch["share"].astype("float32"))
    got = soft_classification_loss(
        *(
            keras.ops.cast(batch["logits"], "float32"),
            batch["label"],
            keras.ops.cast(batch["teacher"], "float32"),
        ),
        *(soft_weight, temperature),
        partners=partners,
    )
    expected = 0.0
    rows = zip(*(batch[name] for name in ("logits", "teacher", "label", "partner", "share")), strict=True)
    for logits, teacher, label, partner, share in rows:
        beta = soft_weight if label >= 0 else 0.0
        hard = kl(mixed_target(label, partner, share, teacher), logits)
        soft = kl(np.exp(log_softmax(teacher / temperature)), logits / temperature)
        expected += ((1 - beta) * hard + beta * temperature**2 * soft) / 4
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_without_a_teacher_unlabelled_samples_add_nothing(batch: dict[str, np.ndarray]) -> None:
    partners = (batch["partner"], batch["share"].astype("float32"))
    got = classification_loss(keras.ops.cast(batch["logits"], "float32"), batch["label"], partners=partners)
    expected = [
        kl(
            mixed_target(batch["label"][i], batch["partner"][i], batch["share"][i], batch["teacher"][i]),
            logits,
        )
        for i, logits in enumerate(batch["logits"])
        if batch["label"][i] >= 0
    ]
    np.testing.assert_allclose(got, sum(expected) / 4, rtol=1e-5)


@pytest.mark.parametrize("size", [(6, 9), (7, 7), (1, 4)])
def test_a_box_has_its_share_of_the_picture_and_is_cut_at_the_edges(size: tuple[int, int]) -> None:
    """As in algorithm A1, in which every number is rounded down."""
    area, y, x = (RNG.uniform(0, high, 40).astype("float32") for high in (0.5, 1, 1))
    area[0] = 0.0
    outside = outside_box(*map(tf.constant, (area, y, x)), *size).numpy()
    for i in range(40):
        expected = np.ones(size)
        h, w = (int(length * math.sqrt(area[i])) // 2 for length in size)
        top, left = int(y[i] * size[0]), int(x[i] * size[1])
        expected[max(top - h, 0) : top + h, max(left - w, 0) : left + w] = 0
        np.testing.assert_array_equal(outside[i, 0, :, :, 0], expected)
        assert expected.mean() >= 0.5


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_distribution_asked_for(alpha: float) -> None:
    """Against draws of Beta, by the largest difference of the two distribution functions."""
    drawn = RNG.beta(alpha, alpha, 100_000)
    expected = np.sort(np.minimum(drawn, 1 - drawn))
    ranks = (np.arange(100_000, dtype="float32") + 0.5) / 100_000
    got = look_up(smaller_shares(alpha), tf.constant(ranks)).numpy()
    assert (np.diff(got) >= 0).all()
    assert 0 <= got.min() <= got.max() <= 0.5
    places = np.searchsorted(expected, got) / 100_000
    assert np.abs(places - ranks).max() < 0.01


def test_partners_are_the_next_in_line_of_the_same_kind() -> None:
    label = tf.constant([5, -1, 7, -1, 5, 1])
    drawn = tf.constant([0.9, 0.8, 0.1, 0.2, 0.3, 0.6])
    # In line: 2 4 5 0 and 3 1.
    assert choose_partners(label, drawn).numpy().tolist() == [2, 3, 4, 1, 5, 0]
