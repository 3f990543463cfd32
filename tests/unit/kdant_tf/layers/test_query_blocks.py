"""Pooling and losses for blocks of queries: the same numbers, and no whole matrix of weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.layers.attention_pooling import (
    BidirectionalAttentionPooling,
    attention_pool,
    bidirectional_attention_pool,
    block_limit,
    fold_blocks,
    take_block,
)
from kdant_tf.losses.features import feature_loss
from kdant_tf.training.strategy import make_strategy

CHUNKS = st.integers(1, 9)


def random_map(seed: int, *shape: int) -> np.ndarray:
    return np.maximum(2 * np.random.default_rng(seed).standard_normal(shape), 0).astype(np.float32)


def gradients_of(function, *points):
    tensors = [tf.convert_to_tensor(point) for point in points]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return value, tape.gradient(value, tensors)


def assert_same(received, expected):
    largest = np.abs(expected).max()
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5 * largest + 1e-12)


@given(positions=st.integers(1, 40), limit=st.integers(1, 50))
def test_blocks_cover_every_query_once(positions, limit):
    values = tf.reshape(tf.range(1.0, positions + 1), (1, positions, 1))

    def step(total, begin, size, fresh):
        assert size <= min(limit, positions)
        return total + tf.reduce_sum(fresh * take_block(values, begin, size))

    assert float(fold_blocks(step, tf.zeros(()), values, limit)) == positions * (positions + 1) / 2


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 7),
    keys=st.integers(1, 7),
    alpha=st.none() | st.floats(0, 1),
    chunk=CHUNKS,
)
def test_pooling_in_blocks_has_the_values_and_gradients_of_the_whole(seed, queries, keys, alpha, chunk):
    maps = random_map(seed, 2, queries, 3), random_map(seed + 1, 2, keys, 3)
    weights = np.random.default_rng(seed).standard_normal((2, queries, 3)).astype(np.float32)

    def pooled(chunk):
        return gradients_of(lambda q, s: tf.reduce_sum(weights * attention_pool(q, s, alpha, chunk)), *maps)

    (value, gradients), (expected, expected_gradients) = pooled(chunk), pooled(0)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-4)
    for received, whole in zip(gradients, expected_gradients, strict=True):
        assert_same(received.numpy(), whole.numpy())


def test_maps_of_1024_positions_are_pooled_in_blocks_unless_chunk_says_otherwise():
    small, large, unknown = (tf.TensorSpec((2, size, 4)) for size in (1023, 1024, None))
    limits = [
        block_limit(None, small, small),
        block_limit(None, small, large),
        block_limit(0, large, large),
        block_limit(7, small, small),
        block_limit(None, unknown, small),
        block_limit(None, keras.KerasTensor((2, 1024, 4))),
    ]
    assert limits == [0, 256, 0, 7, 0, 0]


@pytest.mark.parametrize("name", ["unidirectional", "bidirectional"])
def test_compiled_loss_in_blocks_holds_no_whole_matrix(name):
    maps = tf.zeros((2, 8, 5)), tf.zeros((2, 11, 5))

    def program(chunk):
        def run(student, teacher):
            return gradients_of(lambda a: feature_loss(name, a, teacher, chunk=chunk), student)

        compiled = tf.function(run, jit_compile=True, autograph=False)
        return compiled.experimental_get_compiler_ir(*maps)(stage="hlo")

    assert "f32[2,11,8]" in program(0)
    in_blocks = program(4)
    for whole in ("8,8", "8,11", "11,8", "11,11"):
        assert f"f32[2,{whole}]" not in in_blocks
    assert "f32[2,4,8]" in in_blocks


def test_large_maps_turn_blocks_on_by_themselves():
    maps = tf.zeros((1, 1024, 2)), tf.zeros((1, 3, 2))
    compiled = tf.function(
        lambda a, r: feature_loss("bidirectional", a, r), jit_compile=True, autograph=False
    )
    assert "f32[1,1024,1024]" not in compiled.experimental_get_compiler_ir(*maps)(stage="hlo")


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("chunk", [2, 100])
def test_blocks_of_maps_whose_sizes_are_unknown(chunk, compiled):
    function = tf.function(
        lambda student, teacher: feature_loss("bidirectional", student, teacher, chunk=chunk),
        input_signature=[tf.TensorSpec((None, None, None, None, 4))] * 2,
        jit_compile=compiled,
        autograph=False,
    )
    maps = random_map(1, 2, 1, 2, 3, 4), random_map(2, 2, 1, 1, 5, 4)
    value, (gradient, _) = gradients_of(function, *maps)
    expected, (whole, _) = gradients_of(lambda a, r: feature_loss("bidirectional", a, r, chunk=0), *maps)
    assert_same(float(value), float(expected))
    assert_same(gradient.numpy(), whole.numpy())


@pytest.mark.slow
def test_blocks_run_on_two_devices():
    strategy = make_strategy("cpu:2")
    maps = [tf.constant(random_map(seed, 2, positions, 4)) for seed, positions in ((1, 5), (2, 7))]
    layer = BidirectionalAttentionPooling(chunk=3)

    @tf.function(autograph=False)
    def run():
        def of_a_replica():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            return layer([value[number : number + 1] for value in maps])["r_in_a"]

        return strategy.run(of_a_replica)

    replicas = strategy.experimental_local_results(run())
    whole = bidirectional_attention_pool(*maps, chunk=0)["r_in_a"].numpy()
    np.testing.assert_allclose(np.concatenate(replicas), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [-1, 2.0, "8"])
def test_chunk_is_refused_where_it_is_no_whole_number(chunk):
    message = "`chunk` should be a number of queries, 0 or None. Received"
    with pytest.raises(ValueError, match=message):
        BidirectionalAttentionPooling(chunk=chunk)
    with pytest.raises(ValueError, match=message):
        feature_loss("bidirectional", random_map(1, 1, 3, 4), random_map(2, 1, 3, 4), chunk=chunk)


def test_functions_in_a_functional_model_ignore_chunk():
    inputs = [keras.Input((3, 4)), keras.Input((5, 4))]
    model = keras.Model(inputs, bidirectional_attention_pool(*inputs, chunk=2))
    maps = [random_map(1, 2, 3, 4), random_map(2, 2, 5, 4)]
    expected = bidirectional_attention_pool(*maps, chunk=0)
    for name, values in model(maps).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
