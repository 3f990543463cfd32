"""A network that answers with what is no number: each command ends in one sentence, and writes no result."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from kdant_cli.main import main


@pytest.fixture
def diverged(tiny_run: Path, tmp_path: Path) -> Path:
    """A run whose network gives NaN for every clip."""
    folder = shutil.copytree(tiny_run, tmp_path / "diverged")
    network = keras.saving.load_model(folder / "model.keras", compile=False)
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([kernel, np.full_like(bias, np.nan)])
    network.save(folder / "model.keras")
    return folder


def refuse(*args: object) -> str:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert result.stderr.count("\n") == 1
    assert "Its training diverged" in result.stderr
    return result.stderr


@pytest.mark.slow
def test_evaluate_and_visualize_name_how_many_and_which(diverged, record_folder, tiny_run, tmp_path):
    message = f"The network of run {diverged} gives outputs that are not finite for 8 of 8 samples: "
    assert message in refuse("evaluate", diverged, "--records", record_folder)
    assert message in refuse("visualize", diverged, "--records", record_folder, "--out", tmp_path / "out")
    assert not (diverged / "evaluation.json").exists()
    assert not (diverged / "predictions.npz").exists()


def test_report_does_not_show_predictions_that_were_kept_before(diverged, record_folder, tiny_run, tmp_path):
    fine = shutil.copytree(tiny_run, tmp_path / "fine")
    result = CliRunner().invoke(main, ["evaluate", str(fine), "--records", str(record_folder)])
    assert result.exit_code == 0, result.stderr
    with np.load(fine / "predictions.npz") as kept:
        arrays = dict(kept)
    arrays["future/test/probabilities"][3:5] = np.nan
    np.savez(fine / "predictions.npz", **arrays)
    ids = arrays["future/test/ids"]
    message = refuse("report", fine, "--out", tmp_path / "report.html")
    assert f"for 2 of 8 samples: {ids[3]}, {ids[4]}." in message
    assert not (tmp_path / "report.html").exists()
