"""attention_pool and BidirectionalAttentionPooling against the equations written out (paper eq. 4-6)."""

import numpy as np
from golden_reference import pool
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from kdant_tf.layers.attention_pooling import (
    attention_pool,
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
