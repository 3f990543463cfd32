"""What the losses beyond the paper promise for every map."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.losses import FEATURE_LOSS_NAMES
from kdant_tf.losses.features import feature_loss

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))


def random_map(seed, *shape):
    values = np.random.default_rng(seed).standard_normal(shape)
    return (np.maximum(values, 0) + 0.1).astype(np.float32)


def two_maps(seed, sizes):
    return random_map(seed, 2, *sizes, 4), random_map(seed + 1, 2, *sizes, 4)


@pytest.mark.slow
@given(seed=SEEDS, sizes=SIZES, chunk=st.sampled_from([0, 2]))
def test_local_goes_from_bidirectional_to_direct(seed, sizes, chunk):
    maps = two_maps(seed, sizes)
    wide = float(feature_loss("local", *maps, locality=0.0, chunk=chunk))
    np.testing.assert_allclose(wide, float(feature_loss("bidirectional", *maps)), rtol=1e-5, atol=1e-9)
    narrow = float(feature_loss("local", *maps, locality=1e4, chunk=chunk))
    np.testing.assert_allclose(narrow, 2 * float(feature_loss("direct", *maps)), rtol=1e-4, atol=1e-9)


@pytest.mark.slow
@given(seed=SEEDS, sizes=SIZES, locality=st.floats(0, 1e6), alpha=st.floats(0, 1e4))
def test_local_is_finite_symmetric_and_0_for_equal_maps(seed, sizes, locality, alpha):
    student, teacher = two_maps(seed, sizes)
    there = float(feature_loss("local", student, teacher, alpha, locality=locality))
    back = float(feature_loss("local", teacher, student, alpha, locality=locality))
    assert np.isfinite(there)
    np.testing.assert_allclose(there, back, rtol=1e-4, atol=1e-9)
    assert float(feature_loss("local", student, student.copy(), alpha, locality=locality)) < 1e-9


@given(seed=SEEDS, name=st.sampled_from(["jaccard", "mmd", "infonce"]), data=st.data())
def test_losses_of_map_statistics_do_not_see_where_a_vector_is(seed, name, data):
    student, teacher = two_maps(seed, (1, 2, 3))
    flat = [each.reshape(2, 6, 4) for each in (student, teacher)]
    moved = [each[:, data.draw(st.permutations(range(6)))] for each in flat]
    before = float(feature_loss(name, *flat))
    np.testing.assert_allclose(float(feature_loss(name, *moved)), before, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@given(seed=SEEDS, factor=st.sampled_from([0.25, 4.0, 100.0]))
def test_jaccard_and_infonce_are_free_of_scale(seed, factor):
    student, teacher = two_maps(seed, (1, 2, 3))
    for name, scaled in (("jaccard", teacher * factor), ("infonce", teacher)):
        expected = float(feature_loss(name, student, teacher))
        received = float(feature_loss(name, student * np.float32(factor), scaled.astype(np.float32)))
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURE_LOSS_NAMES)
@given(seed=SEEDS, factor=st.sampled_from([0.5, 4.0, 100.0]))
def test_normalised_losses_are_free_of_scale(name, seed, factor):
    student, teacher = two_maps(seed, (1, 2, 3))
    expected = float(feature_loss(name, student, teacher, normalization="l2"))
    received = float(feature_loss(name, student * np.float32(factor), teacher, normalization="l2"))
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("normalization", ["l2", "layer"])
@pytest.mark.parametrize("name", FEATURE_LOSS_NAMES[1:])
def test_silent_maps_have_finite_losses_and_gradients(name, normalization):
    student = tf.zeros((2, 1, 2, 2, 4))
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = feature_loss(name, student, random_map(1, 2, 1, 2, 2, 4), normalization=normalization)
    assert np.isfinite(float(loss))
    assert np.isfinite(tape.gradient(loss, student).numpy()).all()


@given(seed=SEEDS)
def test_infonce_of_one_sample_is_0_and_of_equal_samples_log_of_their_number(seed):
    one = random_map(seed, 1, 3, 4)
    assert abs(float(feature_loss("infonce", one, one.copy()))) < 1e-5
    same = np.repeat(one, 3, axis=0)
    np.testing.assert_allclose(float(feature_loss("infonce", same, same.copy())), np.log(3), rtol=1e-5)
