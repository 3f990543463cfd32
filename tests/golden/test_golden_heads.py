"""Several heads and several labels a clip against float64 NumPy, class by class."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.evaluation.metrics import average_precision
from kdant_tf.losses.heads import binary_kl, head_probabilities, several_labels_loss
from kdant_tf.training.distiller import Distiller
from tf_records.heads import Head

SEEDS = st.integers(0, 2**32 - 1)
HEADS = (
    Head(name="verb", classes=("take", "put", "open")),
    Head(name="noun", classes=("cup", "door")),
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bernoulli_kl(p: float, q: float) -> float:
    """KL of two coins."""
    terms = [(p, q), (1 - p, 1 - q)]
    return sum(a * math.log(a / b) for a, b in terms if a > 0)


def softmax(row: np.ndarray) -> np.ndarray:
    exponentials = np.exp(row - row.max())
    return exponentials / exponentials.sum()


@given(seed=SEEDS, beta=st.floats(0, 1), temperature=st.floats(0.5, 4), mixed=st.booleans())
def test_several_labels_are_a_coin_for_each_class(seed, beta, temperature, mixed):
    rng = np.random.default_rng(seed)
    logits, taught = (rng.normal(0, 2, (4, 3)).astype(np.float32) for _ in range(2))
    labels, others = rng.integers(0, 2, (2, 4, 3))
    labels[2] = others[2] = -1
    share = rng.uniform(0.5, 1, 4).astype(np.float32)
    partners = (others, share) if mixed else None
    loss = float(several_labels_loss(logits, labels, taught, beta, temperature, partners))
    expected = 0.0
    for b in range(4):
        for c in range(3):
            z, r = float(logits[b, c]), float(taught[b, c])
            if labels[b, c] < 0:
                expected += bernoulli_kl(sigmoid(r), sigmoid(z))
                continue
            target = float(labels[b, c])
            if mixed:
                target = float(share[b]) * target + (1 - float(share[b])) * float(others[b, c])
            soft = bernoulli_kl(sigmoid(r / temperature), sigmoid(z / temperature))
            expected += (1 - beta) * bernoulli_kl(target, sigmoid(z)) + beta * temperature**2 * soft
    assert loss == pytest.approx(expected / 4, rel=1e-4, abs=1e-5)
    alone = float(several_labels_loss(logits, labels, None, 0.0, 1.0, partners))
    known = [b for b in range(4) if b != 2]
    targets = labels if not mixed else share[:, None] * labels + (1 - share[:, None]) * others
    by_label = sum(
        bernoulli_kl(float(targets[b, c]), sigmoid(float(logits[b, c]))) for b in known for c in range(3)
    )
    assert alone == pytest.approx(by_label / 4, rel=1e-4, abs=1e-5)


def test_far_logits_lose_no_digits_and_their_gradient_is_the_difference():
    logits = tf.constant([[90.0, -90.0, 0.3]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = binary_kl(np.array([[0.0, 0.0, 0.25]]), logits)[0]
    assert float(loss) == pytest.approx(90 + bernoulli_kl(0.25, sigmoid(0.3)), rel=1e-6)
    assert tape.gradient(loss, logits)[0].numpy() == pytest.approx([1, 0, sigmoid(0.3) - 0.25], abs=1e-6)


@given(seed=SEEDS)
def test_probabilities_are_a_softmax_a_head_or_a_sigmoid_a_class(seed):
    logits = np.random.default_rng(seed).normal(0, 3, (2, 5)).astype(np.float32)
    given_heads = np.asarray(head_probabilities(logits, HEADS))
    for row, found in zip(logits.astype(np.float64), given_heads, strict=True):
        np.testing.assert_allclose(found, [*softmax(row[:3]), *softmax(row[3:])], rtol=1e-4, atol=1e-6)
    several = (Head(name="labels", classes=tuple("abcde"), several=True),)
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(head_probabilities(logits, several), expected, rtol=1e-4, atol=1e-6)


def tiny_network(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    clip = keras.Input((2, 4, 4, 3))
    maps = keras.layers.Conv3D(4, 3, padding="same", activation="relu")(clip)
    logits = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling3D()(maps))
    return keras.Model(clip, {"logits": logits, "map": maps})


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_a_step_adds_the_losses_of_the_heads_and_the_feature_loss_once(beta: float):
    clips = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2, 4, 4, 3)).astype(np.float32)
    label = np.array([[0, 1], [2, -1], [-1, -1], [1, 0]])
    student, teacher = tiny_network(1), tiny_network(2)
    options = {"soft_weight": beta, "feature_loss": "direct", "xla": "off"}
    batch = {"observed": clips[0], "future": clips[1], "label": tf.constant(label)}
    losses = Distiller(student, teacher, heads=HEADS, **options).compute_losses(batch)
    z = student(clips[0])["logits"].numpy().astype(np.float64)
    r = teacher(clips[1])["logits"].numpy().astype(np.float64)
    expected = 0.0
    for number, columns in enumerate((slice(0, 3), slice(3, 5))):
        for b in range(4):
            own, taught = softmax(z[b, columns]), softmax(r[b, columns])
            by_teacher = float(np.sum(taught * np.log(taught / own)))
            given_label = label[b, number]
            by_label = -math.log(own[given_label])
            expected += by_teacher if given_label < 0 else (1 - beta) * by_label + beta * by_teacher
    assert float(losses["classification_loss"]) == pytest.approx(expected / 4, rel=1e-4)
    one = {**batch, "label": tf.constant([0, 1, 2, -1])}
    alone = Distiller(student, teacher, **options).compute_losses(one)
    assert float(losses["feature_loss"]) == float(alone["feature_loss"])
    counts = {
        name: float(losses[name]) for name in ("labeled", "labeled_verb", "labeled_noun", "correct_verb")
    }
    right = sum(z[b, :3].argmax() == label[b, 0] for b in range(4))
    assert counts == {"labeled": 5, "labeled_verb": 3, "labeled_noun": 2, "correct_verb": right}


def test_a_distiller_with_heads_is_saved_and_loaded(tmp_path):
    distiller = Distiller(tiny_network(1), tiny_network(2), heads=HEADS, xla="off")
    distiller.compile(optimizer="sgd")
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.heads == HEADS


@given(seed=SEEDS, ties=st.booleans())
def test_average_precision_is_the_sum_over_thresholds(seed, ties):
    rng = np.random.default_rng(seed)
    probabilities = rng.random((9, 3))
    if ties:
        probabilities = np.round(4 * probabilities) / 4
    labels = rng.integers(0, 2, (9, 3))
    labels[:, 2] = 0
    found = average_precision(probabilities, labels)
    for c in range(2):
        expected, recall_before = 0.0, 0.0
        for threshold in sorted(set(probabilities[:, c]), reverse=True):
            named = probabilities[:, c] >= threshold
            right = int(np.sum(labels[named, c]))
            recall = right / max(1, labels[:, c].sum())
            expected += (recall - recall_before) * right / int(np.sum(named))
            recall_before = recall
        if labels[:, c].sum():
            assert found[c] == pytest.approx(expected)
        else:
            assert np.isnan(found[c])
    assert np.isnan(found[2])
