"""Share of a training's time in which it waits for data, with the preset jhmdb-small at 112 pixels.

    python tests/benchmarks/bench_reading.py --jhmdb ../shared/data/jhmdb

Builds records with short side 128 (of rendered videos where no JHMDB is given), trains a teacher, then a
student, and prints one JSON object: `data_wait_share` of each epoch but the first, in which the step is
compiled. The progress line has the same number. The target on two free cores is below 0.03.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)

import keras  # isort: skip

from kdant_tf.config import STUDENT, TEACHER, resolve_config
from kdant_tf.runs import load_run
from kdant_tf.training.train import train
from tf_records.plan import BuildOptions
from tf_records.sources.jhmdb import read_jhmdb
from tf_records.sources.synthetic import SyntheticSpec, read_synthetic
from tf_records.writer import build_records

TARGET = 0.03


class _Waits(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.shares: list[float] = []
        self.clips_per_second: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.shares.append((logs or {})["data_wait_share"])
        self.clips_per_second.append((logs or {})["clips_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jhmdb", type=Path, help="folder in JHMDB's official layout")
    parser.add_argument("--videos", type=int, default=128, help="to render where there is no JHMDB")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.jhmdb is not None:
            annotations = read_jhmdb(options.jhmdb)
        else:
            spec = SyntheticSpec(train=options.videos, unlabeled=0, test=4)
            annotations = read_synthetic(folder / "videos", spec)
        build_records(annotations, folder / "records", BuildOptions(short_side=128), workers=2)
        teacher = _train(folder, "teacher", options.epochs)
        student = _train(folder, "student", options.epochs)
    settings = {name: str(value) for name, value in vars(options).items()}
    print(json.dumps({"settings": settings, "teacher": teacher, "student": student, "target": TARGET}))
    for role, found in (("teacher", teacher), ("student", student)):
        share = max(found["data_wait_share"])
        verdict = "met" if share <= TARGET else "not met"
        print(f"{role}: waits for data {share:.1%} at most, target {TARGET:.0%}: {verdict}", file=sys.stderr)


def _train(folder: Path, role: str, epochs: int) -> dict[str, Any]:
    teacher = load_run(folder / "teacher") if role == "student" else None
    config = resolve_config(
        TEACHER if teacher is None else STUDENT, preset="jhmdb-small", options={"epochs": epochs}
    )
    waits = _Waits()
    train(folder / "records", folder / role, config, teacher=teacher, callbacks=[waits])
    return {
        "data_wait_share": [round(share, 4) for share in waits.shares[1:]],
        "clips_per_second": [round(rate, 1) for rate in waits.clips_per_second[1:]],
    }


if __name__ == "__main__":
    main()
