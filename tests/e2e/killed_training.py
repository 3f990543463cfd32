"""A teacher and a student, killed at steps drawn at random; test_killed.py runs this in its own processes.

python killed_training.py RECORDS OUT die       ends by kill -9 in the teacher's fourth step
python killed_training.py RECORDS OUT finish    goes on with it, and does all the rest
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.runs import Run, load_run
from kdant_tf.training.train import train

SETTINGS: dict[str, Any] = {"model": "killed_training:build", "crop": 32, "batch_size": 4, "epochs": 3}
# What else has a state, depends on how far a training has come, or draws beside starts, crops and flips.
RECIPE: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "warmup_epochs": 0.5,
    "schedule": "cosine",
    "ema_decay": 0.9,
    "label_smoothing": 0.1,
    "mixup": 0.4,
    "cutmix": 1.0,
    "jitter_contrast": 0.5,
    "jitter_hue": 0.1,
}
TEACHER_STEPS, STUDENT_STEPS = 12, 15


class Killed(BaseException):
    """What nothing catches."""


class Killer(keras.callbacks.Callback):
    """Ends the training in a step, before that is saved: by kill -9, or as good as."""

    def __init__(self, step: int | None, *, for_real: bool = False) -> None:
        super().__init__()
        self.step = step
        self.for_real = for_real

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if int(self.model.optimizer.iterations.numpy()) != self.step:
            return
        if self.for_real:
            os.kill(os.getpid(), signal.SIGKILL)
        raise Killed


def build(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
    """A network with all that has a state: moving statistics and dropout."""
    clip = layers.Input(input_shape)
    x = layers.Conv3D(8, 3, (2, 8, 8), activation="relu")(clip)
    maps = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.5, seed=1)(layers.GlobalAveragePooling3D()(maps))
    return keras.Model(clip, {"logits": layers.Dense(num_classes, name="Logits")(x), "maps": maps})


def run(records: Path, out: Path, teacher: Run | None, killer: Killer, minutes: float) -> Run | None:
    """Trains to the end, from where it was left; None where it was killed."""
    keras.backend.clear_session()
    execution = Execution(devices="cpu", deterministic=True, checkpoint_minutes=minutes)
    options: dict[str, Any] = {"execution": execution, "resume": out.exists(), "callbacks": [killer]}
    try:
        settings = SETTINGS if teacher is None else {**SETTINGS, **RECIPE}
        train(records, out, TrainConfig(**settings), teacher=teacher, **options)
    except Killed:
        return None
    return load_run(out)


def run_with_kills(records: Path, out: Path, teacher: Run | None, steps: list[int]) -> Run:
    """As `run`, killed once at each of `steps`; saved in every second life each step, else each epoch."""
    for number, step in enumerate(steps):
        assert run(records, out, teacher, Killer(step), minutes=1e-9 * (number % 2)) is None
    finished = run(records, out, teacher, Killer(None), minutes=1e-9)
    assert finished is not None
    return finished


def assert_equal(left: Run, right: Run) -> None:
    """Weights bit for bit, moving statistics included, and metrics.csv."""
    networks = [keras.saving.load_model(each.model_path) for each in (left, right)]
    for a, b in zip(*(network.weights for network in networks), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    assert (left.folder / "metrics.csv").read_bytes() == (right.folder / "metrics.csv").read_bytes()


def finish(records: Path, out: Path) -> None:
    """Compares what was killed with what was not."""
    draw = np.random.default_rng(0)
    steps = [sorted(draw.permutation(np.arange(5, TEACHER_STEPS + 1))[:2].tolist())]
    steps.append(sorted(draw.permutation(np.arange(1, STUDENT_STEPS + 1))[:3].tolist()))
    print("killed at", [4, *steps[0]], "of the teacher and", steps[1], "of the student")
    teacher = run(records, out / "teacher", None, Killer(None), minutes=0)
    assert teacher is not None
    assert_equal(run_with_kills(records, out / "killed-teacher", None, steps[0]), teacher)
    student = run(records, out / "student", teacher, Killer(None), minutes=0)
    assert student is not None
    assert_equal(run_with_kills(records, out / "killed-student", teacher, steps[1]), student)


if __name__ == "__main__":
    records, out = Path(sys.argv[1]), Path(sys.argv[2])
    if sys.argv[3] == "die":
        run(records, out / "killed-teacher", None, Killer(4, for_real=True), minutes=1e-9)
    else:
        finish(records, out)
        print("equal")
