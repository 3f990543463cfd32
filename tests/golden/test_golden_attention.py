"""attention_pool and BidirectionalAttentionPooling against the equations written out (paper eq. 4-6)."""

import numpy as np
import pytest
from golden_reference import flatten, pool
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from kdant_tf.layers.attention_pooling import (
    BidirectionalAttentionPooling,
    attention_pool,
    bidirectional_attention_pool,
)


def random_map(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """float32 activations after ReLU: about half of them are 0."""
    values = scale * np.random.default_rng(seed).standard_normal(shape)
    return np.maximum(values, 0).astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 2),
    queries=st.integers(1, 5),
    keys=st.integers(1, 6),
    channels=st.integers(1, 7),
    alpha=st.none() | st.floats(0, 2.0),
    chunk=st.none() | st.integers(1, 6),
)
def test_attention_pool_is_equation_5(seed, batch, queries, keys, channels, alpha, chunk):
    first = random_map(seed, batch, queries, channels)
    second = random_map(seed + 1, batch, keys, channels)
    pooled = ops.convert_to_numpy(attention_pool(first, second, alpha, chunk))
    np.testing.assert_allclose(pooled, pool(first, second, alpha), rtol=1e-5, atol=1e-6)


def test_attention_pool_by_hand():
    # Similarities ln 1 and ln 3 with alpha 1: weights 1/4 and 3/4.
    query = np.array([[[1.0, 0.0]]], dtype=np.float32)
    keys = np.array([[[0.0, 8.0], [np.log(3.0), 0.0]]], dtype=np.float32)
    pooled = ops.convert_to_numpy(attention_pool(query, keys, 1.0))
    np.testing.assert_allclose(pooled, [[[0.75 * np.log(3.0), 2.0]]], rtol=1e-6)


@pytest.mark.parametrize("alpha", [None, 0.3])
@pytest.mark.parametrize(
    ("observed_shape", "future_shape"),
    [
        ((2, 5, 6), (2, 5, 6)),
        ((2, 3, 6), (2, 7, 6)),
        ((2, 2, 2, 3, 4), (2, 2, 2, 3, 4)),
        ((2, 1, 3, 2, 4), (2, 2, 2, 3, 4)),
        ((2, 2, 1, 3, 4), (2, 5, 4)),
    ],
)
def test_layer_gives_the_four_poolings(observed_shape, future_shape, alpha):
    observed, future = random_map(1, *observed_shape), random_map(2, *future_shape)
    a, r = flatten(observed), flatten(future)
    pooled = BidirectionalAttentionPooling(alpha)([observed, future])
    expected = {
        "a_in_r": pool(a, r, alpha),
        "a_in_a": pool(a, a, alpha),
        "r_in_a": pool(r, a, alpha),
        "r_in_r": pool(r, r, alpha),
    }
    assert set(pooled) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(pooled[name]), values, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_function_and_layer_agree_without_compilation():
    observed, future = random_map(3, 2, 4, 5), random_map(4, 2, 6, 5)
    compiled = BidirectionalAttentionPooling(0.7)([observed, future])
    for name, values in bidirectional_attention_pool(observed, future, 0.7).items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(compiled[name]), ops.convert_to_numpy(values), rtol=1e-5, atol=1e-6
        )
