"""Frame features with an MLP on top: the stem is frozen, probabilities are averaged over frames."""

import keras
import numpy as np
import pytest

from kdant_tf.models.baselines import HEAD, STEM, build_frame_mlp
from kdant_tf.training.distiller import Distiller

CLIP = (4, 32, 32, 3)


def build(backbone: str, dropout: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_frame_mlp(5, CLIP, backbone, hidden=32, dropout=dropout, seed=0)


@pytest.fixture
def network(tiny_backbone) -> keras.Model:
    return build(tiny_backbone)


@pytest.fixture
def clip() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (3, *CLIP)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_its_probabilities_are_the_mean_of_the_frames(network, clip):
    backbone, head = network.get_layer(STEM).get_layer("Tiny"), network.get_layer(HEAD)
    hidden, scores = head.get_layer("hidden"), head.get_layer("Logits")
    features = np.stack([backbone(clip[:, t]).numpy().mean(axis=(1, 2)) for t in range(4)], axis=1)
    seen = np.maximum(features @ hidden.kernel.numpy() + hidden.bias.numpy(), 0)
    logits = (seen @ scores.kernel.numpy() + scores.bias.numpy()).astype(np.float64)
    assert np.ptp(logits, axis=1).max() > 0.1
    outputs = network(clip)
    np.testing.assert_allclose(softmax(outputs["logits"].numpy()), softmax(logits).mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(outputs["hidden"], seen, rtol=1e-4, atol=1e-5)
    # They are log-probabilities themselves, and no mean of logits.
    np.testing.assert_allclose(np.exp(outputs["logits"]).sum(axis=-1), 1, rtol=1e-5)
    assert outputs["logits"].dtype == "float32"


def test_one_frame_that_is_sure_does_not_outvote_the_others(tiny_backbone):
    head = build(tiny_backbone).get_layer(HEAD)
    head.get_layer("hidden").set_weights([np.eye(8, 32), np.zeros(32)])
    head.get_layer("Logits").set_weights([np.eye(32, 5), np.zeros(5)])
    features = np.zeros((1, 4, 8), np.float32)
    features[0, 0, 0], features[0, 1:, 1] = 1000, 20
    probabilities = softmax(head(features)["logits"].numpy())[0]
    np.testing.assert_allclose(probabilities[:2], [0.25, 0.75], atol=1e-5)


def test_the_network_is_its_head_on_its_stem(network, clip):
    outputs = network.get_layer(HEAD)(network.get_layer(STEM)(clip))
    for name, value in network(clip).items():
        np.testing.assert_array_equal(outputs[name], value)


def test_only_the_mlp_learns(network, clip):
    assert {variable.path for variable in network.trainable_variables} == {
        f"{layer}/{part}" for layer in ("hidden", "Logits") for part in ("kernel", "bias")
    }
    before = {variable.path: variable.numpy() for variable in network.weights}
    distiller = Distiller(network, view="future", weight_decay=0.1)
    distiller.compile(optimizer=keras.optimizers.SGD(0.1))
    distiller.optimizer.build(distiller.trainable_variables)
    distiller.update({"future": clip, "label": np.array([0, 1, 2])})
    changed = {v.path for v in network.weights if not np.array_equal(v.numpy(), before[v.path])}
    assert changed == {"hidden/kernel", "hidden/bias", "Logits/kernel", "Logits/bias"}
    assert "norm/moving_mean" in before


def test_dropout_is_between_the_layers_and_acts_in_training_alone(tiny_backbone, clip):
    network = build(tiny_backbone, dropout=0.5)
    trained = [network(clip, training=True) for _ in range(2)]
    assert np.abs(trained[0]["logits"] - trained[1]["logits"]).max() > 0
    np.testing.assert_array_equal(trained[0]["hidden"], trained[1]["hidden"])
    np.testing.assert_array_equal(network(clip)["logits"], network(clip)["logits"])


def test_a_saved_network_gives_the_same_logits_and_stays_frozen(network, clip, tmp_path):
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for name, value in network(clip).items():
        np.testing.assert_array_equal(loaded(clip)[name], value)
    assert not loaded.get_layer(STEM).trainable
    assert len(loaded.trainable_variables) == 4


@pytest.mark.slow
def test_a_real_backbone_fits():
    network = build_frame_mlp(5, CLIP, "MobileNetV2")
    assert network.get_layer(STEM).output.shape == (None, 4, 1280)
    assert network.output["hidden"].shape == (None, 4, 1024)
    assert network(np.zeros((1, *CLIP), np.float32))["logits"].shape == (1, 5)
