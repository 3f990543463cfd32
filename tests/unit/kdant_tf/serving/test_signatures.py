"""The signatures of an exported model, and what they refuse."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.models import inference
from kdant_tf.models.networks import load_network
from kdant_tf.runs import Run, load_run
from kdant_tf.serving.model import load_signatures
from kdant_tf.serving.signatures import Stream, make_signatures, open_streams
from tf_records.augment import crop_centrally, scale
from tf_records.errors import RunError
from tf_records.schema import FeatureInfo

pytestmark = pytest.mark.slow

FRAMES = 8
CLASSES = ["fall", "grow", "rise", "shrink"]


def random_clips(count: int, height: int = 48, width: int = 72, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, FRAMES, height, width, channels), dtype=np.uint8)


def encode(clips: np.ndarray, encoder: Callable = tf.io.encode_png) -> np.ndarray:
    """Strings of frames, `(B, T)`."""
    return np.array([[encoder(frame).numpy() for frame in clip] for clip in clips], dtype=object)


@pytest.fixture(scope="module")
def ask(exported: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Calls a signature of the loaded model."""
    loaded = load_signatures(exported)

    def call(signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in loaded[signature](**tensors).items()}

    return call


def test_every_signature_says_what_the_run_says(tiny_run: Path, ask: Callable) -> None:
    clips = random_clips(2)
    inputs = tf.reshape(crop_centrally(clips.reshape(-1, 48, 72, 3), 32), (2, FRAMES, 32, 32, 3))
    outputs = load_network(load_run(tiny_run))(inputs, training=False)
    expected = tf.nn.softmax(outputs["logits"]).numpy()
    named = [ask("serving_default", clips=clips), ask("encoded", frames=encode(clips))]
    for answer in named:
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        order = np.argsort(-answer["probabilities"], axis=1)
        texts = [[text.decode() for text in row] for row in answer["top_k_classes"]]
        assert texts == [[CLASSES[index] for index in row] for row in order]
        np.testing.assert_array_equal(
            answer["top_k_probabilities"], np.take_along_axis(answer["probabilities"], order, axis=1)
        )
    answer = ask("features", clips=clips)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    pooled = tf.reduce_mean(outputs["map"], axis=(1, 2, 3))
    np.testing.assert_allclose(answer["features"], pooled, rtol=1e-4, atol=1e-6)


def test_frames_of_one_clip_may_have_any_sizes_and_kinds(ask: Callable) -> None:
    frames = encode(random_clips(1))
    frames[0, 2] = tf.io.encode_jpeg(random_clips(1, 90, 50)[0, 0]).numpy()
    frames[0, 5] = tf.io.encode_png(random_clips(1, 1, 1, 1)[0, 0]).numpy()
    np.testing.assert_allclose(ask("encoded", frames=frames)["probabilities"].sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"BM", None])
def test_a_damaged_frame_is_named_and_the_model_lives(ask: Callable, damage: bytes | None) -> None:
    good = encode(random_clips(3), tf.io.encode_jpeg)
    bad = good.copy()
    bad[1, 6] = bad[1, 6][:300] if damage is None else damage
    with pytest.raises(tf.errors.InvalidArgumentError, match="Frame 6 of clip 1 should be a JPEG or PNG"):
        ask("encoded", frames=bad)
    bad[:] = bad[1, 6]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Frame 0 of clip 0 should be"):
        ask("encoded", frames=bad)
    assert ask("encoded", frames=good)["probabilities"].shape == (3, len(CLASSES))


@pytest.mark.parametrize(
    "shape", [(1, 7, 9, 9, 3), (8, 9, 9, 3), (0, 8, 9, 9, 3), (1, 8, 0, 9, 3), (1, 8, 9, 9, 2), (1,) * 6]
)
def test_clips_of_another_shape(ask: Callable, shape: tuple[int, ...]) -> None:
    for signature in ("serving_default", "features"):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            ask(signature, clips=np.zeros(shape, np.uint8))
        assert "`clips` should be uint8 of shape (B, 8, H, W, 3)" in str(error.value)
        assert f"Received shape: [{' '.join(map(str, shape))}]" in str(error.value)


@pytest.mark.parametrize("shape", [(1, 7), (8,), (0, 8), (1, 8, 2)])
def test_frames_of_another_shape(ask: Callable, shape: tuple[int, ...]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"`frames` should be strings.* shape \(B, 8\)"):
        ask("encoded", frames=np.full(shape, b"", dtype=object))


def tiny_stream(run: Run, modality: str, weight: float) -> Stream:
    keras.utils.set_random_seed(len(modality))
    channels = {"rgb": 3, "flow": 2}[modality]
    clip = layers.Input((FRAMES, 32, 32, channels))
    x = layers.Conv3D(2, (1, 9, 9), (4, 8, 8), name="map")(clip)
    logits = layers.Dense(4)(layers.Flatten()(x))
    network = keras.Model(clip, {"logits": logits, "map": x})
    return Stream(run=dataclasses.replace(run, modality=modality), network=network, weight=weight)


