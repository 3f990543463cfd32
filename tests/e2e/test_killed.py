"""A training that is killed at any step ends with the numbers that it would have had."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

SCRIPT = Path(__file__).with_name("killed_training.py")


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_training_killed_at_six_random_steps_ends_bit_for_bit_like_one_that_was_not(
    record_folder: Path, tmp_path: Path
) -> None:
    """The first time by kill -9 of the process, then by an exception that nothing catches."""
    assert start(record_folder, tmp_path, "die").returncode == -signal.SIGKILL
    finished = start(record_folder, tmp_path, "finish")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("equal\n")


class Signaller(keras.callbacks.Callback):
    """Sends a signal in a step of the second epoch."""

    number: signal.Signals | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self.number is not None and int(self.model.optimizer.iterations.numpy()) == 6:
            signal.raise_signal(self.number)


def train(records: Path, out: Path, *options: object) -> Result:
    fixed = ("--model", "killed_training:build", "--crop", 32, "--batch-size", 4, "--devices", "cpu")
    command = ("train-teacher", "--records", records, "--out", out, "--epochs", 2, *fixed, *options)
    return CliRunner().invoke(main, [str(argument) for argument in command])


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> type[Signaller]:
    """Sends the signal it is given to each training that begins from here on."""
    from kdant_cli.progress import TrainingProgress

    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(TrainingProgress, "on_train_batch_end", Signaller.on_train_batch_end)
    monkeypatch.setattr(TrainingProgress, "number", None, raising=False)
    return TrainingProgress


def test_a_training_that_is_told_to_stop_says_how_to_go_on_and_does(
    record_folder: Path, tmp_path: Path, signalled: type[Signaller]
) -> None:
    out = tmp_path / "run"
    signalled.number = signal.SIGTERM
    stopped = train(record_folder, out)
    assert stopped.exit_code == 1
    assert "SIGTERM: finishing this step" in stopped.stderr
    assert "Error: Stopped by SIGTERM after step 2 of epoch 2" in stopped.stderr
    assert "--resume" in stopped.stderr
    assert (out / "curves.png").is_file()
    assert not (out / "model.keras").exists()
    changed = train(record_folder, out, "--resume", "--seed", 5, "--learning-rate", 0.5)
    assert changed.exit_code == 1
    assert "learning_rate 0.01 → 0.5; seed 0 → 5" in changed.stderr
    signalled.number = None
    resumed = train(record_folder, out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "Going on from step-00000006 (epochs done: 1, and steps: 2)." in resumed.stderr
    assert train(record_folder, tmp_path / "whole").exit_code == 0
    assert (out / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_minutes_that_are_none_are_refused(record_folder: Path, tmp_path: Path) -> None:
    for minutes in ("-1", "nan"):
        refused = train(record_folder, tmp_path / "run", "--checkpoint-minutes", minutes)
        assert refused.exit_code == 1
        assert "`--checkpoint-minutes` should be 0 or more" in refused.stderr
    assert not (tmp_path / "run").exists()
