"""A training that was killed at any step goes on as if it had not been; damage is recognised."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.runs import read_metrics
from kdant_tf.training.callbacks import MetricsFile
from kdant_tf.training.checkpoint import RunCheckpoints, checkpoint_names, find_checkpoint
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import Position, fit
from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.weight_average import SwapWeights, WeightAverage
from tf_records.errors import RunError, StoppedError

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 3, 4
EVERY_STEP = 1e-9  # minutes


class Killed(BaseException):
    """Stands for kill -9: nothing in the training catches it."""


class Killer(keras.callbacks.Callback):
    """Kills after a step, counted over all epochs, before or after it was saved."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.after:
            raise Killed


class Training:
    """A small network with dropout and a momentum, its files in `folder`; begun anew, or gone on with."""

    def __init__(self, folder: Path, **options) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        keras.utils.set_random_seed(0)
        self.strategy = make_strategy("cpu")
        with self.strategy.scope():
            clip = layers.Input((4,))
            x = layers.BatchNormalization()(layers.Dropout(0.5, seed=0)(layers.Dense(8)(clip)))
            student = keras.Model(clip, {"logits": layers.Dense(2)(x)})
            self.distiller = Distiller(student)
            self.distiller.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
            self.distiller.optimizer.build(student.trainable_variables)
            ema = options.pop("ema", False)
            self.average = WeightAverage(student.weights[:-1], 0.9) if ema else None
        self.position = Position()
        self.others = [MetricsFile(folder / "metrics.csv"), *options.pop("others", ())]
        options = {"others": self.others, "average": self.average, **options}
        self.checkpoints = RunCheckpoints(folder, student, self.distiller, self.position, **options)
        self.reports: list[str] = []
        saved = find_checkpoint(folder / "checkpoints", self.reports.append)
        if saved is not None:
            self.checkpoints.restore(saved)

    def run(self, killer: Killer | None = None, epochs: int = EPOCHS) -> "Training":
        first, done = self.position.epoch, self.position.step
        swaps = [] if self.average is None else [SwapWeights(self.average)]
        callbacks = [*swaps, *self.others, *swaps, *([] if killer is None else [killer]), self.checkpoints]
        callback_list = keras.callbacks.CallbackList(callbacks, model=self.distiller)
        callback_list.set_params({"epochs": epochs, "steps": STEPS})
        fit(
            self.distiller,
            self.strategy,
            lambda epoch: batches(epoch).skip(done if epoch == first else 0),
            epochs=epochs,
            learning_rate=lambda epoch, step: 0.1 / (1 + epoch),
            callbacks=callback_list,
            position=self.position,
            average=self.average,
        )
        return self

    @property
    def weights(self) -> list[np.ndarray]:
        return self.distiller.student.get_weights()

    @property
    def metrics(self) -> str:
        return (self.folder / "metrics.csv").read_text()

    @property
    def names(self) -> list[str]:
        return checkpoint_names(self.folder / "checkpoints")


def batches(epoch: int) -> tf.data.Dataset:
    rng = np.random.default_rng(epoch)
    clips = rng.standard_normal((4 * STEPS, 4)).astype(np.float32)
    samples = {"observed": clips, "label": (clips[:, 0] > 0).astype(np.int64)}
    return tf.data.Dataset.from_tensor_slices(samples).batch(4, drop_remainder=True)


