"""The page as a whole, from run folders made by hand: its sections, and what is refused."""

import re
import subprocess
import sys

import pytest
from run_folders import evaluated, make_run

from kdant_tf.report.report import write_report
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


def test_a_page_without_records_imports_no_tensorflow(run, tmp_path):
    code = (
        "import sys; from kdant_tf.report.report import write_report; "
        f"write_report([{str(run)!r}], {str(tmp_path / 'report.html')!r}); "
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_out_has_to_be_a_new_file_in_a_folder_that_is_there(run, tmp_path):
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
    make_run(tmp_path / "fresh")
    with pytest.raises(KdantError, match="was not evaluated yet"):
        write_report([tmp_path / "fresh"], tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()
