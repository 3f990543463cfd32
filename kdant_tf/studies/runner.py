"""Trains and evaluates the runs of a study, several at once, each in a process of its own.

`Runner` starts the processes and listens to them; it imports no TensorFlow. `main` is one of them,
`python -m kdant_tf.studies.runner`: it trains, or goes on, evaluates, and prints each epoch as a line of
JSON. When its stdin ends, because the Runner asks it to stop or is gone, it stops as after SIGTERM: with a
checkpoint.
"""

import argparse
import contextlib
import dataclasses
import os
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kdant_tf.config import Execution, resolve_config
from kdant_tf.runs import METRICS_NAME, Run, load_run, read_metrics
from kdant_tf.studies.study_folder import is_finished, to_toml
from kdant_tf.studies.study_plan import RunSpec, run_folder
from tf_records.errors import KdantError
from tf_records.files import json_text, parse_json_text, share_lock, write_text_atomically
from tf_records.remote_path import record_path
from tf_records.start_tensorflow import start_tensorflow

WORKER = (sys.executable, "-m", "kdant_tf.studies.runner")
_TICK_S = 0.5
# Characters of a failed run's reason.
_LONGEST_REASON = 300


class Observer(Protocol):
    """What happens to the runs is reported to it."""

    def planned(self, finished: Sequence[RunSpec], waiting: Sequence[RunSpec]) -> None:
        """Once, before the first run is begun."""

    def started(self, spec: RunSpec) -> None:
        """A process for the run has been begun."""

    def reported(self, spec: RunSpec, fields: Mapping[str, Any]) -> None:
        """The run has said "epoch", "loss" and "accuracy", or "top1" of its views."""

    def ended(self, spec: RunSpec, seconds: float) -> None:
        """The process has ended, after so long; `finished` or `failed` follows."""

    def finished(self, spec: RunSpec) -> None:
        """The run is trained and evaluated."""

    def failed(self, spec: RunSpec, reason: str) -> None:
        """The run ended otherwise, or cannot be begun."""

    def ticked(self) -> None:
        """Some time has passed."""


@dataclasses.dataclass(slots=True)
class _Child:
    spec: RunSpec
    process: subprocess.Popen[bytes]
    gpu: str | None
    log: Path
    began_s: float
    unread: bytes = b""