def test_two_streams_add_their_weighted_logits_and_join_their_features(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    streams = [tiny_stream(run, "rgb", 0.5), tiny_stream(run, "flow", 2.0)]
    module = make_signatures(streams)
    described = module.describe()
    assert set(described["serving_default"]["inputs"]) == {"clips", "flow_clips"}
    assert described["encoded"]["inputs"]["flow_frames"] == {"dtype": "string", "shape": [None, 8, 2]}
    clips = [random_clips(2), random_clips(2, channels=2)]
    logits, features = [], []
    for stream, values in zip(streams, clips, strict=True):
        cut = crop_centrally(values.reshape(-1, 48, 72, stream.channels), 32)
        outputs = stream.network(tf.reshape(cut, (2, FRAMES, 32, 32, stream.channels)))
        logits.append(stream.weight * outputs["logits"])
        features.append(tf.reduce_mean(outputs["map"], axis=(1, 2, 3)))
    answer = module.functions["features"](*map(tf.constant, clips))
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(sum(logits)), atol=1e-5)
    np.testing.assert_allclose(answer["features"], tf.concat(features, axis=-1), atol=1e-4)
    frames = np.array(
        [
            [[tf.io.encode_png(f[..., i : i + 1]).numpy() for i in range(2)] for f in clip]
            for clip in clips[1]
        ],
        dtype=object,
    )
    encoded = module.functions["encoded"](tf.constant(encode(clips[0])), tf.constant(frames))
    np.testing.assert_allclose(encoded["probabilities"], answer["probabilities"], atol=1e-5)


def test_a_run_on_features_of_whole_frames_sees_them_at_its_records_short_side(tiny_run: Path) -> None:
    run = dataclasses.replace(load_run(tiny_run), features=FeatureInfo(shape=(1, 4, 4, 8), source="random"))
    stream = Stream(run=run, network=None)
    right = tf.constant(random_clips(1, 64, 96)[0])
    np.testing.assert_array_equal(stream.prepare(right), scale(tf.cast(right, tf.float32)))
    assert stream.prepare(tf.constant(random_clips(1, 30, 20)[0])).shape == (FRAMES, 96, 64, 3)
    assert stream.prepared_shape == (FRAMES, None, None, 3)


def test_frames_that_are_not_cut_have_to_come_in_one_size(tiny_run: Path) -> None:
    """As those do of a run on features of whole frames."""
    from kdant_tf.serving.signatures import decode_clips

    frames = encode(random_clips(2))
    frames[1, 3] = tf.io.encode_png(random_clips(1, 40, 72)[0, 0]).numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[40 72\] for frame 3 of clip 1"):
        decode_clips(tf.constant(frames), lambda images: tf.cast(images, tf.float32))


def test_a_pair_is_one_of_rgb_and_one_of_flow_that_agree(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    with pytest.raises(RunError, match="one of RGB and one of flow"):
        open_streams([run, run])
    flow = dataclasses.replace(run, modality="flow", classes=("a", "b"))
    with pytest.raises(RunError, match="agree in `classes`"):
        open_streams([run, flow])


def test_features_of_a_stem_that_is_gone_or_another(tiny_run: Path) -> None:
    run, network = load_run(tiny_run), keras.Model()
    with pytest.raises(RunError, match="--stem is for runs trained on features"):
        open_streams([run], stem="kinetics", network=network)
    gone = FeatureInfo(shape=(1, 4, 4, 8), source="/nowhere/stem", weights_sha256="0")
    with pytest.raises(RunError, match=r"whose weights are not at /nowhere/stem. Put its"):
        open_streams([dataclasses.replace(run, features=gone)], network=network)


def operations_of(module: tf.Module) -> set[str]:
    """Kinds of all operations of the signature for clips, those of the functions that it calls included."""
    graph = module.functions["serving_default"].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def answers_of(folder: Path, clips: np.ndarray) -> np.ndarray:
    return load_signatures(folder)["serving_default"](clips=tf.constant(clips))["probabilities"].numpy()


def test_weights_are_constants_unless_they_are_too_large(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = tiny_stream(load_run(tiny_run), "rgb", 1.0)
    frozen = make_signatures([stream])
    assert not operations_of(frozen) & {"ReadVariableOp", "VarHandleOp"}
    monkeypatch.setattr(inference, "_LARGEST_CONSTANTS", 0)
    large = make_signatures([stream])
    assert "ReadVariableOp" in operations_of(large)
    for name, module in (("frozen", frozen), ("large", large)):
        tf.saved_model.save(module, str(tmp_path / name), signatures=dict(module.functions))
    # What the network learns later reaches neither.
    before = answers_of(tmp_path / "large", random_clips(1))
    stream.network.set_weights([weight + 1 for weight in stream.network.get_weights()])
    np.testing.assert_allclose(answers_of(tmp_path / "frozen", random_clips(1)), before, atol=1e-6)
    assert np.abs(before - before.mean()).max() > 1e-3


class LookUp(layers.Layer):
    """A layer of one's own that holds a table of TensorFlow's."""

    def __init__(self) -> None:
        super().__init__()
        pairs = tf.lookup.KeyValueTensorInitializer(tf.range(4), tf.constant([0.0, 1.0, 2.0, 3.0]))
        self.table = tf.lookup.StaticHashTable(pairs, -1.0)

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        return logits + self.table.lookup(tf.range(4))


def test_a_layer_may_hold_a_table(tiny_run: Path, tmp_path: Path) -> None:
    stream = tiny_stream(load_run(tiny_run), "rgb", 1.0)
    shifted = LookUp()(stream.network.output["logits"])
    network = keras.Model(stream.network.input, {"logits": shifted, "map": stream.network.output["map"]})
    module = make_signatures([dataclasses.replace(stream, network=network)])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=dict(module.functions))
    plain = make_signatures([stream]).functions["serving_default"](tf.constant(random_clips(1)))
    logits = np.log(plain["probabilities"].numpy()) + np.arange(4)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(answers_of(tmp_path / "1", random_clips(1)), expected, rtol=1e-4)
