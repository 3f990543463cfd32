"""What a training shows of its feature loss: in metrics.csv and TensorBoard, and by one warning."""

import re

import keras
import numpy as np
import pytest
from test_tensorboard import read_events
from test_update import run_steps

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.runs import HEALTH_METRICS, read_metrics
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.strategy import NOTHING, POOLING, STEP
from kdant_tf.training.train import train
from kdant_tf.training.training_warnings import PoolingWarning

# Trains a teacher and students.
pytestmark = pytest.mark.slow
SETTINGS = {"model": "test_train:build", "crop": 32, "batch_size": 8, "epochs": 4}
# With alpha 0 every pooling weight is the same.
UNIFORM = TrainConfig(**SETTINGS, feature_loss="bidirectional", alpha=0.0)
CPU = Execution(devices="cpu", xla="off", checkpoint_minutes=1e-9)


@pytest.fixture(scope="module")
def teacher(record_folder, tmp_path_factory):
    config = TrainConfig(**{**SETTINGS, "epochs": 1})
    return train(record_folder, tmp_path_factory.mktemp("teacher"), config, execution=CPU).run


class Killed(BaseException):
    """Stands for kill -9."""


class KillerAfter(keras.callbacks.Callback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.steps:
            raise Killed


@pytest.fixture(scope="module")
def whole(record_folder, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "student"
    train(record_folder, out, UNIFORM, teacher=teacher, execution=CPU)
    return out


@pytest.mark.parametrize("killed_after", [3, 7])
def test_a_killed_training_warns_once_and_writes_the_same_bytes(
    record_folder, teacher, whole, tmp_path, killed_after
):
    lines: list[str] = []
    out = tmp_path / "killed"
    options = {"teacher": teacher, "execution": CPU, "report": lines.append}
    with pytest.raises(Killed):
        train(record_folder, out, UNIFORM, callbacks=[KillerAfter(killed_after)], **options)
    train(record_folder, out, UNIFORM, resume=True, **options)
    (warning,) = (line for line in lines if "The feature loss" in line)
    assert re.match(
        r"Warning: epoch 3: The feature loss sees little but means: .* 1\.000 of the largest", warning
    )
    assert (out / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    rows = read_metrics(out / "metrics.csv")
    assert [row["pooling_entropy"] for row in rows] == pytest.approx([1.0] * 4)
    assert all(0 < row["map_variation"] < 1 for row in rows)
    events, _ = read_events(out / "tensorboard")
    assert {(step, name): 1 for step in range(1, 5) for name in HEALTH_METRICS}.items() <= events.items()


@pytest.mark.parametrize(
    ("feature_loss", "columns"),
    [("none", set()), ("jaccard", {"map_variation"}), ("local", set(HEALTH_METRICS))],
)
def test_columns_are_those_that_the_loss_has(record_folder, teacher, tmp_path, feature_loss, columns):
    config = TrainConfig(**{**SETTINGS, "epochs": 1}, feature_loss=feature_loss)
    train(record_folder, tmp_path, config, teacher=teacher, execution=CPU)
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert set(HEALTH_METRICS) & set(row) == columns


@pytest.mark.parametrize(("devices", "xla"), [("cpu", NOTHING), ("cpu", STEP), ("cpu:2", POOLING)])
def test_measuring_changes_no_bit_of_the_loss_or_the_weights(devices, xla, monkeypatch):
    measured = run_steps(devices, steps=2, xla=xla)
    monkeypatch.setattr(Distiller, "_measure", lambda self, maps: {})
    plain = run_steps(devices, steps=2, xla=xla)
    for path, values in plain[0].items():
        np.testing.assert_array_equal(measured[0][path], values, err_msg=path)
    for one, other in zip(measured[1], plain[1], strict=True):
        assert set(one) - set(other) == set(HEALTH_METRICS)
        assert {name: one[name] for name in other} == other


def test_an_interrupted_row_of_epochs_is_no_trouble():
    lines: list[str] = []
    warning = PoolingWarning(lines.append)
    for epoch, entropy in enumerate([1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0]):
        warning.on_epoch_end(epoch, {"loss": 0.0, "pooling_entropy": entropy, "map_variation": 0.5})
        assert len(lines) == (epoch >= 5)
