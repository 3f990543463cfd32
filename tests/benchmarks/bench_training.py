"""The training loop beside its bare step, two logical devices beside one, resuming, starting, and what XLA
compiles.

    python tests/benchmarks/bench_training.py --size tiny --size small

Every figure is a ratio of two times measured in turns in one run, on a CPU; prints a table on stderr and one
JSON object on stdout. Records are rendered, and read as training reads them.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)

import keras  # isort: skip
import tensorflow as tf
from measure import Row, Times, take_turns
from report import describe_machine, print_report
from rich.console import Console

from kdant_tf.config import TrainConfig
from kdant_tf.models.i3d import build_i3d
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import _compile_step, fit
from kdant_tf.training.optimizer import SummedSGD
from kdant_tf.training.strategy import NOTHING, POOLING, STEP, make_strategy
from kdant_tf.training.train import train
from tf_records.errors import StoppedError
from tf_records.plan import BuildOptions
from tf_records.reader import training_epochs
from tf_records.records import Records
from tf_records.sources.synthetic import SyntheticSpec, read_synthetic
from tf_records.writer import build_records

PARTS = ("loop", "devices", "resume", "start", "xla")
CLASSES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """One distillation: pixels, I3D's width, clips a batch, steps an epoch."""

    pixels: int
    width: float
    batch_size: int
    steps: int


