"""Mixing keeps pairs aligned and labels whole, for any batch and any draw."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.training.mixing import OWN_SHARE, PARTNER_LABEL, Mixer, choose_partners

LABELS = st.lists(st.integers(-1, 3), min_size=1, max_size=9)
MIXERS = {
    name: Mixer(**alphas, seed=3)
    for name, alphas in {
        "mixup": {"mixup": 0.4},
        "cutmix": {"cutmix": 1.0},
        "both": {"mixup": 0.4, "cutmix": 1.0},
    }.items()
}
VIEWS = ("observed", "future")


def batch_of(labels: list[int]) -> dict[str, tf.Tensor]:
    """The future clip is the observed one with its values doubled."""
    clips = np.random.default_rng(0).uniform(-1, 1, (len(labels), 2, 6, 8, 3)).astype("float32")
    return {"observed": tf.constant(clips), "future": tf.constant(2 * clips), "label": tf.constant(labels)}


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
@given(labels=LABELS, step=st.integers(0, 2**40))
def test_both_clips_and_the_label_are_mixed_alike(name: str, labels: list[int], step: int) -> None:
    batch = batch_of(labels)
    mixed = MIXERS[name].mix(batch, VIEWS, step)
    np.testing.assert_array_equal(mixed["future"], 2 * mixed["observed"])
    share, partner = mixed[OWN_SHARE].numpy(), mixed[PARTNER_LABEL].numpy()
    assert ((share >= 0.5 - 1e-6) & (share <= 1 + 1e-6)).all()
    assert sorted(partner) == sorted(labels)
    np.testing.assert_array_equal(partner >= 0, np.array(labels) >= 0)
    # Of the sample and of one other each mixed clip is made, in the shares that the labels have.
    clips = batch["observed"].numpy()
    for i, clip in enumerate(mixed["observed"].numpy()):
        others = [j for j in range(len(labels)) if labels[j] == partner[i]]
        mean = share[i] * clips[i] + (1 - share[i]) * clips[others]
        errors = np.abs(mean - clip).max(axis=(1, 2, 3, 4))
        kept = (clip[None] == clips[i]).all(axis=4)
        taken = (clip[None] == clips[others]).all(axis=4)
        boxed = (kept | taken).all(axis=(1, 2, 3)) & np.isclose(kept.mean(), share[i], atol=1e-6)
        assert (boxed | (errors < 1e-5)).any(), (i, errors)


@pytest.mark.slow
@given(labels=LABELS, step=st.integers(0, 2**40), replica=st.integers(0, 7))
def test_the_same_step_mixes_to_the_same_bytes(labels: list[int], step: int, replica: int) -> None:
    first, again = (MIXERS["both"].mix(batch_of(labels), VIEWS, step, replica) for _ in range(2))
    assert {name: values.numpy().tobytes() for name, values in first.items()} == {
        name: values.numpy().tobytes() for name, values in again.items()
    }


@given(labels=LABELS, seed=st.integers(0, 99))
def test_partners_are_a_permutation_without_fixed_points_but_for_one_alone(
    labels: list[int], seed: int
) -> None:
    drawn = np.random.default_rng(seed).uniform(size=len(labels)).astype("float32")
    partner = choose_partners(tf.constant(labels), tf.constant(drawn)).numpy()
    known = np.array(labels) >= 0
    assert sorted(partner) == list(range(len(labels)))
    np.testing.assert_array_equal(known[partner], known)
    alone = [i for i in range(len(labels)) if (known == known[i]).sum() == 1]
    assert [i for i in range(len(labels)) if partner[i] == i] == alone


def test_seed_step_and_replica_each_draw_anew() -> None:
    batch = batch_of([0, 1, 2, 3])
    drawn = {
        Mixer(mixup=1.0, seed=seed).mix(batch, VIEWS, step, replica)[OWN_SHARE].numpy().tobytes()
        for seed in (0, 1)
        for step in (0, 1)
        for replica in (0, 1)
    }
    assert len(drawn) == 8
