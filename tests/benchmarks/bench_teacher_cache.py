"""The distillation step with the teacher's outputs read back, beside the step that computes them.

    python tests/benchmarks/bench_teacher_cache.py --sizes 112,224

Ratios of times measured in turns in one run; prints a table on stderr and one JSON object on stdout. Reading
the rows of pairs drawn at random is part of the cached step; the file is small enough to stay in memory.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)

import tensorflow as tf  # isort: skip
from bench_i3d import CLASSES, StepSettings, build_networks, compile_training, make_batch
from measure import Row, take_turns
from report import describe_machine, print_report
from rich.console import Console

from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.teacher_cache import TeacherCache

PAIRS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="112,224", help="pixels")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    settings = StepSettings(batch_size=options.batch_size, width=options.width, repeats=options.repeats)
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(int(pixels), settings, Path(folder)) for pixels in options.sizes.split(",")]
    print_report(machine, rows, Console(stderr=True, width=None if sys.stderr.isatty() else 150))
    print(json.dumps({"machine": machine, "results": [row.to_dict() for row in rows]}, ensure_ascii=False))


def measure(pixels: int, settings: StepSettings, folder: Path) -> Row:
    """Both steps on the same networks and observed clips."""
    print(f"measuring: {pixels} pixels", file=sys.stderr)
    strategy = make_strategy("cpu")
    student, teacher = build_networks(pixels, settings, strategy)
    batch = make_batch(pixels, settings)
    cache = write_cache(folder / f"{pixels}.rows", teacher)
    without_future = {name: value for name, value in batch.items() if name != "future"}
    index = tf.data.Dataset.random(seed=0).map(lambda number: tf.cast(number % PAIRS, tf.int64))
    numbered = index.batch(settings.batch_size, drop_remainder=True)
    cached = iter(cache.add_outputs(numbered.map(lambda numbers: {**without_future, "index": numbers}), 0))
    times = take_turns(
        {
            "cached": compile_training(student, teacher, lambda: next(cached), strategy),
            "computed": compile_training(student, teacher, lambda: batch, strategy),
        },
        settings.repeats,
    )
    return Row(
        name="distillation step, teacher's outputs read back",
        pixels=pixels,
        times=times["cached"],
        against="computed",
        against_times=times["computed"],
        details={"bytes_per_pair": cache.row.itemsize},
    )


def write_cache(path: Path, teacher: Any) -> TeacherCache:
    """Of random outputs, the file made as a training makes it."""
    (endpoint,) = (name for name in teacher.output if name != "logits")
    shape = tuple(teacher.output[endpoint].shape[1:])
    cache = TeacherCache(path=path, pairs=PAIRS, views=1, classes=CLASSES, map_shape=shape)
    (values,) = cache.row["values"].shape
    with path.open("wb") as file:
        for pair in range(PAIRS):
            outputs = tf.random.stateless_uniform((1, values), (0, pair), 0.0, 1.0)
            file.write(cache.make_rows(outputs.numpy()).tobytes())
    return cache


if __name__ == "__main__":
    main()
