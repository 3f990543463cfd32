"""Memory of the bidirectional loss and its gradient, with and without blocks of queries.

    python tests/benchmarks/bench_pooling_memory.py

Prints one JSON object: peak bytes above what the process held before the step, for each way in a
process of its own, and their ratio; `--xla` has both compiled, as on a GPU. Needs Linux's /proc.
"""

import argparse
import functools
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
CHUNKS = {"unchunked": 0, "chunked": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--positions", type=int, default=8 * 14 * 14)
    parser.add_argument("--channels", type=int, default=832)
    parser.add_argument("--way", choices=CHUNKS, help="measure this one alone, in this process")
    parser.add_argument("--xla", action="store_true")
    options = parser.parse_args()
    shape = (options.batch, options.positions, options.channels)
    if options.way is not None:
        print(json.dumps(measure(CHUNKS[options.way], shape, options.xla)))
        return
    results = {way: json.loads(_run(way)) for way in CHUNKS}
    ratio = results["chunked"]["peak_bytes"] / results["unchunked"]["peak_bytes"]
    print(json.dumps({"shape": shape, "xla": options.xla, **results, "ratio": round(ratio, 4)}))


def _run(way: str) -> str:
    command = [sys.executable, *sys.argv, "--way", way]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def measure(chunk: int | None, shape: tuple[int, int, int], xla: bool) -> dict[str, float]:
    """Peak of one step as the distiller makes it: the loss, and its gradient in the student."""
    import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)

    import tensorflow as tf  # isort: skip

    from kdant_tf.layers.attention_pooling import compile_where_it_pays
    from kdant_tf.losses.features import feature_loss

    loss_of = compile_where_it_pays(
        functools.partial(feature_loss, "bidirectional", chunk=chunk), xla or "auto", chunk
    )

    @tf.function(autograph=False)
    def step(student: Any, teacher: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = loss_of(student, teacher)
        return loss, tape.gradient(loss, student)

    step(*(tf.random.uniform((1, 16, 8)) for _ in range(2)))
    maps = [tf.nn.relu(tf.random.stateless_normal(shape, (0, seed))) for seed in range(2)]
    gc.collect()
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    loss, gradient = step(*maps)
    value = float(loss)
    peak = _status_bytes("VmHWM") - before
    return {"peak_bytes": peak, "loss": value, "gradient_norm": float(tf.norm(gradient))}


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}.")


if __name__ == "__main__":
    main()
