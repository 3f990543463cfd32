"""kdant report without records: what it prints, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.report import report

from kdant_tf.evaluation.evaluate import summarize
from kdant_tf.evaluation.predictions import Predictions, save_predictions
from kdant_tf.runs import load_run, record_evaluation


def run(*args: object) -> Result:
    return CliRunner().invoke(report, [str(arg) for arg in args])


@pytest.fixture
def evaluated(tiny_run: Path, tmp_path: Path) -> Path:
    """A run with the result of an evaluation that was never made."""
    run = load_run(shutil.copytree(tiny_run, tmp_path / "a run"))
    names = np.array(["a", "b", "c", "d"])
    predictions = Predictions(probabilities=np.eye(4), labels=np.arange(4), ids=names, videos=names)
    save_predictions(run.folder / "predictions.npz", "future/test", predictions)
    result = summarize(predictions, run.classes, view="future", split="test", train_counts={})
    record_evaluation(run, "future", result.to_dict())
    return run.folder


@pytest.mark.slow
def test_the_page_is_written_and_its_size_is_said(evaluated, tmp_path):
    out = tmp_path / "report.html"
    result = run(evaluated, "--out", out, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"path": str(out), "bytes": out.stat().st_size, "samples": 0}
    table = run(evaluated, "--out", out, "--overwrite")
    assert (table.exit_code, table.stderr) == (0, "")
    assert "samples shown │ 0" in table.stdout


def test_what_a_user_can_mend_is_one_line(evaluated, tmp_path):
    (tmp_path / "there.html").write_text("mine")
    for args, words in (
        ((evaluated, "--out", tmp_path / "there.html"), "add --overwrite"),
        ((tmp_path / "none", "--out", tmp_path / "report.html"), "does not exist"),
        ((evaluated, evaluated, "--out", tmp_path / "report.html"), "should be given once"),
        ((evaluated, "--records", evaluated, "--out", tmp_path / "report.html"), "manifest.json"),
    ):
        result = run(*args)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert run("--out", tmp_path / "report.html").exit_code == 2
