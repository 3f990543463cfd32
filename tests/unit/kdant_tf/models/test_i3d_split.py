"""I3D cut in two: a stem whose maps can be kept, and a head that learns from them."""

import keras
import numpy as np
import pytest

from kdant_tf.models.i3d import ENDPOINTS, build_i3d, endpoint_layer, split_i3d

pytestmark = pytest.mark.slow

CLIP = (8, 32, 32, 3)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """With its last map given out, so that it can be cut at all but one endpoint."""
    keras.utils.set_random_seed(0)
    return build_i3d(4, CLIP, width=0.0625, endpoints=("Mixed_5c",))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, *CLIP)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(network, clip) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network(clip).items()}


@pytest.mark.parametrize("endpoint", ENDPOINTS[:-1])
def test_head_of_stem_is_the_network_bit_for_bit(network, clip, expected, endpoint):
    stem, head = split_i3d(network, endpoint)
    outputs = head(stem(clip))
    assert set(outputs) == {"logits", "Mixed_5c"}
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert stem.output.shape[-1] == endpoint_layer(network, endpoint).output.shape[-1]
    own = {id(variable) for variable in network.weights}
    assert {id(variable) for variable in (*stem.weights, *head.weights)} == own
    assert len(stem.weights) + len(head.weights) == len(own)


def test_the_last_endpoint_is_legal_where_no_map_is_given_out(network, clip, expected):
    without_map = keras.Model(network.input, {"logits": network.output["logits"]})
    stem, head = split_i3d(without_map, "Mixed_5c")
    np.testing.assert_array_equal(head(stem(clip))["logits"], expected["logits"])


def test_a_network_of_logits_alone_is_cut_too(clip):
    classifier = build_i3d(4, CLIP, width=0.0625, endpoints=())
    stem, head = split_i3d(classifier, "Mixed_5c")
    np.testing.assert_array_equal(head(stem(clip)), classifier(clip))


def test_the_papers_stem_makes_its_map_of_32_frames():
    """32x256x456 → 8x16x29x480 (§4.3), of a network that was built for other clips."""
    stem, head = split_i3d(build_i3d(2, (32, 224, 224, 3)))
    maps = stem(keras.KerasTensor((1, 32, 256, 456, 3)))
    assert maps.shape == (1, 8, 16, 29, 480)
    assert head(maps)["Mixed_4f"].shape == (1, 8, 16, 29, 832)


def test_the_stem_takes_any_clip_and_the_head_any_height_and_width(network):
    stem, head = split_i3d(network)
    long = np.random.default_rng(1).uniform(-1, 1, (1, 12, 48, 40, 3)).astype(np.float32)
    maps = stem(long)
    assert maps.shape == (1, 3, 3, 3, 30)
    assert head.input.shape == (None, 2, None, None, 30)
    twin = build_i3d(4, (8, None, None, 3), width=0.0625, endpoints=("Mixed_5c",))
    twin.set_weights(network.get_weights())
    wide = np.random.default_rng(2).uniform(-1, 1, (1, 8, 47, 64, 3)).astype(np.float32)
    for name, value in twin(wide).items():
        np.testing.assert_array_equal(head(stem(wide))[name], value)


def test_what_the_head_learns_the_network_knows(network, clip):
    stem, head = split_i3d(network)
    before = network(clip)["logits"].numpy()
    bias = head.weights[-1]
    bias.assign(bias + 1.0)
    np.testing.assert_allclose(network(clip)["logits"], before + 1.0, rtol=1e-5)
    bias.assign(bias - 1.0)
    assert not {id(variable) for variable in head.weights} & {id(variable) for variable in stem.weights}


@pytest.mark.parametrize(
    ("endpoints", "cut"),
    [
        (("Mixed_4f",), "Mixed_4g"),
        (("Mixed_4f",), "logits"),
        (("Mixed_4f",), "Mixed_4f"),
        (("Mixed_4f",), "Mixed_5b"),
        (("MaxPool3d_2a_3x3", "Mixed_4f"), "MaxPool3d_4a_3x3"),
        (("Mixed_5c",), "Mixed_5c"),
    ],
)
def test_a_cut_that_is_none_or_too_late_is_refused(network, endpoints, cut):
    maps = {name: endpoint_layer(network, name).output for name in endpoints}
    network = keras.Model(network.input, {**maps, "logits": network.output["logits"]})
    message = rf"`endpoint` should be one of .*come before the network's outputs .* Received: '{cut}'"
    with pytest.raises(ValueError, match=message):
        split_i3d(network, cut)
