"""A training that diverges stops with one sentence."""

from pathlib import Path

from click.testing import CliRunner
from kdant_cli.main import main
from tiny_network import OPTION as TINY


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, record_folder: Path) -> None:
    options = (*TINY, "--crop", "32", "--batch-size", "8", "--learning-rate", "1e30")
    command = ["train-teacher", "--records", str(record_folder), "--out", str(tmp_path / "run"), *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "no longer finite in epoch 1, step 2" in result.stderr
    assert "there is no checkpoint yet" in result.stderr
    assert not (tmp_path / "run" / "model.keras").exists()
