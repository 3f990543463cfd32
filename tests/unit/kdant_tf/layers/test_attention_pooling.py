"""Properties of attention pooling (paper §3.2), and the layer as a Keras citizen."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kdant_tf.layers import attention_pooling
from kdant_tf.layers.attention_pooling import (
    BidirectionalAttentionPooling,
    attention_pool,
    bidirectional_attention_pool,
    flatten_positions,
    pays_to_compile,
)
from kdant_tf.training.strategy import make_strategy

NAMES = ("a_in_r", "a_in_a", "r_in_a", "r_in_r")


def random_map(seed: int, *shape: int) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def test_the_default_alpha_is_one_over_the_root_of_the_channels():
    queries, keys = random_map(1, 1, 3, 16), random_map(2, 1, 4, 16)
    default, explicit = attention_pool(queries, keys), attention_pool(queries, keys, 0.25)
    np.testing.assert_array_equal(ops.convert_to_numpy(default), ops.convert_to_numpy(explicit))
    other = ops.convert_to_numpy(attention_pool(queries, keys, 0.5))
    assert not np.allclose(ops.convert_to_numpy(default), other)


def test_a_map_with_one_position_pools_to_that_position():
    """As Mixed_5c of a 32-pixel clip of 8 frames has; without a warning about softmax."""
    queries, keys = random_map(1, 2, 3, 4), random_map(2, 2, 1, 4)
    pooled = ops.convert_to_numpy(attention_pool(queries, keys))
    np.testing.assert_allclose(pooled, np.repeat(keys, 3, axis=1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_any_float_input_gives_float32(dtype):
    first, second = ops.cast(random_map(1, 1, 3, 4), dtype), ops.cast(random_map(2, 1, 5, 4), dtype)
    assert attention_pool(first, second).dtype == tf.float32
    assert {v.dtype for v in bidirectional_attention_pool(first, second).values()} == {tf.float32}


def test_half_precision_input_is_pooled_in_float32():
    first = random_map(1, 1, 3, 4).astype(np.float16)
    second = random_map(2, 1, 5, 4).astype(np.float16)
    pooled = ops.convert_to_numpy(attention_pool(first, second))
    exact = ops.convert_to_numpy(attention_pool(first.astype(np.float32), second.astype(np.float32)))
    np.testing.assert_array_equal(pooled, exact)


def test_maps_that_do_not_fit_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"channels.*4 and 5"):
        attention_pool(random_map(1, 1, 3, 4), random_map(2, 1, 3, 5))
    with pytest.raises(ValueError, match=r"channels.*4 and 5"):
        bidirectional_attention_pool(random_map(1, 1, 3, 4), random_map(2, 1, 3, 5))
    with pytest.raises(ValueError, match=r"\(B, N, d\)"):
        attention_pool(random_map(1, 3, 4), random_map(2, 1, 3, 4))


def test_positions_are_flattened_in_row_order():
    feature_map = np.arange(2 * 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 2, 3, 4, 5)
    flat = ops.convert_to_numpy(flatten_positions(ops.convert_to_tensor(feature_map)))
    assert flat.shape == (2, 24, 5)
    np.testing.assert_array_equal(flat[1, (1 * 3 + 2) * 4 + 3], feature_map[1, 1, 2, 3])


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5), (1, 1, 1, 1, 1, 1)])
def test_maps_of_other_ranks_are_refused(shape):
    with pytest.raises(ValueError, match="feature map should be"):
        flatten_positions(np.zeros(shape, np.float32))


@pytest.mark.parametrize(("alpha", "chunk"), [(None, None), (0.3, 0), (2, 128)])
def test_layer_is_rebuilt_from_its_config(alpha, chunk):
    layer = BidirectionalAttentionPooling(alpha, chunk, name="pooling")
    config = layer.get_config()
    copy = BidirectionalAttentionPooling.from_config(config)
    assert (copy.alpha, copy.chunk, copy.name) == (alpha, chunk, "pooling")
    assert copy.get_config() == config


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_alpha_is_refused_where_it_is_negative_or_not_finite(alpha):
    message = r"`alpha` should be finite and not negative, or None\. Received"
    with pytest.raises(ValueError, match=message):
        BidirectionalAttentionPooling(alpha)
    with pytest.raises(ValueError, match=message):
        attention_pool(random_map(1, 1, 3, 4), random_map(2, 1, 3, 4), alpha)


MISFITS = [
    ((2, 3, 4), (2, 3, 5), r"same number of channels\. Received: 4 and 5"),
    ((2, 3, 4), (3, 3, 4), r"same batch size\. Received: 2 and 3"),
    ((2, 1, 2, 2, 4), (3, 5, 4), r"same batch size\. Received: 2 and 3"),
    ((2, 3, 4), (2, 2, 2, 4), r"A feature map should be .* \(2, 2, 2, 4\)"),
]


@pytest.mark.parametrize(("observed", "future", "message"), MISFITS)
def test_layer_refuses_maps_that_do_not_fit(observed, future, message):
    layer = BidirectionalAttentionPooling()
    with pytest.raises(ValueError, match=message):
        layer([random_map(1, *observed), random_map(2, *future)])
    with pytest.raises(ValueError, match=message):
        layer([keras.Input(batch_shape=observed), keras.Input(batch_shape=future)])
    with pytest.raises(ValueError, match=message):
        layer.compute_output_shape([observed, future])


@pytest.mark.parametrize(
    ("observed", "future"), [((2, 3, 4), (2, 5, 4)), ((2, 1, 2, 3, 4), (2, 2, 2, 1, 4)), ((1, 3, 4),) * 2]
)
def test_layer_computes_the_shapes_that_its_call_gives(observed, future):
    layer = BidirectionalAttentionPooling()
    outputs = layer([random_map(1, *observed), random_map(2, *future)])
    shapes = layer.compute_output_shape([observed, future])
    assert tuple(shapes) == NAMES
    assert {name: tuple(values.shape) for name, values in outputs.items()} == shapes
    spec = layer.compute_output_spec([keras.KerasTensor(observed), keras.KerasTensor(future)])
    assert {name: (value.shape, value.dtype) for name, value in spec.items()} == {
        name: (shape, "float32") for name, shape in shapes.items()
    }
    assert layer.weights == []


def test_layer_leaves_unknown_sizes_unknown():
    layer = BidirectionalAttentionPooling()
    shapes = layer.compute_output_shape([(None, 2, None, None, 8), (None, 2, 3, 3, 8)])
    assert shapes["a_in_r"] == (None, None, 8)
    assert shapes["r_in_a"] == (None, 18, 8)


@pytest.fixture(scope="module")
def pooling_model() -> keras.Model:
    observed, future = keras.Input((1, 2, 2, 4)), keras.Input((1, 2, 3, 4))
    return keras.Model([observed, future], BidirectionalAttentionPooling(0.3)([observed, future]))


def test_layer_comes_back_from_a_saved_model(pooling_model, tmp_path):
    pooling_model.save(tmp_path / "pooling.keras")
    loaded = keras.saving.load_model(tmp_path / "pooling.keras")
    clips = [random_map(1, 2, 1, 2, 2, 4), random_map(2, 2, 1, 2, 3, 4)]
    before, after = pooling_model(clips), loaded(clips)
    for name in NAMES:
        np.testing.assert_array_equal(before[name], after[name])


def test_layer_runs_in_a_function_of_unknown_sizes(pooling_model):
    layer = pooling_model.layers[-1]
    signature = [tf.TensorSpec((None, None, None, None, 4))] * 2
    function = tf.function(lambda observed, future: layer([observed, future]), input_signature=signature)
    maps = [tf.constant(random_map(1, 2, 1, 2, 2, 4)), tf.constant(random_map(2, 2, 1, 2, 3, 4))]
    eager = layer(maps)
    for name, values in function(*maps).items():
        np.testing.assert_allclose(values.numpy(), eager[name].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_layer_runs_on_two_devices():
    layer = BidirectionalAttentionPooling()
    observed, future = random_map(1, 2, 3, 4), random_map(2, 2, 5, 4)
    strategy = make_strategy("cpu:2")

    @tf.function
    def run(first, second):
        return strategy.run(lambda a, r: layer([a, r])["r_in_a"], args=(first, second))

    def one_row_each(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                values[context.replica_id_in_sync_group : context.replica_id_in_sync_group + 1]
            )
        )

    replicas = strategy.experimental_local_results(run(one_row_each(observed), one_row_each(future)))
    whole = layer([observed, future])["r_in_a"].numpy()
    np.testing.assert_allclose(np.concatenate(replicas), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_gradients_flow_through_the_layer_to_both_maps():
    observed, future = tf.Variable(random_map(1, 1, 3, 4)), tf.Variable(random_map(2, 1, 5, 4))
    layer = BidirectionalAttentionPooling(jit_compile=True)

    def gradients(pool):
        with tf.GradientTape() as tape:
            total = tf.add_n([tf.reduce_sum(values**2) for values in pool(observed, future).values()])
        return tape.gradient(total, [observed, future])

    compiled = gradients(lambda a, r: layer([a, r]))
    plain = gradients(bidirectional_attention_pool)
    for gradient, expected in zip(compiled, plain, strict=True):
        assert np.abs(expected.numpy()).max() > 0
        np.testing.assert_allclose(gradient.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_layer_pools_in_float32_under_a_half_precision_policy(policy):
    maps = [1e3 * random_map(1, 1, 3, 4), 1e3 * random_map(2, 1, 5, 4)]
    expected = BidirectionalAttentionPooling()(maps)
    for name, values in BidirectionalAttentionPooling(dtype=policy)(maps).items():
        assert values.dtype == tf.float32
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_model_ends_in_float32_pooling(policy):
    inputs = [keras.Input((2, 2, 2, 4)), keras.Input((5, 4))]
    maps = [keras.layers.Dense(3, dtype=policy)(value) for value in inputs]
    model = keras.Model(inputs, BidirectionalAttentionPooling(dtype=policy)(maps))
    assert {value.dtype for value in model.output.values()} == {"float32"}
    outputs = model([random_map(1, 2, 2, 2, 2, 4), random_map(2, 2, 5, 4)])
    assert {values.dtype for values in outputs.values()} == {tf.float32}


def compiled_pooling(layer: BidirectionalAttentionPooling) -> str:
    """What XLA is given for maps of 6 and 10 positions."""
    maps = [tf.constant(random_map(seed, 2, positions, 4)) for seed, positions in ((1, 6), (2, 10))]
    assert layer.jit_compile is True
    function = layer._pool.get_concrete_function(*maps, layer.alpha, layer.chunk)
    assert function.function_def.attr["_XlaMustCompile"].b
    return layer._pool.experimental_get_compiler_ir(*maps, layer.alpha, layer.chunk)(stage="hlo")


@pytest.mark.parametrize(("devices", "compiled"), [(["CPU"], False), (["CPU", "GPU"], True)])
def test_layer_is_compiled_by_xla_where_there_is_a_gpu_unless_told_otherwise(monkeypatch, devices, compiled):
    asked = []
    seen = [tf.config.PhysicalDevice(name=f"{kind}:0", device_type=kind) for kind in devices]
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda: seen)
    monkeypatch.setattr(
        attention_pooling,
        "compile_with_xla",
        lambda function: lambda *arguments: asked.append(True) or function(*arguments),
    )
    maps = [random_map(1, 1, 3, 4), random_map(2, 1, 5, 4)]
    for jit_compile, expected in (("auto", compiled), (True, True), (False, False)):
        asked.clear()
        layer = BidirectionalAttentionPooling(jit_compile=jit_compile)
        pooled = layer(maps)["a_in_r"]
        assert bool(asked) is expected
        np.testing.assert_allclose(pooled, bidirectional_attention_pool(*maps)["a_in_r"], rtol=1e-6)
        assert BidirectionalAttentionPooling.from_config(layer.get_config()).jit_compile == jit_compile


@pytest.mark.parametrize(
    ("chunk", "shape", "expected"),
    [
        (None, (2, 1023, 4), False),
        (None, (2, 4, 16, 16, 4), True),
        (None, (2, 4, None, None, 4), False),
        (0, (2, 1024, 4), False),
        (8, (2, 16, 4), True),
    ],
)
def test_on_a_cpu_xla_compiles_what_is_pooled_in_blocks(chunk, shape, expected):
    assert pays_to_compile(chunk, (2, 3, 4), shape) is expected


def test_layer_saved_before_it_could_be_told_loads():
    config = BidirectionalAttentionPooling(0.3).get_config()
    del config["jit_compile"]
    assert BidirectionalAttentionPooling.from_config(config).jit_compile == "auto"


def test_layer_refuses_another_word_for_compiling():
    with pytest.raises(ValueError, match=r"`jit_compile` should be True, False or 'auto'\. Received: 'xla'"):
        BidirectionalAttentionPooling(jit_compile="xla")


def test_layer_is_one_computation_of_seven_products():
    program = compiled_pooling(BidirectionalAttentionPooling(jit_compile=True))
    assert program.count(" dot(") == 7
    assert "f32[2,10,10]" in program


def test_layer_in_blocks_is_one_computation_without_whole_matrices():
    program = compiled_pooling(BidirectionalAttentionPooling(chunk=3, jit_compile=True))
    assert program.count(" while(") == 4
    for whole in ("6,6", "6,10", "10,6", "10,10"):
        assert f"f32[2,{whole}]" not in program
