"""The stem that makes features and the head that learns from them: whose weights they have."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kdant_tf.config import TrainConfig
from kdant_tf.models.i3d import ENDPOINTS, build_i3d, endpoint_channels, endpoint_layer
from kdant_tf.models.i3d_stem import Stem, build_head, load_stem
from kdant_tf.models.networks import load_network
from kdant_tf.models.weights import WeightsError
from kdant_tf.runs import load_run

pytestmark = pytest.mark.slow

CLIP = (8, 32, 32, 3)
MAP = np.random.default_rng(0).uniform(0, 1, (2, 2, 2, 2, 30)).astype(np.float32)


def stem_of(init: Path) -> Stem:
    return load_stem(str(init), modality="rgb", clip_frames=8)


def head_of(init: object, num_classes: int = 4) -> keras.Model:
    config = TrainConfig(width=0.0625, crop=32, init=str(init))
    keras.utils.set_random_seed(1)
    return build_head(
        config,
        ("fall", "grow", "rise", "shrink", "spin")[:num_classes],
        CLIP,
        modality="rgb",
        load_weights=True,
    )


def weights_of(network: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in network.weights}


def test_a_run_and_its_keras_file_are_the_same_stem(finished_run: Path) -> None:
    run, file = stem_of(finished_run), stem_of(finished_run / "model.keras")
    assert run.weights_sha256 == file.weights_sha256
    assert (run.width, run.source) == (0.0625, str(finished_run))
    assert run.network.output.shape == (None, None, None, None, 30)
    network = load_network(load_run(finished_run))
    endpoint = keras.Model(network.input, endpoint_layer(network, "MaxPool3d_4a_3x3").output)
    clip = np.random.default_rng(0).uniform(-1, 1, (1, *CLIP)).astype(np.float32)
    np.testing.assert_array_equal(run.network(clip), endpoint(clip))


def test_other_weights_are_another_stem(finished_run: Path, tmp_path: Path) -> None:
    network = build_i3d(4, CLIP, width=0.0625)
    network.save(tmp_path / "other.keras")
    assert stem_of(tmp_path / "other.keras").weights_sha256 != stem_of(finished_run).weights_sha256


def test_a_random_stem_is_always_the_same_one() -> None:
    first, second = (load_stem("random", modality="rgb", clip_frames=8) for _ in range(2))
    assert first.weights_sha256 == second.weights_sha256
    assert (first.width, first.network.output.shape[-1]) == (1.0, 480)


def test_an_rgb_network_makes_no_features_of_flow(finished_run: Path) -> None:
    with pytest.raises(WeightsError, match="is an I3D for 3 channels, the records have 2"):
        load_stem(str(finished_run), modality="flow", clip_frames=8)


def test_a_head_begins_with_the_weights_of_a_whole_network_or_of_a_head(
    finished_run: Path, tmp_path: Path
) -> None:
    whole = weights_of(load_network(load_run(finished_run)))
    head = head_of(finished_run)
    assert {path: whole[path].tolist() for path in weights_of(head)} == {
        path: value.tolist() for path, value in weights_of(head).items()
    }
    head.save(tmp_path / "head.keras")
    again = head_of(tmp_path / "head.keras")
    np.testing.assert_array_equal(again(MAP)["logits"], head(MAP)["logits"])
    other_classes = weights_of(head_of(tmp_path / "head.keras", num_classes=5))
    fresh = weights_of(head_of("random", num_classes=5))
    for path, value in other_classes.items():
        expected = fresh[path] if path.startswith("Logits") else whole[path]
        np.testing.assert_array_equal(value, expected, err_msg=path)


def test_the_channels_of_an_endpoint_are_those_that_are_built() -> None:
    width = 0.1  # At which rounding matters
    network = build_i3d(2, CLIP, width=width)
    for endpoint in ENDPOINTS:
        built = endpoint_layer(network, endpoint).output.shape[-1]
        assert endpoint_channels(endpoint, width) == built, endpoint
