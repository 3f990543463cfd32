"""What engine and precision make of a network's answer: time, processor time and logits, taken in turns.

    .venv/bin/python tests/benchmarks/bench_inference.py --network i3d-8x112 --network i3d-16x224

Weights are random, batch normalisation has the statistics of one batch, so that values keep the size that
they have in a trained network. Processor time is what to compare where other work runs beside.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click

import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)
from tf_records.start_tensorflow import start_tensorflow

CLASSES = 21
_WARM_UPS = 2
_NETWORKS = ("i3d-8x112", "i3d-16x224", "tsn-MobileNetV2", "tsn-ResNet50", "features3d")


def build(name: str, classes: int = CLASSES) -> Any:
    """A network of _NETWORKS, with statistics of one batch of noise."""
    import keras
    import numpy as np

    from kdant_tf.models.baselines import build_features3d, build_tsn
    from kdant_tf.models.i3d import build_i3d

    keras.utils.set_random_seed(0)
    kind, _, size = name.partition("-")
    if kind == "i3d":
        frames, side = (int(number) for number in size.split("x"))
        network = build_i3d(classes, (frames, side, side, 3), seed=0)
    elif kind == "tsn":
        network = build_tsn(classes, (8, 224, 224, 3), backbone=size, segments=3, seed=0)
    else:
        network = build_features3d(classes, (4, 14, 14, 96), seed=0)
    noise = np.random.default_rng(1).uniform(-1, 1, (2, *network.input.shape[1:]))
    momenta = {}
    for layer in _batch_norms(network):
        momenta[layer], layer.momentum = layer.momentum, 0.0
    network(noise.astype(np.float32), training=True)
    for layer, momentum in momenta.items():
        layer.momentum = momentum
    return network


def _batch_norms(network: Any) -> Iterator[Any]:
    from keras import layers

    from kdant_tf.private_apis import layers_within

    return (layer for layer in layers_within(network) if isinstance(layer, layers.BatchNormalization))


def open_variants(network: Any) -> dict[str, Callable[[Any], Any]]:
    """Title → clips → probabilities."""
    from kdant_tf.models.inference import ENGINES, PRECISIONS, Engine, open_inference

    variants: dict[str, Callable[[Any], Any]] = {}
    for name in ENGINES:
        for precision in PRECISIONS[1:]:
            variants[f"{name} {precision}"] = open_inference(network, Engine(name=name, precision=precision))
    return variants


def measure(variants: dict[str, Callable[[Any], Any]], clips: Any, turns: int) -> None:
    """A line for each: median and least wall and processor time, ratios to the first, logits' difference."""
    import numpy as np

    wall: dict[str, list[float]] = {title: [] for title in variants}
    cpu: dict[str, list[float]] = {title: [] for title in variants}
    logits = {}
    for turn in range(_WARM_UPS + turns):
        for title, answer in variants.items():
            used_s, began_s = _cpu_seconds(), time.perf_counter()
            probabilities = answer(clips)
            ended_s = time.perf_counter()
            # But for a constant of the clip, which the mean takes away.
            logits[title] = np.log(probabilities) - np.log(probabilities).mean(axis=1, keepdims=True)
            if turn >= _WARM_UPS:
                wall[title].append(ended_s - began_s)
                cpu[title].append(_cpu_seconds() - used_s)
    first = next(iter(variants))
    for title in variants:
        times = [1000 * f(each) for each in (wall[title], cpu[title]) for f in (statistics.median, min)]
        ratio = statistics.median(cpu[title]) / statistics.median(cpu[first])
        difference = np.abs(logits[title] - logits[first]).max()
        click.echo(
            f"  {title:22} wall {times[0]:7.1f} ({times[1]:.1f}) ms   processor {times[2]:7.1f} "
            f"({times[3]:.1f}) ms   {ratio:.2f} of the first   logits differ by {difference:.2g}"
        )
    click.echo(f"  logits go from {logits[first].min():.2f} to {logits[first].max():.2f}")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--network", "names", multiple=True, type=click.Choice(_NETWORKS), default=_NETWORKS[:1])
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1))
@click.option("--turns", default=12, show_default=True, type=click.IntRange(1))
def main(names: tuple[str, ...], batch_size: int, turns: int) -> None:
    """Median and least time of one call, the first engine and precision being what the rest is held to."""
    start_tensorflow()
    import numpy as np
    import tensorflow as tf
    from report import describe_machine

    machine = describe_machine()
    click.echo(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']:.2f} before")
    for name in names:
        network = build(name)
        shape = (batch_size, *network.input.shape[1:])
        clips = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        click.echo(f"{name}, {batch_size} clips a call")
        measure(open_variants(network), tf.constant(clips), turns)


if __name__ == "__main__":
    main()
