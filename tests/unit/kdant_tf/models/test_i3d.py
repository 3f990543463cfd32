"""I3D against what DeepMind published: names, sizes, shapes; and as a Keras model."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdant_tf.config import SMALLEST_CROP
from kdant_tf.models.i3d import ENDPOINTS, build_i3d
from tf_records.schema import MAP_STRIDE

pytestmark = pytest.mark.slow

DEEPMIND = Path(__file__).resolve().parents[5] / "shared" / "data" / "i3d"
PARTS = {"kernel": "w", "bias": "b"}


@pytest.fixture(scope="module")
def published() -> keras.Model:
    """The network of the paper; never run."""
    return build_i3d(400, (8, 224, 224, 3), endpoints=ENDPOINTS)


@pytest.fixture(scope="module")
def small() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_i3d(4, (8, 32, 32, 3), width=0.0625, dropout=0.5, seed=1)


def random_clips(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def batch_norms(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_published_network_has_deepminds_weights(published):
    assert len(published.weights) == 230
    assert published.count_params() == 12_704_544


def test_endpoints_have_the_papers_shapes(published):
    shapes = {name: value.shape[1:] for name, value in published.output.items()}
    assert shapes["Mixed_4f"] == (2, 14, 14, 832)
    assert shapes["Conv3d_1a_7x7"] == (4, 112, 112, 64)
    assert shapes["Mixed_3c"] == (4, 28, 28, 480)
    assert shapes["Mixed_5c"] == (1, 7, 7, 1024)
    assert shapes["logits"] == (400,)


def test_endpoints_are_deepminds_in_order():
    assert ENDPOINTS == (
        "Conv3d_1a_7x7",
        "MaxPool3d_2a_3x3",
        "Conv3d_2b_1x1",
        "Conv3d_2c_3x3",
        "MaxPool3d_3a_3x3",
        "Mixed_3b",
        "Mixed_3c",
        "MaxPool3d_4a_3x3",
        "Mixed_4b",
        "Mixed_4c",
        "Mixed_4d",
        "Mixed_4e",
        "Mixed_4f",
        "MaxPool3d_5a_2x2",
        "Mixed_5b",
        "Mixed_5c",
    )


@pytest.mark.parametrize(("file", "channels"), [("rgb", 3), ("flow", 2)])
def test_every_weight_is_in_deepminds_checkpoint(file, channels):
    index = DEEPMIND / f"{file}_imagenet.ckpt.index"
    if not index.is_file():
        pytest.skip(f"no {index}")
    shapes = tf.train.load_checkpoint(str(index.with_suffix(""))).get_variable_to_shape_map()
    stored = {name.split("/inception_i3d/")[1]: _without_ones(shape) for name, shape in shapes.items()}
    network = build_i3d(400, (8, 224, 224, channels))
    expected = {}
    for weight in network.weights:
        layer, part = weight.path.rsplit("/", 1)
        expected[f"{layer.replace('.', '/')}/{PARTS.get(part, part)}"] = _without_ones(weight.shape)
    assert expected == stored


def _without_ones(shape) -> tuple[int, ...]:
    """Some checkpoints hold batch norm as [1, 1, 1, 1, C]."""
    return tuple(size for size in shape if size != 1)


def test_batch_norm_is_deepminds_with_the_momentum_asked_for():
    norms = batch_norms(build_i3d(2, (8, 32, 32, 3), width=0.0625, batch_norm_momentum=0.7))
    assert len(norms) == 57
    assert {(norm.scale, norm.center, norm.epsilon, norm.momentum) for norm in norms} == {
        (False, True, 1e-3, 0.7)
    }


def test_only_the_logits_have_a_bias(small):
    biased = [weight.path for weight in small.weights if weight.path.endswith("/bias")]
    assert biased == ["Logits.Conv3d_0c_1x1.conv_3d/bias"]


def test_width_multiplies_every_channel_but_the_classes(small):
    half = build_i3d(7, (8, 32, 32, 3), width=0.5)
    assert half.output["Mixed_4f"].shape[-1] == 416
    assert half.output["logits"].shape == (None, 7)
    assert small.output["Mixed_4f"].shape == (None, 2, 2, 2, 52)


def test_a_tiny_width_keeps_one_channel_everywhere():
    network = build_i3d(2, (8, 32, 32, 3), width=1e-6)
    assert network.output["Mixed_4f"].shape[-1] == 4


def test_a_clip_gives_logits_and_maps_of_the_shapes_announced(small):
    outputs = small(random_clips(2, 8, 32, 32, 3))
    assert set(outputs) == {"logits", "Mixed_4f"}
    assert outputs["logits"].shape == (2, 4)
    assert outputs["logits"].dtype == tf.float32
    assert outputs["Mixed_4f"].shape == (2, 2, 2, 2, 52)
    assert outputs["Mixed_4f"].numpy().min() >= 0


@pytest.mark.parametrize("shape", [(4, 33, 47, 3), (1, 32, 32, 3), (8, 32, 40, 2)])
def test_odd_sizes_short_clips_and_flow_run(shape):
    network = build_i3d(3, shape, width=0.0625)
    logits = network(random_clips(1, *shape))["logits"]
    assert logits.shape == (1, 3)
    assert np.isfinite(logits.numpy()).all()


def test_height_and_width_may_be_unknown():
    network = build_i3d(3, (4, None, None, 3), width=0.0625)
    for size in (32, 47):
        assert network(random_clips(1, 4, size, 33, 3))["logits"].shape == (1, 3)


def test_strides_are_those_that_settings_and_records_are_checked_by(published):
    """Configuration and records are read without Keras, and so hold the two numbers themselves."""
    assert 224 // published.output["Mixed_5c"].shape[-2] == SMALLEST_CROP
    assert 224 // published.output["MaxPool3d_4a_3x3"].shape[-2] == MAP_STRIDE


def test_without_endpoints_it_gives_logits_that_fit_takes():
    assert build_i3d(3, (4, 32, 32, 3), width=0.0625, endpoints=[]).output.shape == (None, 3)
    network = build_i3d(3, (4, 32, 32, 3), width=0.0625, endpoints=())
    assert network.output.shape == (None, 3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    history = network.fit(random_clips(4, 4, 32, 32, 3), np.array([0, 1, 2, 0]), verbose=0).history
    assert set(history) == {"accuracy", "loss"}
    assert np.isfinite(history["loss"]).all()


def test_dropout_acts_only_in_training(small):
    clips = random_clips(2, 8, 32, 32, 3)
    first, second = small(clips, training=False)["logits"], small(clips, training=False)["logits"]
    np.testing.assert_array_equal(first, second)
    copy = keras.models.clone_model(small)
    for norm in batch_norms(copy):
        norm.trainable = False
    trained = [copy(clips, training=True)["logits"].numpy() for _ in range(2)]
    assert np.abs(trained[0] - trained[1]).max() > 0
    still = [copy(clips, training=False)["logits"].numpy() for _ in range(2)]
    np.testing.assert_array_equal(*still)


def test_the_seed_of_the_weights_is_kerass():
    kernels = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        kernels.append(build_i3d(2, (8, 32, 32, 3), width=0.0625).weights[0].numpy())
    np.testing.assert_array_equal(*kernels)


def test_a_saved_network_gives_the_same_logits(small, tmp_path):
    small.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    clips = random_clips(2, 8, 32, 32, 3)
    for name, values in small(clips).items():
        np.testing.assert_array_equal(values, loaded(clips)[name])


def test_logits_are_float32_whatever_the_policy():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build_i3d(2, (8, 32, 32, 3), width=0.0625)
    finally:
        keras.config.set_dtype_policy(policy)
    assert network.output["logits"].dtype == "float32"
    assert network.output["Mixed_4f"].dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"float32"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoints": ("Mixed_4g",)}, r"`endpoints` should be among .*Mixed_4f.*Mixed_4g"),
        ({"input_shape": (None, 32, 32, 3)}, r"`input_shape` should be \(T, H, W, C\)"),
        ({"input_shape": (8, 32, 32, None)}, r"`input_shape` should be \(T, H, W, C\)"),
        ({"input_shape": (32, 32, 3)}, r"`input_shape` should be \(T, H, W, C\)"),
        ({"num_classes": 0}, r"`num_classes` should be at least 1.*Received: 0"),
        ({"width": 0.0}, r"`width` positive.*0\.0"),
        ({"width": float("nan")}, r"`width` positive.*nan"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_i3d(**{"num_classes": 2, "input_shape": (8, 32, 32, 3), **arguments})
