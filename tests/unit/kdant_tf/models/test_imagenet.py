"""Backbones see [-1, 1]; each gets the pixels that its ImageNet weights were learned on."""

import keras
import numpy as np
import pytest
from keras import applications, layers

from kdant_tf.models.baselines import BACKBONES, build_backbone, fold_frames


@pytest.fixture
def pixels() -> np.ndarray:
    """RGB frames in 0 … 255."""
    return np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def seen_by(name: str, frames: np.ndarray, monkeypatch) -> np.ndarray:
    """What backbone `name` is given: a backbone that hands its input on takes its place."""

    def build(include_top, weights, input_shape):
        inputs = layers.Input(input_shape)
        return keras.Model(inputs, layers.Identity()(inputs))

    monkeypatch.setitem(BACKBONES, name, BACKBONES[name]._replace(build=build))
    return build_backbone(name, frames.shape[1:])(frames).numpy()


@pytest.mark.parametrize("name", ["ResNet50", "ResNet101", "ResNet152", "MobileNetV2"])
def test_pixels_are_those_of_keras_applications(name, pixels, monkeypatch):
    family = applications.resnet if name.startswith("ResNet") else applications.mobilenet_v2
    expected = family.preprocess_input(pixels.copy())
    seen = seen_by(name, pixels / 127.5 - 1, monkeypatch)
    np.testing.assert_allclose(seen, expected, atol=1e-4)
    assert (seen.min() < -90) == name.startswith("ResNet")


def test_mobilenet_gets_the_frames_as_they_are(pixels, monkeypatch):
    frames = pixels / 127.5 - 1
    np.testing.assert_array_equal(seen_by("MobileNetV2", frames, monkeypatch), frames)


@pytest.mark.slow
def test_the_backbone_is_keras_applications_without_its_head(pixels):
    backbone = build_backbone("MobileNetV2", (32, 32, 3), batch_norm_momentum=0.7)
    assert backbone.name == "MobileNetV2"
    assert backbone.output.shape == (None, 1, 1, 1280)
    plain = applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    plain.set_weights(backbone.get_weights())
    frames = applications.mobilenet_v2.preprocess_input(pixels.copy())
    np.testing.assert_allclose(backbone(pixels / 127.5 - 1), plain(frames), atol=1e-5)
    inner = next(layer for layer in backbone.layers if isinstance(layer, keras.Model))
    momenta = {norm.momentum for norm in inner.layers if isinstance(norm, layers.BatchNormalization)}
    assert momenta == {0.7}


def test_the_momentum_stays_the_backbones_own_unless_given(tiny_backbone):
    for given, expected in ((None, 0.99), (0.5, 0.5)):
        network = build_backbone(tiny_backbone, (32, 32, 3), batch_norm_momentum=given)
        inner = next(layer for layer in network.layers if isinstance(layer, keras.Model))
        assert inner.get_layer("norm").momentum == expected


def test_frames_are_folded_in_order():
    clip = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2, 1).astype(np.float32)
    np.testing.assert_array_equal(fold_frames(keras.ops.convert_to_tensor(clip)), clip.reshape(6, 2, 2, 1))


def test_unknown_names_and_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"`name` should be one of ResNet50, .* Received: 'VGG16'"):
        build_backbone("VGG16", (32, 32, 3))
    with pytest.raises(ValueError, match=r"ResNet50 sees RGB frames of 3 channels.*\(32, 32, 2\)"):
        build_backbone("ResNet50", (32, 32, 2))