class Runner:
    """Runs what is not finished yet, in order; a student waits for its teacher.

    A run that fails is reported, and the others go on, but for its students.

    Args:
        study_folder: with `runs`, `configs` and `logs`.
        runs: in order, teachers before their students.
        jobs: int >= 1, how many at once.
        gpus: names for CUDA_VISIBLE_DEVICES, dealt out to the runs one at a time; empty without GPUs.
        observer: of what happens.
        devices: of each run, see `kdant_tf.training.strategy.make_strategy`.
        worker: command of a run's process, see `main`.

    Raises:
        ValueError: a student comes before its teacher.
    """

    def __init__(
        self,
        study_folder: Path,
        runs: Sequence[RunSpec],
        *,
        jobs: int,
        gpus: Sequence[str],
        observer: Observer,
        devices: str = "auto",
        worker: Sequence[str] = WORKER,
    ) -> None:
        names = [spec.name for spec in runs]
        for number, spec in enumerate(runs):
            if spec.teacher is not None and spec.teacher not in names[:number]:
                raise ValueError(f"Run {spec.name} should come after its teacher, {spec.teacher}.")
        self.folder = study_folder
        self.jobs = jobs
        self.gpus = gpus
        self.observer = observer
        self.devices = devices
        self.worker = worker
        done = [spec for spec in runs if is_finished(spec, study_folder)]
        self.done = {spec.name for spec in done}
        self.waiting = [spec for spec in runs if spec.name not in self.done]
        self.failures: dict[str, str] = {}
        self.children: list[_Child] = []
        self.stopping = False
        self.selector = selectors.DefaultSelector()
        observer.planned(done, list(self.waiting))

    def run(self, stop_requested: Callable[[], bool] = lambda: False) -> dict[str, str]:
        """Returns name of the run → reason for those that failed; ends early where it is asked to.

        What runs is then asked to stop, and waited for; an exception kills it.
        """
        try:
            while self.children or (self.waiting and not self.stopping):
                if stop_requested() and not self.stopping:
                    self.stopping = True
                    for child in self.children:
                        _request_stop(child)
                if not self.stopping:
                    self._start_ready_runs()
                self._listen()
                self.observer.ticked()
        finally:
            for child in self.children:
                child.process.kill()
                child.process.wait()
        return self.failures

    def _start_ready_runs(self) -> None:
        for spec in list(self.waiting):
            if spec.teacher in self.failures:
                self.waiting.remove(spec)
                self._fail(spec, f"its teacher {spec.teacher} failed")
            elif len(self.children) < self.jobs and spec.teacher in (None, *self.done):
                self.waiting.remove(spec)
                self._start(spec)

    def _start(self, spec: RunSpec) -> None:
        config, log = self.folder / "configs" / f"{spec.name}.toml", self.folder / "logs" / f"{spec.name}.log"
        for path in (config, log, run_folder(self.folder, spec.name)):
            path.parent.mkdir(exist_ok=True)
        write_text_atomically(config, to_toml(spec.config, self._equivalent_command(spec, config)))
        gpu = self._free_gpu()
        with log.open("wb") as errors:
            process = subprocess.Popen(
                self._command(spec, config),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=None if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu},
                start_new_session=True,  # a Ctrl-C is for this process, which passes it on once
            )
        child = _Child(spec, process, gpu, log, time.monotonic())
        self.children.append(child)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self.selector.register(process.stdout, selectors.EVENT_READ, child)
        self.observer.started(spec)

    def _command(self, spec: RunSpec, config: Path) -> list[str]:
        out = run_folder(self.folder, spec.name)
        options = {
            "study": self.folder,
            "role": spec.role,
            "records": spec.records,
            "config": config,
            "out": out,
            "views": ",".join(spec.views),
            "devices": self.devices,
        }
        if spec.teacher is not None:
            # In full, since a run is resumed only with the same teacher.
            options["teacher"] = run_folder(self.folder, spec.teacher).resolve()
        pairs = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [*self.worker, *pairs]

    def _equivalent_command(self, spec: RunSpec, config: Path) -> str:
        verb = ["train-teacher"]
        if spec.teacher is not None:
            verb = ["distill", "--teacher", str(run_folder(self.folder, spec.teacher))]
        options = ("--records", spec.records, "--config", config, "--out", run_folder(self.folder, spec.name))
        return shlex.join(["kdant", *verb, *map(str, options)])

    def _free_gpu(self) -> str | None:
        """The one with the fewest runs on it."""
        busy = [child.gpu for child in self.children]
        return min(self.gpus, key=busy.count) if self.gpus else None

    def _listen(self) -> None:
        if not self.children:
            return
        for key, _ in self.selector.select(_TICK_S):
            child: _Child = key.data
            assert child.process.stdout is not None
            block = child.process.stdout.read(1 << 16)
            if block == b"":
                self.selector.unregister(child.process.stdout)
                self._end(child)
                continue
            *lines, child.unread = (child.unread + (block or b"")).split(b"\n")
            for line in lines:
                if fields := _parse_line(line):
                    self.observer.reported(child.spec, fields)

    def _end(self, child: _Child) -> None:
        code = child.process.wait()
        self.children.remove(child)
        for pipe in (child.process.stdin, child.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        self.observer.ended(child.spec, time.monotonic() - child.began_s)
        if code == 0:
            self.done.add(child.spec.name)
            self.observer.finished(child.spec)
        elif not self.stopping:
            self._fail(child.spec, _reason(child.log, code))

    def _fail(self, spec: RunSpec, reason: str) -> None:
        self.failures[spec.name] = reason
        self.observer.failed(spec, reason)


def _request_stop(child: _Child) -> None:
    assert child.process.stdin is not None
    child.process.stdin.close()


def _parse_line(line: bytes) -> dict[str, Any]:
    """What a run says of itself; nothing, where a library printed something."""
    try:
        return parse_json_text(line)
    except ValueError:
        return {}


def _reason(log: Path, code: int) -> str:
    """The last line on its stderr, or the signal that ended it."""
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    written = [line for line in lines if line]
    return (written[-1] if written else f"exit code {code}").removeprefix("Error: ")[:_LONGEST_REASON]


def main() -> None:
    """One run of a study, as its arguments say; exit code 1 and one line on stderr where it cannot be."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = _parse_arguments()
    try:
        share_lock(Path(arguments.study))
        _stop_when_stdin_ends()
        run = _train(arguments)
        if arguments.views:
            _evaluate(run, arguments)
    except KdantError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        sys.exit(f"Error: the system refused {error.filename or 'something'}: {error.strerror or error}.")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One run of a study.")
    for name in ("study", "role", "records", "config", "out", "views"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--teacher")
    parser.add_argument("--devices", default="auto")
    return parser.parse_args()


def _stop_when_stdin_ends() -> None:
    def wait() -> None:
        # Not through sys.stdin, whose lock a thread must not hold when the interpreter ends.
        while os.read(0, 1 << 10):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _train(arguments: argparse.Namespace) -> Run:
    """The finished run, trained if it was not yet."""
    out = Path(arguments.out)
    config = resolve_config(arguments.role, file=Path(arguments.config))
    if (out / "model.keras").is_file() and len(read_metrics(out / METRICS_NAME)) >= config.epochs:
        return load_run(out)
    teacher = None if arguments.teacher is None else load_run(arguments.teacher)
    start_tensorflow()
    import keras

    from kdant_tf.training.train import train

    def print_epoch(epoch: int, logs: dict[str, Any] | None) -> None:
        names = ("loss", "accuracy", "validation_accuracy")
        numbers = {name: float(logs[name]) for name in names if logs is not None and name in logs}
        _print_json({"epoch": epoch + 1, **numbers})

    train(
        record_path(arguments.records),
        out,
        config,
        teacher=teacher,
        execution=Execution(devices=arguments.devices),
        resume=True,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=print_epoch)],
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    return load_run(out)


def _evaluate(run: Run, arguments: argparse.Namespace) -> None:
    start_tensorflow()
    from kdant_tf.evaluation.evaluate import evaluate_run
    from kdant_tf.models.networks import load_network
    from tf_records.records import Records

    records = Records.open(record_path(arguments.records), split="test")
    network = load_network(run)
    results = {
        view: evaluate_run(run, records, view=view, network=network).top1
        for view in arguments.views.split(",")
    }
    _print_json({"top1": results})


def _print_json(fields: dict[str, Any]) -> None:
    # Where nobody listens any more, the checkpoint is still to be written.
    with contextlib.suppress(BrokenPipeError):
        print(json_text(fields), flush=True)


if __name__ == "__main__":
    main()
