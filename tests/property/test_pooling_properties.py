"""What attention pooling and its losses promise for every map and every alpha (paper §3.2)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st

from kdant_tf.layers.attention_pooling import attention_pool, bidirectional_attention_pool
from kdant_tf.losses import PENALTIES, REDUCTIONS
from kdant_tf.losses.features import feature_loss

SEEDS = st.integers(0, 2**32 - 1)
CHUNKS = st.sampled_from([0, 1, 2, 100])
ATTENTION_LOSSES = st.sampled_from(["unidirectional", "bidirectional"])


@st.composite
def pairs_of_maps(draw, levels=(1e-3, 1.0, 30.0), largest=5):
    """A and R, float32 after ReLU: random, constant or all zero, of one position or more."""
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    maps = []
    for _ in range(2):
        shape = (batch, draw(st.integers(1, largest)), channels)
        level = draw(st.sampled_from(levels))
        kind = draw(st.sampled_from(["random", "random", "constant", "zero"]))
        random = np.random.default_rng(draw(SEEDS)).standard_normal(shape)
        values = {"random": np.maximum(level * random, 0), "constant": np.full(shape, level)}
        maps.append(values.get(kind, np.zeros(shape)).astype(np.float32))
    return tuple(maps)


def gradients_of(function, *points):
    tensors = [tf.convert_to_tensor(point) for point in points]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return value, tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)


@pytest.mark.slow
@given(
    maps=pairs_of_maps(levels=(1e-3, 1.0, 1e4)),
    alpha=st.none() | st.floats(0, 1e4) | st.sampled_from([1e-45, 1e-30, 1e4]),
    name=ATTENTION_LOSSES,
    penalty=st.sampled_from(PENALTIES),
    reduction=st.sampled_from(REDUCTIONS),
    chunk=CHUNKS,
)
def test_losses_and_their_gradients_are_finite_at_every_alpha(maps, alpha, name, penalty, reduction, chunk):
    value, gradients = gradients_of(
        lambda a, r: feature_loss(name, a, r, alpha, penalty, reduction=reduction, chunk=chunk), *maps
    )
    assert value >= 0
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.slow
@given(maps=pairs_of_maps(levels=(1e-3, 1.0, 1e4)), alpha=st.floats(0, 1e4), chunk=CHUNKS)
def test_poolings_are_finite_and_within_the_keys_at_every_alpha(maps, alpha, chunk):
    def total(a, r):
        pooled = bidirectional_attention_pool(a, r, alpha, chunk)
        for name, values in pooled.items():
            keys = (a if name.endswith("a") else r).numpy()
            slack = 1e-5 * np.abs(keys).max()
            assert (values.numpy() >= keys.min(axis=1, keepdims=True) - slack).all()
            assert (values.numpy() <= keys.max(axis=1, keepdims=True) + slack).all()
        return tf.add_n([tf.reduce_sum(values) for values in pooled.values()])

    _, gradients = gradients_of(total, *maps)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@given(maps=pairs_of_maps(), alpha=st.floats(0, 1e-9), chunk=CHUNKS)
def test_alpha_towards_0_is_average_pooling(maps, alpha, chunk):
    queries, keys = maps
    pooled = attention_pool(queries, keys, alpha, chunk).numpy()
    mean = np.broadcast_to(keys.astype(np.float64).mean(axis=1, keepdims=True), pooled.shape)
    np.testing.assert_allclose(pooled, mean, rtol=1e-5, atol=1e-7)


@given(maps=pairs_of_maps(), alpha=st.floats(1e2, 1e4), chunk=CHUNKS)
def test_a_large_alpha_picks_the_most_similar_vector(maps, alpha, chunk):
    queries, keys = maps
    pooled = attention_pool(queries, keys, alpha, chunk).numpy()
    similarities = alpha * (queries.astype(np.float64) @ keys.transpose(0, 2, 1))
    best = similarities.max(axis=-1, keepdims=True)
    # Beyond 40 a vector's weight is below 1e-17. What rounding could make of it lies beyond 1e-5 of the best.
    behind = best - similarities
    clear = ((behind > 40 + 1e-5 * np.abs(best)).sum(axis=-1) == keys.shape[1] - 1) & (best[..., 0] > 0)
    assume(clear.any())
    expected = np.take_along_axis(keys, similarities.argmax(axis=-1)[..., None], axis=1)
    np.testing.assert_allclose(pooled[clear], expected[clear], rtol=1e-5, atol=1e-15 * keys.max())


@pytest.mark.slow
@given(
    maps=pairs_of_maps(),
    alpha=st.none() | st.floats(0, 1),
    penalty=st.sampled_from(PENALTIES),
    reduction=st.sampled_from(REDUCTIONS),
    chunk=CHUNKS,
)
def test_bidirectional_loss_is_symmetric(maps, alpha, penalty, reduction, chunk):
    def loss(first, second):
        return float(feature_loss("bidirectional", first, second, alpha, penalty, 1.0, reduction, chunk))

    there, back = loss(*maps), loss(*maps[::-1])
    np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@given(maps=pairs_of_maps(), alpha=st.none() | st.floats(0, 1e4), name=ATTENTION_LOSSES, chunk=CHUNKS)
def test_a_map_has_no_distance_from_itself(maps, alpha, name, chunk):
    value, gradients = gradients_of(
        lambda a: feature_loss(name, a, maps[0].copy(), alpha, reduction="sum", chunk=chunk), maps[0]
    )
    size = maps[0].size * float(maps[0].max())
    assert float(value) <= 1e-9 * size**2
    assert np.isfinite(gradients[0]).all()


@pytest.mark.slow
@given(maps=pairs_of_maps(levels=(1.0,)), name=ATTENTION_LOSSES, chunk=CHUNKS, data=st.data())
def test_attention_losses_do_not_see_where_a_vector_is(maps, name, chunk, data):
    moved = [value[:, data.draw(st.permutations(range(value.shape[1])))] for value in maps]
    before = float(feature_loss(name, *maps, chunk=chunk))
    np.testing.assert_allclose(float(feature_loss(name, *moved, chunk=chunk)), before, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@given(seed=SEEDS, positions=st.integers(2, 5), data=st.data())
def test_the_direct_loss_sees_where_a_vector_is(seed, positions, data):
    values = np.random.default_rng(seed).standard_normal((1, positions, 4)).astype(np.float32)
    order = data.draw(st.permutations(range(positions)))
    assume(list(order) != sorted(order))
    moved = values[:, order]
    assert float(feature_loss("direct", values, moved)) > 1e-3
    assert float(feature_loss("bidirectional", values, moved)) < 1e-9
