"""Runs in processes of their own: order, failures, several at once, and stopping."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kdant_tf.config import TrainConfig
from kdant_tf.runs import METRICS, load_run
from kdant_tf.studies.runner import WORKER, Runner
from kdant_tf.studies.study_folder import to_toml
from kdant_tf.studies.study_plan import RunSpec
from tf_records.files import lock_folder

pytestmark = pytest.mark.slow

FAKE = """
import json, os, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
print("a library says hello")
print(json.dumps({"epoch": 1, "loss": 1.0, "accuracy": 0.5}), flush=True)
(out.parent / f"{out.name}.gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
if "broken" in out.name:
    sys.exit("Traceback (most recent call last):\\nError: it broke.")
if "crashed" in out.name:
    os.kill(os.getpid(), 9)
if "endless" in out.name:
    while os.read(0, 1):
        pass
    (out.parent / f"{out.name}.stopped").write_text("stopped")
    sys.exit("Error: Stopped by SIGTERM.")
"""


class Log:
    """An Observer that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reasons: dict[str, str] = {}
        self.at_once = self.running = 0

    def planned(self, finished: Sequence[RunSpec], waiting: Sequence[RunSpec]) -> None:
        self.lines.append(f"planned {len(finished)} {len(waiting)}")

    def started(self, spec: RunSpec) -> None:
        self.running += 1
        self.at_once = max(self.at_once, self.running)

    def reported(self, spec: RunSpec, fields: Mapping[str, Any]) -> None:
        self.lines.append(f"{spec.name} {fields['epoch']}")

    def ended(self, spec: RunSpec, seconds: float) -> None:
        assert seconds > 0

    def finished(self, spec: RunSpec) -> None:
        self.running -= 1
        self.lines.append(f"{spec.name} finished")

    def failed(self, spec: RunSpec, reason: str) -> None:
        self.running -= 1
        self.reasons[spec.name] = reason

    def ticked(self) -> None:
        pass


def make(
    folder: Path, records: Path, names: Sequence[str], *, jobs: int = 1, gpus: Sequence[str] = ()
) -> tuple[Runner, Log]:
    """A runner of "NAME" or "NAME<TEACHER" runs."""
    runs = []
    for name in names:
        own, _, teacher = name.partition("<")
        runs.append(
            RunSpec(
                name=own,
                role="student" if teacher else "teacher",
                config=TrainConfig(),
                records=records,
                teacher=teacher or None,
                views=("observed",),
            )
        )
    log = Log()
    return Runner(folder, runs, jobs=jobs, gpus=gpus, observer=log, worker=(sys.executable, "-c", FAKE)), log


def test_a_failing_run_is_named_and_the_others_go_on(tmp_path: Path, record_folder: Path) -> None:
    runner, log = make(tmp_path, record_folder, ["broken", "orphan<broken", "crashed", "fine", "last<fine"])
    failures = runner.run()
    assert failures == log.reasons
    assert failures == {
        "broken": "it broke.",
        "orphan": "its teacher broken failed",
        "crashed": "it was ended by SIGKILL",
    }
    finished = [line for line in log.lines if line.endswith("finished")]
    assert log.lines[0] == "planned 0 5"
    assert finished == ["fine finished", "last finished"]
    assert "fine 1" in log.lines
    assert not (tmp_path / "runs" / "orphan.gpu").exists()


def test_a_run_says_how_to_make_it_alone(tmp_path: Path, record_folder: Path) -> None:
    runner, _ = make(tmp_path, record_folder, ["r", "s<r"])
    runner.run()
    first = (tmp_path / "configs" / "s.toml").read_text().splitlines()[0]
    assert first.startswith(f"# kdant distill --teacher {tmp_path / 'runs' / 'r'} --records {record_folder}")


def test_several_run_at_once_a_gpu_each(tmp_path: Path, record_folder: Path) -> None:
    """The two are only stopped when both have begun, which one after the other would never be."""
    runner, log = make(tmp_path, record_folder, ["endless-1", "endless-2", "x"], jobs=2, gpus=("3", "5"))
    assert runner.run(lambda: sum("endless" in line for line in log.lines) == 2) == {}
    assert log.at_once == 2
    assert {(tmp_path / "runs" / f"endless-{n}.gpu").read_text() for n in (1, 2)} == {"3", "5"}
    for number in (1, 2):
        assert (tmp_path / "runs" / f"endless-{number}.stopped").exists()
    assert not (tmp_path / "runs" / "x.gpu").exists()
    assert runner.done == set()


def test_a_student_before_its_teacher_is_a_mistake(tmp_path: Path, record_folder: Path) -> None:
    with pytest.raises(ValueError, match="after its teacher"):
        make(tmp_path, record_folder, ["s<r", "r"])


def test_a_runner_that_is_killed_takes_its_runs_along(tmp_path: Path, record_folder: Path) -> None:
    """Reading a pipe waits until the run writes to it: that it has begun, and that it was told to stop."""
    (tmp_path / "runs").mkdir()
    begun, stopped = tmp_path / "runs" / "endless.gpu", tmp_path / "runs" / "endless.stopped"
    for path in (begun, stopped):
        os.mkfifo(path)
    script = (
        f"import pathlib, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        f"import test_study_runner as t; "
        f"t.make(pathlib.Path({str(tmp_path)!r}), pathlib.Path({str(record_folder)!r}), ['endless'])[0].run()"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as runner:
        begun.read_text()
        runner.kill()
    assert stopped.read_text() == "stopped"


def work(study: Path, run: Path, records: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a worker for a teacher; its stdin stays open until it ends."""
    config = study / "run.toml"
    config.write_text(to_toml(load_run(run).config))
    command = [*WORKER, "--study", str(study), "--role", "teacher"]
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
