"""A training that is killed at any step ends with the numbers that it would have had."""

import os
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("killed_training.py")


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_training_killed_at_ten_random_steps_ends_bit_for_bit_like_one_that_was_not(
    record_folder: Path, tmp_path: Path
) -> None:
    """The first time by kill -9 of the process, then by an exception that nothing catches."""
    assert start(record_folder, tmp_path, "die").returncode == -signal.SIGKILL
    finished = start(record_folder, tmp_path, "finish")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("equal\n")
