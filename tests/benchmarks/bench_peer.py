"""The distillation step against the same step on piergiaj's PyTorch I3D, in turns."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import tensorflow as tf
from bench_i3d import CLASSES, StepSettings, build_networks, compile_training, make_batch
from measure import Row, take_turns

TARGETS = {112: 0.55, 224: 0.7}


def measure_peer(
    sizes: tuple[int, ...],
    folder: Path,
    python: str,
    settings: StepSettings,
    strategy: tf.distribute.Strategy,
) -> list[Row]:
    """Ours over theirs, one row a size. The other process sleeps while ours runs."""
    rows = []
    with _PeerProcess.start(folder, python, settings) as peer:
        for pixels in sizes:
            student, teacher = build_networks(pixels, settings, strategy)
            step = compile_training(student, teacher, make_batch(pixels, settings), strategy)
            turns = {"ours": step, "peer": lambda pixels=pixels: peer.step(pixels)}
            times = take_turns(turns, settings.repeats)
            rows.append(
                Row(
                    name="distillation step, PyTorch beside",
                    pixels=pixels,
                    times=times["ours"],
                    against="the same in PyTorch",
                    against_times=times["peer"],
                    target=TARGETS.get(pixels),
                    details={"peer": peer.versions},
                )
            )
    return rows


class _PeerProcess:
    """peer_worker.py in its own interpreter."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.versions: dict[str, Any] = json.loads(self._answer())

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path, python: str, settings: StepSettings) -> Iterator["_PeerProcess"]:
        worker = Path(__file__).with_name("peer_worker.py")
        options = {"batch-size": settings.batch_size, "frames": settings.frames, "classes": CLASSES}
        command = [
            python,
            str(worker),
            str(folder),
            *(f"--{name}={value}" for name, value in options.items()),
        ]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield cls(process)
        finally:
            process.stdin.close()  # which ends it
            process.wait()

    def step(self, pixels: int) -> None:
        self._process.stdin.write(f"{pixels}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException("The PyTorch process ended; its own message is above.")
        return line
