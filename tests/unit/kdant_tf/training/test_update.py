"""One update: micro-batches, clipping and several devices give what the whole batch gives at once."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_distiller import CLASSES, random_batch, tiny_network, weights_of

from kdant_tf.config import TrainConfig
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import NotFiniteError, _compile_step, check_finite
from kdant_tf.training.optimizer import l2_factor, make_optimizer
from kdant_tf.training.strategy import NOTHING, make_strategy

pytestmark = pytest.mark.slow

LABELS = (0, -1, 2, -1, -1, -1, 1, 0)


def run_steps(
    devices: str = "cpu",
    steps: int = 3,
    xla: str = NOTHING,
    feature_loss: str = "bidirectional",
    normalization: str = "none",
    **settings,
) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The student's weights after some steps on batches of eight, and what each step returned."""
    defaults = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    config = TrainConfig(batch_size=8, **{**defaults, **settings})
    strategy = make_strategy(devices)
    with strategy.scope():
        distiller = Distiller(
            tiny_network(1),
            tiny_network(2),
            feature_loss=feature_loss,
            feature_weight=2.0,
            weight_decay=l2_factor(config),
            normalization=normalization,
            clip_norm=config.clip_norm,
            gradient_accumulation=config.gradient_accumulation,
            xla=xla,
        )
        distiller.compile(optimizer=make_optimizer(config))
        distiller.optimizer.build(distiller.trainable_variables)

    step = _compile_step(distiller, strategy)
    batches = [random_batch(seed, LABELS) for seed in range(steps)]
    samples = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
    data = tf.data.Dataset.from_tensor_slices(samples).batch(8, drop_remainder=True)
    logs = [
        {name: float(value) for name, value in step(batch).items()}
        for batch in strategy.experimental_distribute_dataset(data)
    ]
    return weights_of(distiller.student), logs


@functools.cache
def whole_batch(**settings) -> tuple[dict[str, np.ndarray], list[dict]]:
    return run_steps(**settings)


@pytest.mark.parametrize(
    ("devices", "parts", "clip_norm"), [("cpu", 4, None), ("cpu:2", 1, 0.3), ("cpu:2", 2, 0.3)]
)
def test_parts_of_a_batch_give_the_update_of_the_whole(devices: str, parts: int, clip_norm: float | None):
    expected, expected_logs = whole_batch(clip_norm=clip_norm)
    weights, logs = run_steps(devices, gradient_accumulation=parts, clip_norm=clip_norm)
    before = weights_of(tiny_network(1))
    for path, values in expected.items():
        assert np.abs(values - before[path]).max() > 1e-3, path
        np.testing.assert_allclose(weights[path], values, atol=1e-5, err_msg=path)
    for one, other in zip(logs, expected_logs, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("devices", "parts", "precision"), [("cpu:2", 2, "float32"), ("cpu:2", 1, "mixed_float16")]
)
def test_so_do_they_with_adamw(devices: str, parts: int, precision: str):
    """A smaller rate and fewer steps: its updates are as large for a gradient that is all rounding."""
    settings = {"optimizer": "adamw", "learning_rate": 0.01, "steps": 2, "clip_norm": 0.3}
    expected, _ = run_steps(**settings)
    weights, logs = run_steps(devices, gradient_accumulation=parts, precision=precision, **settings)
    assert len(logs) == 2
    before = weights_of(tiny_network(1))
    for path, values in expected.items():
        assert np.abs(values - before[path]).max() > 1e-3, path
        np.testing.assert_allclose(weights[path], values, atol=1e-4, err_msg=path)


@pytest.mark.parametrize(
    ("feature_loss", "normalization"),
    [("local", "l2"), ("jaccard", "none"), ("mmd", "layer"), ("infonce", "none")],
)
def test_every_loss_gives_two_devices_the_update_of_one(feature_loss: str, normalization: str):
    settings = {"feature_loss": feature_loss, "normalization": normalization, "steps": 2}
    # infonce compares with the samples of a micro-batch, which two devices have half of.
    parts = 2 if feature_loss == "infonce" else 1
    expected, expected_logs = run_steps(gradient_accumulation=parts, **settings)
    weights, logs = run_steps("cpu:2", **settings)
    plain, _ = whole_batch(feature_loss="none", steps=2)
    assert np.abs(plain["conv/kernel"] - expected["conv/kernel"]).max() > 1e-4
    for path, values in expected.items():
        np.testing.assert_allclose(weights[path], values, atol=1e-5, err_msg=path)
    for one, other in zip(logs, expected_logs, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-4, err_msg=name)


