"""The page as a whole, from run folders made by hand: its sections, and what is refused."""

import json
import re
import subprocess
import sys

import pytest
from run_folders import evaluated, keep, make_predictions, make_run

from kdant_tf.report.report import write_report
from kdant_tf.runs import load_run
from tf_records.errors import KdantError


@pytest.fixture
def run(tmp_path):
    return evaluated(tmp_path / "student", [0, 1, 2, 0]).run.folder


def test_a_page_without_records_has_all_sections_and_says_what_is_missing(run, tmp_path):
    out = tmp_path / "report.html"
    size, samples = write_report([str(run)], str(out))
    text = out.read_text("utf-8")
    assert (size, samples) == (out.stat().st_size, 0)
    assert re.findall("<h2[^>]*>(.*?)</h2>", text) == [
        *("Results", "Samples", "Classes and confidence", "Training", "Settings")
    ]
    assert "There are no clips and no heat maps here" in text
    assert f"Run {run}" in text


def test_what_a_run_has_not_kept_is_said(run, tmp_path):
    (run / "metrics.csv").unlink()
    (run / "predictions.npz").unlink()
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "No run has kept its metrics.csv" in text
    assert "Classes and confidence" not in text


@pytest.mark.slow
def test_a_page_without_records_imports_no_tensorflow(run, tmp_path):
    code = (
        "import sys; from kdant_tf.report.report import write_report; "
        f"write_report([{str(run)!r}], {str(tmp_path / 'report.html')!r}); "
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_out_has_to_be_a_new_file_in_a_folder_that_is_there(run, tmp_path, read_only):
    out = tmp_path / "report.html"
    out.write_text("mine")
    with pytest.raises(KdantError, match="is there already"):
        write_report([run], out)
    assert out.read_text() == "mine"
    write_report([run], out, overwrite=True)
    assert out.read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(KdantError, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(KdantError, match="which is no folder"):
        write_report([run], tmp_path / "absent" / "report.html")
    with (
        read_only(tmp_path),
        pytest.raises(KdantError, match=rf"Folder {tmp_path} of --out cannot be written"),
    ):
        write_report([run], tmp_path / "other.html")
    make_run(tmp_path / "fresh")
    with pytest.raises(KdantError, match="was not evaluated yet"):
        write_report([tmp_path / "fresh"], tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


@pytest.mark.slow
def test_results_of_an_earlier_network_are_left_out_and_named(run, tmp_path):
    """One view is evaluated again after the training went on, the other is not."""
    (run / "model.keras").write_bytes(b"trained further")
    keep(load_run(run), make_predictions([0, 1], [0, 1]), view="future")
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert f"Left out: Run {run} has another network than when it was evaluated (observed)." in text
    assert "student, future clip" in text
    assert "student, observed clip" not in text


@pytest.mark.slow
def test_records_that_were_insisted_on_are_said(run, tmp_path):
    results = json.loads((run / "evaluation.json").read_text())
    results["observed"]["differences"] = ["their clips have offset 20, the run's offset 5"]
    (run / "evaluation.json").write_text(json.dumps(results))
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "not evaluated as it was trained: their clips have offset 20, the run&#39;s offset 5." in text