def assert_equal(left: Training, right: Training) -> None:
    for weight, expected in zip(left.weights, right.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert left.metrics == right.metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Training:
    return Training(tmp_path_factory.mktemp("whole"), minutes=EVERY_STEP).run()


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy of the finished training's folder: checkpoints of its last two steps."""
    return Path(shutil.copytree(whole.folder, tmp_path / "run"))


@pytest.mark.parametrize("minutes", [0, EVERY_STEP], ids=["every epoch", "every step"])
@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_killed_training_ends_like_one_that_was_not(whole, tmp_path, step, minutes):
    with pytest.raises(Killed):
        Training(tmp_path, minutes=minutes).run(Killer(step))
    assert_equal(Training(tmp_path, minutes=minutes).run(), whole)


@pytest.mark.parametrize("step", [2, 5])
def test_so_does_the_average_of_its_weights(whole, tmp_path, step):
    averaged = Training(tmp_path / "whole", ema=True, minutes=EVERY_STEP).run()
    assert_equal(averaged, whole)  # which learns as it does without
    with pytest.raises(Killed):
        Training(tmp_path / "killed", ema=True, minutes=EVERY_STEP).run(Killer(step))
    resumed = Training(tmp_path / "killed", ema=True, minutes=EVERY_STEP).run()
    assert_equal(resumed, whole)
    for average, expected in zip(resumed.average.averages, averaged.average.averages, strict=True):
        np.testing.assert_array_equal(average.numpy(), expected.numpy())
    assert np.abs(averaged.average.averages[0].numpy() - averaged.weights[0]).max() > 1e-4


def test_a_finished_training_is_gone_on_with_for_more_epochs(whole, folder, tmp_path):
    assert_equal(Training(folder).run(), whole)
    longer = Training(tmp_path / "longer").run(epochs=EPOCHS + 1)
    assert_equal(Training(folder).run(epochs=EPOCHS + 1), longer)
    assert [row["epoch"] for row in read_metrics(folder / "metrics.csv")] == [1, 2, 3, 4]


def test_metrics_beyond_the_checkpoint_are_cut_off(tmp_path):
    with pytest.raises(Killed):
        Training(tmp_path).run(Killer(STEPS + 1))
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n")
    with pytest.raises(Killed):
        Training(tmp_path).run(Killer(STEPS + 1))
    assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == [1]


def test_the_last_two_checkpoints_are_kept(whole):
    assert whole.names == ["step-00000011", "step-00000012"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["state.json", "tensors.index", "tensors.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_used(folder, name, damage):
    damage(folder / "checkpoints" / "step-00000012" / name)
    training = Training(folder)
    (line,) = training.reports
    assert f"step-00000012 is damaged: {name}" in line
    assert "step-00000011, the one before" in line
    assert training.position.global_step == 11
    assert training.names == ["step-00000011"]


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(folder):
    for path in (folder / "checkpoints").iterdir():
        flip(path / "state.json")
    with pytest.raises(RunError, match=r"step-00000012 is damaged.*step-00000011 is damaged.*--overwrite"):
        Training(folder)


def test_what_a_killed_training_left_half_written_is_no_checkpoint(whole, folder):
    (folder / "checkpoints" / "step-00000012").rename(folder / "checkpoints" / ".tmp-1-step-00000012")
    (folder / ".tmp-1-model.keras").write_bytes(b"half")
    training = Training(folder)
    assert training.reports == []
    assert_equal(training.run(), whole)
    assert not list(folder.rglob(".tmp-*"))


def test_checkpoints_of_an_earlier_version_are_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"\n')
    with pytest.raises(RunError, match=r"an earlier version of kdant.*--overwrite"):
        Training(tmp_path)


@pytest.mark.parametrize(("step", "words"), [(2, "step 2 of epoch 1"), (5, "step 1 of epoch 2")])
def test_a_training_that_is_asked_to_stop_saves_first(whole, tmp_path, step, words):
    training = Training(tmp_path)
    iterations = training.distiller.optimizer.iterations
    training.checkpoints.stop_requested = lambda: "SIGTERM" if int(iterations.numpy()) == step else None
    with pytest.raises(StoppedError, match=rf"Stopped by SIGTERM after {words};.*--resume"):
        training.run()
    resumed = Training(tmp_path)
    assert resumed.position.global_step == step
    assert_equal(resumed.run(), whole)


def test_early_stopping_keeps_its_patience(tmp_path):
    def stopping() -> keras.callbacks.EarlyStopping:
        return keras.callbacks.EarlyStopping("learning_rate", mode="max", patience=2)  # which only falls

    whole = Training(tmp_path / "whole", others=[stopping()]).run(epochs=5)
    assert whole.position.epoch == 3
    with pytest.raises(Killed):
        Training(tmp_path / "killed", others=[stopping()]).run(Killer(2 * STEPS + 1), epochs=5)
    resumed = Training(tmp_path / "killed", others=[stopping()]).run(epochs=5)
    assert_equal(resumed, whole)
    assert_equal(Training(tmp_path / "killed", others=[stopping()]).run(epochs=5), whole)


def test_what_is_not_finite_is_restored_from_strict_json(tmp_path):
    """The best loss of a callback that has seen none, and the accuracy of an epoch without labels."""

    class Remembering(keras.callbacks.Callback):
        def get_state(self):
            return {"best": np.inf, "rows": [{"accuracy": np.nan, "epoch": 1}], "last": np.float32(0.5)}

        def set_state(self, state):
            self.restored = state

    Training(tmp_path / "run", others=[Remembering()]).checkpoints.save()

    def refuse(word):
        raise AssertionError(word)

    (path,) = (tmp_path / "run" / "checkpoints").glob("*/state.json")
    json.loads(path.read_text(), parse_constant=refuse)
    remembering = Remembering()
    Training(tmp_path / "run", others=[remembering])
    assert str(remembering.restored) == "{'best': inf, 'rows': [{'accuracy': nan, 'epoch': 1}], 'last': 0.5}"