def test_clipping_bounds_the_step_and_leaves_its_direction():
    plain = {"momentum": 0.0, "weight_decay": 0.0, "steps": 1}
    before = weights_of(tiny_network(1))
    steps = {}
    for clip_norm in (None, 0.05, 1e6):
        weights, logs = run_steps(clip_norm=clip_norm, **plain)
        steps[clip_norm] = np.concatenate([(before[path] - weights[path]).ravel() for path in before]) / 0.1
        np.testing.assert_allclose(logs[0]["gradient_norm"], np.linalg.norm(steps[None]), rtol=1e-4)
    assert np.linalg.norm(steps[None]) > 0.1
    np.testing.assert_allclose(np.linalg.norm(steps[0.05]), 0.05, rtol=1e-3)
    np.testing.assert_allclose(
        steps[0.05] / 0.05, steps[None] / np.linalg.norm(steps[None]), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_array_equal(steps[1e6], steps[None])


def test_weight_decay_is_not_clipped():
    settings = {"momentum": 0.0, "steps": 1, "clip_norm": 0.05}
    plain, _ = run_steps(weight_decay=0.0, **settings)
    decayed, _ = run_steps(weight_decay=0.5, **settings)
    before = weights_of(tiny_network(1))
    assert before["logits/bias"].size == CLASSES
    for path, values in plain.items():
        shrunk = values - 0.1 * 0.5 * before[path] if path.endswith("/kernel") else values
        np.testing.assert_allclose(decayed[path], shrunk, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_scaling_the_loss_changes_no_update(devices: str):
    expected, expected_logs = whole_batch(clip_norm=0.3)
    weights, logs = run_steps(devices, clip_norm=0.3, precision="mixed_float16")
    for path, values in expected.items():
        np.testing.assert_allclose(weights[path], values, atol=1e-5, err_msg=path)
    for one, other in zip(logs, expected_logs, strict=True):
        assert one.pop("loss_scale") == 2.0**15
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_an_overflow_in_one_sample_skips_the_update_on_every_device(devices: str):
    config = TrainConfig(precision="mixed_float16", momentum=0.9)
    strategy = make_strategy(devices)
    with strategy.scope():
        distiller = Distiller(tiny_network(1))
        distiller.compile(optimizer=make_optimizer(config))
        distiller.optimizer.build(distiller.trainable_variables)
    step = _compile_step(distiller, strategy)
    batch = random_batch(0, (0, 1, 2, 0))
    overflowing = {**batch, "observed": tf.concat([batch["observed"][:3], batch["observed"][3:] * 1e36], 0)}
    data = tf.data.Dataset.from_tensors([0]).map(lambda _: overflowing).unbatch().batch(4)
    before = weights_of(distiller.student)
    for scale in (2.0**15, 2.0**14):
        for share in strategy.experimental_distribute_dataset(data):
            logs = {name: float(value) for name, value in step(share).items()}
        assert logs["loss_scale"] == scale
        assert logs["gradient_norm"] == 0
    for variable, values in zip(distiller.student.weights, before.values(), strict=True):
        for copy in strategy.experimental_local_results(variable.value):
            np.testing.assert_array_equal(copy.numpy(), values)
    assert keras.ops.convert_to_numpy(distiller.optimizer.dynamic_scale) == 2.0**13


def test_the_scale_of_the_loss_is_in_a_checkpoint(tmp_path):
    def optimizer():
        made = make_optimizer(TrainConfig(precision="mixed_float16"))
        made.build(tiny_network(1).trainable_variables)
        return made

    first, second = optimizer(), optimizer()
    first.dynamic_scale.assign(8.0)
    first.step_counter.assign(3)
    path = tf.train.Checkpoint(optimizer=first).save(str(tmp_path / "ckpt"))
    tf.train.Checkpoint(optimizer=second).restore(path).assert_consumed()
    assert float(second.dynamic_scale) == 8.0
    assert int(second.step_counter) == 3


FINITE = {"loss": 1.0, "classification_loss": 0.5, "feature_loss": 0.25, "gradient_norm": 2.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": np.inf, "feature_loss": np.inf},
            r"loss is no longer finite in epoch 2, step 5.*features inf",
        ),
        ({"gradient_norm": np.nan}, r"gradient is no longer finite in epoch 2, step 5.*gradient norm nan"),
        ({"gradient_norm": 0.0, "loss_scale": 0.5}, r"overflows float16 at every scale.*step 5"),
    ],
)
def test_numbers_that_are_none_stop_the_training(changes, message):
    check_finite(FINITE, 1, 4)
    check_finite({**FINITE, "loss_scale": 1.0}, 1, 4)
    with pytest.raises(NotFiniteError, match=message):
        check_finite({**FINITE, **changes}, 1, 4)
