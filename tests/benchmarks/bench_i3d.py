"""I3D forward, its training step and the distillation step, beside their own operations."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from flops import POOLING_PRODUCTS, NetworkFlops, count_network, count_product
from measure import PRODUCT, Row, gflop_per_second, ideal_times, take_turns, take_turns_with_product

from kdant_tf.models.i3d import build_i3d
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import _compile_step

FORWARD, TRAINING, DISTILLATION = "forward", "training", "distillation"
STEPS = (FORWARD, TRAINING, DISTILLATION)
_TITLES = {FORWARD: "I3D forward", TRAINING: "I3D training step", DISTILLATION: "distillation step"}
_ENDPOINT = "Mixed_4f"
CLASSES = 21  # JHMDB's


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """What all steps share. Loss, optimizer and weight decay are training's defaults."""

    batch_size: int = 2
    frames: int = 8
    width: float = 1.0
    repeats: int = 9


def measure_steps(
    pixels: int, steps: tuple[str, ...], settings: StepSettings, strategy: tf.distribute.Strategy
) -> list[Row]:
    """The `steps` at one size against the time that their operations take at the matrix product's rate."""
    student, teacher = build_networks(pixels, settings, strategy)
    batch = make_batch(pixels, settings)
    makers: dict[str, Callable[[], Callable[[], Any]]] = {
        FORWARD: lambda: compile_forward(student, batch),
        TRAINING: lambda: compile_training(student, None, batch, strategy),
        DISTILLATION: lambda: compile_training(student, teacher, batch, strategy),
    }
    times = take_turns_with_product({step: makers[step]() for step in steps}, settings.repeats)
    network = count_network(student)
    rows = []
    for step in steps:
        flops = settings.batch_size * _count_clip(step, student, network)
        rows.append(
            Row(
                name=_TITLES[step],
                pixels=pixels,
                times=times[step],
                against="its operations at the matrix product's rate",
                against_times=ideal_times(times[PRODUCT], flops),
                target=1.15 if step == DISTILLATION and pixels == 224 else None,
                details={
                    "gflop": flops / 1e9,
                    "gflop_per_s": flops / times[step].median / 1e9,
                    "matrix_product_gflop_per_s": gflop_per_second(times[PRODUCT]),
                    "padding_share_of_forward": network.padding / network.forward,
                },
            )
        )
    return rows


def measure_whole_step_xla(pixels: int, settings: StepSettings) -> Row:
    """The distillation step under one jit_compile against the step as training runs it, on one device."""
    strategy = tf.distribute.get_strategy()
    student, teacher = build_networks(pixels, settings, strategy)
    batch = make_batch(pixels, settings)
    step = compile_training(student, teacher, batch, strategy)
    whole = tf.function(step, jit_compile=True, autograph=False)
    times = take_turns({"without": step, "with": whole}, max(1, settings.repeats // 3))
    return Row(
        name="distillation step, all of it in XLA",
        pixels=pixels,
        times=times["with"],
        against="nothing in XLA",
        against_times=times["without"],
    )


def build_networks(
    pixels: int, settings: StepSettings, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, keras.Model]:
    """Student and teacher, in the strategy's scope."""
    shape = (settings.frames, pixels, pixels, 3)
    with strategy.scope():
        student, teacher = (
            build_i3d(CLASSES, shape, width=settings.width, endpoints=(_ENDPOINT,)) for _ in range(2)
        )
    return student, teacher


def make_batch(pixels: int, settings: StepSettings) -> dict[str, tf.Tensor]:
    """Two random clips a sample, and labels."""
    shape = (settings.batch_size, settings.frames, pixels, pixels, 3)
    observed, future = (
        tf.random.stateless_uniform(shape, seed=(0, number), minval=-1.0) for number in range(2)
    )
    return {"observed": observed, "future": future, "label": tf.range(settings.batch_size) % CLASSES}


def compile_forward(network: keras.Model, batch: dict[str, tf.Tensor]) -> Callable[[], Any]:
    """The network as evaluation calls it."""
    forward = tf.function(lambda clip: network(clip, training=False), autograph=False)
    return lambda: forward(batch["observed"])


def compile_training(
    student: keras.Model,
    teacher: keras.Model | None,
    batch: dict[str, tf.Tensor] | Callable[[], dict[str, tf.Tensor]],
    strategy: tf.distribute.Strategy,
) -> Callable[[], Any]:
    """The step that `kdant_tf.training.loop.fit` runs: supervised without a teacher, else distillation.

    A callable gives a batch a step.
    """
    with strategy.scope():
        distiller = Distiller(
            student,
            teacher,
            feature_loss="none" if teacher is None else "bidirectional",
            feature_weight=10.0,
            weight_decay=1e-5,
        )
        # A rate this low keeps the loss finite over any number of steps on random clips.
        distiller.compile(optimizer=keras.optimizers.SGD(1e-5, momentum=0.9))
        distiller.optimizer.build(student.trainable_variables)
    step = _compile_step(distiller, strategy)
    return lambda: step(batch() if callable(batch) else batch)


def _count_clip(step: str, student: keras.Model, network: NetworkFlops) -> int:
    """Operations of one clip, or of one pair of clips."""
    if step == FORWARD:
        return network.forward
    if step == TRAINING:
        return network.training
    _, *positions, channels = student.output[_ENDPOINT].shape
    product = count_product(positions[0] * positions[1] * positions[2], channels)
    return network.forward + network.training + POOLING_PRODUCTS["forward and back"] * product
