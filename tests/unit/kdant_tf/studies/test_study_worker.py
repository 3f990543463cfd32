"""The process of one run of a study: what is finished stays as it is, and errors are one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from kdant_tf.runs import METRICS, load_run
from kdant_tf.studies import worker
from kdant_tf.studies.study_folder import to_toml
from tf_records.files import lock_folder


def work(study: Path, run: Path, records: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a worker for a teacher; its stdin stays open until it ends."""
    config = study / "run.toml"
    config.write_text(to_toml(load_run(run).config))
    command = [sys.executable, "-m", worker.__name__, "--study", str(study), "--role", "teacher"]
    command += ["--records", str(records), "--config", str(config), "--out", str(run), "--views", ""]
    with (
        lock_folder(study, "study"),
        subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        stdout, stderr = process.stdout.read(), process.stderr.read()
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


def test_a_finished_run_is_left_as_it_is(study: Path, tmp_path: Path, finished_run: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes((finished_run / "config.json").read_bytes())
    (run / "model.keras").write_bytes(b"trained")
    row = ",".join(["1", *["0.5"] * len(METRICS)])
    (run / "metrics.csv").write_text(f"epoch,{','.join(METRICS)}\n{row}\n")
    before = {path: path.read_bytes() for path in run.iterdir()}
    done = work(study, run, tmp_path / "no-records")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_what_cannot_be_done_is_one_line(study: Path, tmp_path: Path, finished_run: Path) -> None:
    done = work(study, finished_run, tmp_path / "no-records", "--teacher", str(tmp_path / "no-teacher"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: Run folder {tmp_path / 'no-teacher'} does not exist. Train one: kdant train-teacher or "
        f"kdant distill.\n"
    )
