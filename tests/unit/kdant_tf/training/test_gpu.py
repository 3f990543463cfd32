"""Training on GPUs, run by `make test-gpu`: whole-step XLA, mixed precision, several GPUs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_update import run_steps

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.evaluation.evaluate import evaluate_run
from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.networks import set_precision
from kdant_tf.runs import load_run
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import _compile_step
from kdant_tf.training.optimizer import make_optimizer
from kdant_tf.training.strategy import NOTHING, STEP, choose_xla, make_strategy
from kdant_tf.training.train import train
from tf_records.records import Records

GPUS = len(tf.config.list_physical_devices("GPU"))
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPUS == 0, reason="TensorFlow sees no GPU")]
# TensorFloat-32 and bfloat16 keep 10 and 7 bits of the mantissa.
TOLERANCE = {"float32": 1e-2, "mixed_bfloat16": 5e-2, "mixed_float16": 2e-2}


def losses_of_i3d(precision: str, xla: str, steps: int = 10) -> list[float]:
    """Losses of steps of a small I3D on one batch."""
    config = TrainConfig(precision=precision, learning_rate=0.02, seed=0)
    strategy = make_strategy("gpu:1")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        student, teacher = (build_i3d(4, (8, 64, 64, 3), width=0.25, dropout=0.0) for _ in range(2))
        for network in (student, teacher):
            set_precision(network, precision)
        distiller = Distiller(student, teacher, feature_loss="bidirectional", feature_weight=1.0, xla=xla)
        distiller.compile(optimizer=make_optimizer(config))
        distiller.optimizer.build(distiller.trainable_variables)
    step = _compile_step(distiller, strategy)
    observed, future = (tf.random.stateless_uniform((8, 8, 64, 64, 3), (0, i), -1.0) for i in range(2))
    batch = {"observed": observed, "future": future, "label": tf.constant([0, 1, 2, 3, -1, -1, 0, 1])}
    return [float(step(batch)["loss"]) for _ in range(steps)]


@pytest.mark.parametrize("xla", [STEP, NOTHING])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_i3d_learns_in_every_precision_with_and_without_xla(precision: str, xla: str):
    losses = losses_of_i3d(precision, xla)
    expected = losses_of_i3d("float32", NOTHING, steps=1)
    np.testing.assert_allclose(losses[0], expected[0], rtol=TOLERANCE[precision])
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_training_by_default_is_whole_step_xla_and_can_be_evaluated(record_folder, tmp_path, precision):
    assert choose_xla("auto", make_strategy("gpu:1")) == STEP
    config = TrainConfig(crop=32, width=0.0625, batch_size=8, epochs=2, precision=precision)
    result = train(record_folder, tmp_path / "run", config, execution=Execution(devices="gpu:1"))
    assert np.isfinite(result.final_loss)
    run = load_run(tmp_path / "run")
    assert 0 <= evaluate_run(run, Records.open(record_folder)).top1 <= 1


@pytest.mark.skipif(GPUS < 2, reason="TensorFlow sees one GPU")
@pytest.mark.parametrize("xla", [STEP, NOTHING])
def test_two_gpus_give_the_weights_of_one(xla: str):
    expected, expected_logs = run_steps("gpu:1", xla=xla, clip_norm=0.3)
    weights, logs = run_steps("gpu:2", xla=xla, clip_norm=0.3)
    for path, values in expected.items():
        np.testing.assert_allclose(weights[path], values, atol=2e-3, err_msg=path)
    for one, other in zip(logs, expected_logs, strict=True):
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-2)
