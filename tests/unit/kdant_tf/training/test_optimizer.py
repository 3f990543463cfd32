"""Updates against the equations in float64: AdamW, SGD, decay, rates of pretrained layers, schedules."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.config import ConfigError, TrainConfig
from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.networks import build_network
from kdant_tf.models.weights import pretrained_variables
from kdant_tf.training.optimizer import apply_summed, l2_factor, make_optimizer
from kdant_tf.training.strategy import make_strategy

STEPS, FACTOR = 6, 0.1
# Of the network below: whether weight decay is for it, and whether it counts as pretrained.
VARIABLES = {
    "backbone/kernel": (True, True),
    "backbone/bias": (False, True),
    "norm/gamma": (False, False),
    "norm/beta": (False, False),
    "Logits/kernel": (True, False),
    "Logits/bias": (False, False),
}


def small_network() -> keras.Model:
    keras.utils.set_random_seed(0)
    clip = layers.Input((4,))
    x = layers.LayerNormalization(name="norm")(layers.Dense(3, name="backbone")(clip))
    return keras.Model(clip, layers.Dense(2, name="Logits")(x))


def gradients_at(step: int, network: keras.Model) -> list[np.ndarray]:
    """Of several sizes, and zero for one variable, where AdamW divides by epsilon."""
    rng = np.random.default_rng(step)
    gradients = [rng.standard_normal(variable.shape) for variable in network.trainable_variables]
    return [gradient * 10.0 ** (number - 2) for number, gradient in enumerate(gradients[:-1])] + [
        0 * gradients[-1]
    ]


def run_updates(config: TrainConfig, devices: str) -> tuple[list[np.ndarray], keras.Model]:
    """The weights after STEPS updates; every replica is given the summed gradients."""
    strategy = make_strategy(devices)
    with strategy.scope():
        network = small_network()
        pretrained = network.get_layer("backbone").trainable_variables
        optimizer = make_optimizer(config, pretrained)
        optimizer.build(network.trainable_variables)

    @tf.function
    def update(gradients: list[tf.Tensor]) -> None:
        strategy.run(lambda: apply_summed(optimizer, gradients, network.trainable_variables))

    for step in range(STEPS):
        optimizer.learning_rate = config.learning_rate_at(0, step, STEPS)
        update([tf.constant(gradient, tf.float32) for gradient in gradients_at(step, network)])
    return network.get_weights(), network


def adamw(
    weights: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float, beta_1: float
) -> np.ndarray:
    """Loshchilov and Hutter 2019, algorithm 2, with the epsilon and beta 2 of Keras."""
    weights = weights.astype(np.float64)
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = 0.999 * v + 0.001 * gradient**2
        # Keras has Kingma and Ba's "epsilon hat": beside the root before its bias is corrected.
        step = rate * math.sqrt(1 - 0.999**t) / (1 - beta_1**t) * m / (np.sqrt(v) + 1e-7)
        weights = weights - step - rate * decay * weights
    return weights


def sgd(
    weights: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float, momentum: float
) -> np.ndarray:
    assert decay == 0
    weights, velocity = weights.astype(np.float64), 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity - rate * gradient
        weights = weights + velocity
    return weights


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_gives_the_weights_of_kerass_own_bit_for_bit(momentum):
    config = TrainConfig(learning_rate=0.02, momentum=momentum)
    updated, _ = run_updates(config, "cpu")
    network = small_network()
    optimizer = keras.optimizers.SGD(momentum=momentum)
    for step in range(STEPS):
        optimizer.learning_rate = config.learning_rate_at(0, step, STEPS)
        gradients = [tf.constant(gradient, tf.float32) for gradient in gradients_at(step, network)]
        optimizer.apply(gradients, network.trainable_variables)
    for ours, keras_own in zip(updated, network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, keras_own)


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
@pytest.mark.parametrize(("name", "reference"), [("adamw", adamw), ("sgd", sgd)])
def test_updates_follow_the_equations(name, reference, devices):
    config = TrainConfig(
        model="tsn",
        init="imagenet",
        optimizer=name,
        learning_rate=0.02,
        pretrained_learning_rate=0.02 * FACTOR,
        momentum=0.8,
        weight_decay=0.3,
        warmup_epochs=0.5,
        schedule="cosine",
        epochs=1,
    )
    assert l2_factor(config) == {"adamw": 0.0, "sgd": 0.3}[name]
    updated, network = run_updates(config, devices)
    begun = small_network()
    assert [variable.path for variable in network.trainable_variables] == [*VARIABLES]
    rates = [config.learning_rate_at(0, step, STEPS) for step in range(STEPS)]
    for number, (path, (decays, is_pretrained)) in enumerate(VARIABLES.items()):
        expected = reference(
            keras.ops.convert_to_numpy(begun.trainable_variables[number]),
            [gradients_at(step, network)[number] for step in range(STEPS)],
            [rate * (FACTOR if is_pretrained else 1.0) for rate in rates],
            0.3 if decays and name == "adamw" else 0.0,
            0.8,
        )
        np.testing.assert_allclose(updated[number], expected, rtol=2e-5, atol=1e-6, err_msg=path)


def rates(steps: int = 4, **settings) -> np.ndarray:
    """Of every update, `(epochs, steps)`."""
    config = TrainConfig(**settings)
    return np.array(
        [
            [config.learning_rate_at(epoch, step, steps) for step in range(steps)]
            for epoch in range(config.epochs)
        ]
    )


def test_warm_up_rises_in_equal_steps_and_then_the_schedule_holds():
    found = rates(learning_rate=0.8, warmup_epochs=1.5, epochs=4, decay_epochs=(3,), decay_factor=0.5)
    expected = np.concatenate([0.8 * np.arange(1, 7) / 6, [0.8] * 6, [0.4] * 4])
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)


@pytest.mark.parametrize("warmup", [0, 2])
def test_cosine_falls_from_the_rate_to_nearly_0(warmup):
    found = rates(learning_rate=0.3, schedule="cosine", warmup_epochs=warmup, epochs=10, steps=5).ravel()
    first, count = 5 * warmup, 50 - 5 * warmup
    expected = [0.3 * 0.5 * (1 + math.cos(math.pi * update / count)) for update in range(count)]
    np.testing.assert_allclose(found[first:], expected, rtol=1e-12)
    np.testing.assert_allclose(found[:first], 0.3 * np.arange(1, first + 1) / max(first, 1), rtol=1e-12)
    assert 0 < found[-1] < 0.001


def test_the_papers_schedule_has_no_other_rates_than_before():
    assert {*rates(epochs=40, decay_epochs=(20,)).ravel()} == {0.01, 0.01 * 0.1}


def test_a_warm_up_leaves_epochs_to_train_in():
    with pytest.raises(ConfigError, match=r"`warmup_epochs` should be below the 3 epochs\. Received: 3\.0"):
        TrainConfig(epochs=3, warmup_epochs=3)


@pytest.mark.parametrize(
    ("settings", "norm"),
    [
        ({}, None),
        ({"init": "random"}, None),
        ({"clip_norm": 0.5}, 0.5),
        ({"init": "kinetics"}, 2.0),
        ({"init": "some/run", "model": "features3d"}, 2.0),
        ({"init": "imagenet", "model": "tsn"}, 2.0),
        ({"init": "kinetics", "clip_norm": 0}, None),
        ({"init": "kinetics", "clip_norm": 5}, 5.0),
        ({"init": "imagenet", "model": "frame-mlp"}, None),  # what is pretrained there does not learn
    ],
)
def test_gradients_are_clipped_by_default_where_weights_are_pretrained(settings, norm):
    assert TrainConfig(**settings).largest_gradient_norm == norm


def test_a_rate_for_pretrained_layers_needs_some():
    with pytest.raises(ConfigError, match=r"`pretrained_learning_rate` should be left out where no layer"):
        TrainConfig(pretrained_learning_rate=0.1)


@pytest.mark.slow
def test_what_is_pretrained_is_all_but_the_head_or_the_backbone_alone():
    i3d = build_i3d(3, (8, 32, 32, 3), width=0.0625)
    head = {variable.path for variable in i3d.trainable_variables if variable.path.startswith("Logits")}
    assert len(head) == 2
    for init in ("kinetics", "some/checkpoint"):
        paths = {variable.path for variable in pretrained_variables(i3d, init)}
        assert paths | head == {variable.path for variable in i3d.trainable_variables}
        assert not paths & head
    assert pretrained_variables(i3d, None) == pretrained_variables(i3d, "random") == []
    config = TrainConfig(model="tsn", backbone="MobileNetV2", segments=2)
    tsn = build_network(config, 3, (4, 32, 32, 3))
    backbone = tsn.get_layer("MobileNetV2")
    for init in ("imagenet", "weights.h5"):
        assert [*map(id, pretrained_variables(tsn, init))] == [*map(id, backbone.trainable_variables)]
    assert len(tsn.trainable_variables) == len(backbone.trainable_variables) + 2