SIZES = {"tiny": Size(32, 0.0625, 8, 40), "small": Size(112, 0.25, 8, 24), "full": Size(224, 1.0, 2, 8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--size", action="append", choices=SIZES, help="default: tiny and small")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    sizes = {name: SIZES[name] for name in options.size or ("tiny", "small")}
    make_strategy("cpu:2")  # before TensorFlow starts
    machine, rows = describe_machine(), []
    for name, size in sizes.items():
        for part in options.only or PARTS:
            print(f"measuring: {part}, {name}", file=sys.stderr)
            rows += MEASURES[part](name, size, options.repeats)
    print_report(machine, rows, Console(stderr=True, width=None if sys.stderr.isatty() else 150))
    print(json.dumps({"machine": machine, "results": [row.to_dict() for row in rows]}, ensure_ascii=False))


def measure_loop(name: str, size: Size, repeats: int) -> list[Row]:
    """Seconds a step of epochs of `fit` against those of the step alone on one batch."""
    strategy = make_strategy("cpu")
    distiller = make_distiller(size, strategy)
    timer = _EpochTimer(_compile_step(distiller, strategy), size.steps)
    with tempfile.TemporaryDirectory() as folder:
        records = _build(Path(folder), size)
        callbacks = keras.callbacks.CallbackList([timer], model=distiller)
        callbacks.set_params({"steps": size.steps})

        batches = training_epochs(
            records,
            views=("observed", "future"),
            batch_size=size.batch_size,
            crop=size.pixels,
            seed=0,
            eight_bits=True,
        )
        timer.batch = next(iter(batches(0)))
        fit(
            distiller,
            strategy,
            batches,
            epochs=1 + repeats,
            learning_rate=lambda epoch, step: 1e-5,
            callbacks=callbacks,
        )
    return [
        Row(
            name=f"training loop on records, {name}",
            pixels=size.pixels,
            times=timer.loop.times(),
            against="the bare step",
            against_times=timer.bare.times(),
            target=1.05,
        )
    ]


class _Seconds:
    """By the clock and of the processors."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.cpu: list[float] = []

    def add(self, clock_s: float, cpu_s: float) -> None:
        self.clock.append(clock_s)
        self.cpu.append(cpu_s)

    def times(self) -> Times:
        """Without the first, in which steps are traced."""
        return Times(tuple(self.clock[1:]), tuple(self.cpu[1:]))


class _EpochTimer(keras.callbacks.Callback):
    """Seconds a step of each epoch, and after it of as many bare steps."""

    def __init__(self, step: Any, steps: int) -> None:
        super().__init__()
        self.step, self.steps = step, steps
        self.batch: Any = None
        self.loop, self.bare = _Seconds(), _Seconds()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.began_s, self.used_s = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        clock_s, cpu_s = time.perf_counter() - self.began_s, time.process_time() - self.used_s
        self.loop.add(clock_s / self.steps, cpu_s / self.steps)
        seconds = _Seconds()
        for _ in range(self.steps):
            began_s, used_s = time.perf_counter(), time.process_time()
            self.step(self.batch)
            tf.test.experimental.sync_devices()
            seconds.add(time.perf_counter() - began_s, time.process_time() - used_s)
        # The median, since the first ones run beside the next epoch's pipeline, which is filling.
        self.bare.add(statistics.median(seconds.clock), statistics.median(seconds.cpu))


def measure_devices(name: str, size: Size, repeats: int) -> list[Row]:
    """A step on two logical devices against one on one device, with the same global batch.

    Beside it two steps on one device, with half of the batch each: what smaller products alone cost.
    """
    halves = "two halves of the batch on one device"
    steps, batches = {}, tf.data.Dataset.from_tensors(make_batch(size)).unbatch()
    for devices in ("cpu", "cpu:2"):
        strategy = make_strategy(devices)
        step = _compile_step(make_distiller(size, strategy), strategy)
        data = batches.batch(size.batch_size)
        batch = next(iter(strategy.experimental_distribute_dataset(data)))
        steps[devices] = lambda step=step, batch=batch: step(batch)
        if devices == "cpu":
            half = next(iter(batches.batch(size.batch_size // 2)))
            again = _compile_step(make_distiller(size, strategy), strategy)
            steps[halves] = lambda step=again, batch=half: (step(batch), step(batch))
    times = take_turns(steps, repeats)
    return [
        Row(
            name=f"step on {title}, {name}",
            pixels=size.pixels,
            times=times[way],
            against="one device",
            against_times=times["cpu"],
            target=target,
        )
        for way, title, target in (("cpu:2", "two logical devices", 1.1), (halves, halves, None))
    ]


def measure_resume(name: str, size: Size, repeats: int) -> list[Row]:
    """From `train` to the end of its first step: resumed within an epoch, against begun anew."""
    config = TrainConfig(
        crop=size.pixels, width=size.width, batch_size=size.batch_size, epochs=1, learning_rate=1e-5
    )
    seconds: dict[str, list[float]] = {"resumed": [], "begun": []}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        _build(folder, size)
        with contextlib.suppress(StoppedError):
            stop = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: batch == size.steps * 3 // 4 and _ask_to_stop()
            )
            train(folder / "records", folder / "resumed", config, callbacks=[stop])
        for _ in range(1 + max(2, repeats // 3)):
            for how, times in seconds.items():
                began_s = time.perf_counter()
                with contextlib.suppress(_FirstStepError):
                    train(
                        folder / "records",
                        folder / how,
                        config,
                        resume=how == "resumed",
                        overwrite=how == "begun",
                        callbacks=[_EndAfterFirstStep()],
                    )
                times.append(time.perf_counter() - began_s)
    resumed, begun = (Times(tuple(seconds[how][1:])) for how in ("resumed", "begun"))
    extra_s = resumed.median - begun.median
    return [
        Row(
            name=f"--resume to its first step, {name}",
            pixels=size.pixels,
            times=resumed,
            against="a new training to its first step",
            against_times=begun,
            details={"extra_s": extra_s, "target_extra_s": 10},
        )
    ]


def measure_start(name: str, size: Size, repeats: int) -> list[Row]:
    """From `train` to the end of the first step, of a student and of a teacher; tracing is most of it."""
    config = TrainConfig(
        crop=size.pixels, width=size.width, batch_size=size.batch_size, epochs=1, learning_rate=1e-5
    )
    begun = {"student": _Seconds(), "teacher": _Seconds()}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        _build(folder, size)
        taught = train(folder / "records", folder / "taught", config).run
        student = dataclasses.replace(config, feature_loss="bidirectional")
        for _ in range(1 + max(2, repeats // 3)):
            for who, seconds in begun.items():
                began_s, used_s = time.perf_counter(), time.process_time()
                with contextlib.suppress(_FirstStepError):
                    train(
                        folder / "records",
                        folder / who,
                        student if who == "student" else config,
                        teacher=taught if who == "student" else None,
                        overwrite=True,
                        callbacks=[_EndAfterFirstStep()],
                    )
                seconds.add(time.perf_counter() - began_s, time.process_time() - used_s)
    return [
        Row(
            name=f"a student's training to its first step, {name}",
            pixels=size.pixels,
            times=begun["student"].times(),
            against="a teacher's",
            against_times=begun["teacher"].times(),
        )
    ]


class _FirstStepError(Exception):
    """Ends a training that is only timed."""


class _EndAfterFirstStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        raise _FirstStepError


def _ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def measure_xla(name: str, size: Size, repeats: int) -> list[Row]:
    """--xla auto, which compiles nothing on a CPU, against the pooling alone and, where small, the step."""
    batch, steps = make_batch(size), {}
    strategy = make_strategy("cpu")
    others = {"pooling": POOLING} | ({"on": STEP} if name == "tiny" else {})
    for xla in (NOTHING, *others.values()):
        step = _compile_step(make_distiller(size, strategy, xla), strategy)
        began_s = time.perf_counter()
        step(batch)
        print(f"--xla {xla}: first step after {time.perf_counter() - began_s:.1f} s", file=sys.stderr)
        steps[xla] = lambda step=step: step(batch)
    times = take_turns(steps, repeats)
    return [
        Row(
            name=f"step with --xla auto, {name}",
            pixels=size.pixels,
            times=times[NOTHING],
            against=f"--xla {choice}",
            against_times=times[xla],
            target=1.05,
        )
        for choice, xla in others.items()
    ]


MEASURES = {
    "loop": measure_loop,
    "devices": measure_devices,
    "resume": measure_resume,
    "start": measure_start,
    "xla": measure_xla,
}


def make_distiller(size: Size, strategy: tf.distribute.Strategy, xla: str = NOTHING) -> Distiller:
    """A distillation with training's defaults; its rate keeps the loss finite over any number of steps."""
    shape = (8, size.pixels, size.pixels, 3)
    with strategy.scope():
        distiller = Distiller(
            build_i3d(CLASSES, shape, width=size.width),
            build_i3d(CLASSES, shape, width=size.width),
            feature_loss="bidirectional",
            feature_weight=10.0,
            weight_decay=1e-5,
            xla=xla,
        )
        distiller.compile(optimizer=SummedSGD(1e-5, momentum=0.9))
        distiller.optimizer.build(distiller.trainable_variables)
    return distiller


def make_batch(size: Size) -> dict[str, tf.Tensor]:
    """Two random clips a sample, and labels."""
    shape = (size.batch_size, 8, size.pixels, size.pixels, 3)
    observed, future = (tf.random.stateless_uniform(shape, (0, number), -1.0) for number in range(2))
    return {"observed": observed, "future": future, "label": tf.range(size.batch_size) % CLASSES}


def _build(folder: Path, size: Size) -> Records:
    """Records of as many rendered videos as an epoch has clips, a little larger than the crop."""
    spec = SyntheticSpec(train=size.batch_size * size.steps, unlabeled=0, test=4)
    options = BuildOptions(short_side=size.pixels * 8 // 7)
    build_records(read_synthetic(folder / "videos", spec), folder / "records", options, workers=2)
    return Records.open(folder / "records")


if __name__ == "__main__":
    main()
