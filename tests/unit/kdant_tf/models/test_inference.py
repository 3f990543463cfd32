"""Engines and precisions: equal answers within their tolerance, whatever the network, and `auto`'s choice."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tiny_network import build

from kdant_tf.models import inference
from kdant_tf.models.i3d import build_i3d, split_i3d
from kdant_tf.models.inference import ENGINES, OPENVINO, Engine, compile_inference, freeze, open_inference
from tf_records.errors import KdantError, RunError

SHAPE = (8, 32, 32, 3)


def clips_of(count: int, shape=SHAPE) -> tf.Tensor:
    return tf.constant(np.random.default_rng(1).uniform(-1, 1, (count, *shape)).astype(np.float32))


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build(4, SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_answers_of_any_number_of_clips_are_those_of_the_network(network, engine, precision, tolerance):
    if engine == OPENVINO:
        pytest.importorskip("openvino")
    opened = open_inference(network, Engine(name=engine, precision=precision))
    assert (opened.engine, opened.precision) == (engine, precision)
    for count in (1, 3, 2):
        expected = compile_inference(network)(clips_of(count)).numpy()
        given = opened(clips_of(count))
        assert (given.dtype, given.shape) == (np.float32, (count, 4))
        np.testing.assert_allclose(given, expected, atol=tolerance)
        if precision == "bfloat16":
            assert np.abs(given - expected).max() > 0, "it is computed in float32"


@pytest.mark.slow
def test_the_network_itself_goes_on_in_float32(network):
    before = compile_inference(network)(clips_of(2)).numpy()
    open_inference(network, Engine(precision="bfloat16"))
    assert {layer.dtype_policy.name for layer in network.layers} == {"float32"}
    np.testing.assert_array_equal(compile_inference(network)(clips_of(2)).numpy(), before)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_head_of_an_i3d_takes_maps_of_any_size(engine):
    if engine == OPENVINO:
        pytest.importorskip("openvino")
    _, head = split_i3d(build_i3d(3, (8, 64, 64, 3), width=0.0625, seed=0))
    opened = open_inference(head, Engine(name=engine, precision="bfloat16"))
    for side in (4, 7):
        maps = clips_of(2, (2, side, side, head.input.shape[-1]))
        np.testing.assert_allclose(opened(maps), compile_inference(head)(maps), atol=0.02)


def test_an_answer_that_is_no_number_is_given_in_float32(network, monkeypatch):
    calls = []

    def spoil(function, *args):
        def sometimes(clips):
            calls.append(clips)
            given = function(clips)
            return {name: values * (np.nan if len(calls) == 3 else 1.0) for name, values in given.items()}

        return sometimes

    monkeypatch.setattr(inference, "freeze", spoil)
    opened = open_inference(network, Engine(precision="bfloat16"))
    for _ in range(2):  # the third call, and one more, after two on drawn clips
        np.testing.assert_allclose(opened(clips_of(2)), compile_inference(network)(clips_of(2)), atol=1e-6)
    assert len(calls) == 4


def test_frozen_weights_do_not_follow_the_network(network):
    answer = freeze(lambda clips: network(clips)["logits"], [network], [tf.TensorSpec((None, *SHAPE))])
    before = answer(clips_of(1)).numpy()
    weights = network.get_weights()
    network.set_weights([2 * each for each in weights])
    np.testing.assert_array_equal(answer(clips_of(1)), before)
    network.set_weights(weights)
    assert not answer.captured_inputs


@pytest.mark.slow
def test_what_the_converter_does_not_know_is_one_sentence():
    pytest.importorskip("openvino")

    @keras.saving.register_keras_serializable("tests")
    class Sorted(layers.Layer):
        def call(self, x):
            return tf.numpy_function(np.sort, [x], tf.float32)

        def compute_output_shape(self, shape):
            return shape

    clip = layers.Input((4,))
    logits = layers.Dense(2)(Sorted()(clip))
    with pytest.raises(RunError, match=r"The engine openvino cannot compute it in float32: .*Leave --engine"):
        open_inference(keras.Model(clip, {"logits": logits}), Engine(name="openvino"), name="it")


@pytest.mark.parametrize("has_bfloat16", [True, False])
@pytest.mark.slow
def test_auto_is_bfloat16_where_the_processor_has_it(network, monkeypatch, has_bfloat16):
    monkeypatch.setattr(inference, "processor_has_bfloat16", lambda: has_bfloat16)
    lines = []
    engine = Engine(precision="auto", report=lines.append)
    chosen = "bfloat16" if has_bfloat16 else "float32"
    assert open_inference(network, engine).precision == chosen
    assert f"network: engine tensorflow, {chosen}, chosen for this processor; " in lines[0]


def test_flags_of_the_processor(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(inference, "_CPUINFO", cpuinfo)
    assert not inference.processor_has_bfloat16()
    for flags, has in (("avx2 avx512f", False), ("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True)):
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t:\n")
        assert inference.processor_has_bfloat16() is has


def test_other_names_are_refused():
    with pytest.raises(KdantError, match=r"`engine` should be tensorflow or openvino. Received: 'onnx'"):
        Engine(name="onnx")
    with pytest.raises(KdantError, match=r"`precision` should be auto or float32 or bfloat16"):
        Engine(precision="float16")
