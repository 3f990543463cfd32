"""Image networks up to a layer as stems, and weights of backbones in Keras' own files."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kdant_tf.models.baselines import build_backbone, build_tsn
from kdant_tf.models.frame_stem import load_frame_stem, stride_of
from kdant_tf.models.i3d_stem import load_stem
from kdant_tf.models.weights import WeightsError, initialize

pytestmark = pytest.mark.slow

CLIPS = np.random.default_rng(0).uniform(-1, 1, (2, 3, 64, 96, 3)).astype("float32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a MobileNetV2 without its head, of the layout that keras.applications downloads."""
    keras.utils.set_random_seed(5)
    path = tmp_path_factory.mktemp("weights") / "backbone.weights.h5"
    build_backbone("MobileNetV2", (64, 64, 3)).layers[-1].save_weights(path)
    return path


def test_a_stem_is_the_network_of_each_frame_up_to_the_layer(weights: Path) -> None:
    stem = load_frame_stem("mobilenet_v2", "block_6_expand_relu", str(weights))
    network = build_backbone("MobileNetV2", (64, 96, 3)).layers[-1]
    network.load_weights(weights)
    expected = keras.Model(network.input, network.get_layer("block_6_expand_relu").output)
    maps = stem(CLIPS).numpy()
    assert maps.shape == (2, 3, 8, 12, 192)
    for made, clip in zip(maps, CLIPS, strict=True):
        np.testing.assert_allclose(made, expected(clip), rtol=1e-4, atol=1e-5)
    assert stride_of(stem) == 8


def test_a_stem_is_known_by_the_weights_that_it_uses(weights: Path) -> None:
    def stem(init: object, endpoint: str = "block_1_expand_relu"):
        return load_stem(str(init), modality="rgb", clip_frames=8, model="mobilenet_v2", endpoint=endpoint)

    known = stem(weights).weights_sha256
    assert stem(weights).weights_sha256 == known != stem("random").weights_sha256
    assert stem(weights, "block_2_expand_relu").weights_sha256 != known


def test_layers_that_there_are_not_are_answered_with_those_near(weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"Received: 'block_13_relu'. Near it: block_13_"):
        load_frame_stem("mobilenet_v2", "block_13_relu", "random")
    with pytest.raises(WeightsError, match="want --endpoint LAYER, such as out_relu"):
        load_stem("random", modality="rgb", clip_frames=8, model="mobilenet_v2")
    with pytest.raises(WeightsError, match=r"sees RGB. Received records of flow"):
        load_stem("random", modality="flow", clip_frames=8, model="mobilenet_v2", endpoint="out_relu")
    with pytest.raises(WeightsError, match="should be MaxPool3d_4a_3x3"):
        load_stem("random", modality="rgb", clip_frames=8, endpoint="out_relu")


def test_a_tsn_begins_with_the_weights_of_a_file(weights: Path) -> None:
    network = build_tsn(3, (4, 64, 64, 3), backbone="MobileNetV2", segments=2)
    initialize(network, str(weights), modality="rgb")
    loaded = build_backbone("MobileNetV2", (64, 64, 3))
    loaded.layers[-1].load_weights(weights)
    for ours, theirs in zip(network.get_layer("MobileNetV2").weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_weights_of_another_network_are_refused_as_a_whole(weights: Path, tmp_path: Path) -> None:
    network = build_tsn(3, (4, 64, 64, 3), backbone="ResNet50", segments=2)
    before = [variable.numpy() for variable in network.weights]
    with pytest.raises(WeightsError, match="does not hold the weights of ResNet50 without its head"):
        initialize(network, str(weights), modality="rgb")
    for variable, value in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="does not hold the weights of ResNet50"):
        initialize(network, str(damaged), modality="rgb")
    own = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    with pytest.raises(WeightsError, match="is for networks with one ImageNet backbone"):
        initialize(own, str(weights), modality="rgb")
