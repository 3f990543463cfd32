"""One run of a study, in a process of its own: `python -m kdant_tf.studies.worker`.

It trains, or goes on, evaluates, and prints each epoch as a line of JSON. When its stdin ends, because the
`Runner` asks it to stop or is gone, it stops as after SIGTERM: with a checkpoint.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from kdant_tf.config import Execution, resolve_config
from kdant_tf.runs import METRICS_NAME, Run, load_run, read_metrics
from tf_records.errors import KdantError
from tf_records.files import share_lock
from tf_records.remote_path import record_path
from tf_records.start_tensorflow import start_tensorflow


def main() -> None:
    """Does what its arguments say; exit code 1 and one line on stderr where it cannot."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = _parse()
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


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
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
        print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
