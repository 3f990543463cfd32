"""What a study says while it runs: lines when piped, a table on a terminal, and the time left."""

import io
from pathlib import Path

import pytest
from kdant_cli.study_output import StudyProgress
from rich.console import Console

from kdant_tf.config import TrainConfig
from kdant_tf.studies.study_folder import StudyFile
from kdant_tf.studies.study_plan import RunSpec


def spec(name: str, role: str = "student", epochs: int = 10) -> RunSpec:
    """A run that is only talked of."""
    return RunSpec(
        name=name,
        role=role,
        config=TrainConfig(epochs=epochs, modality="rgb"),
        records=Path("records"),
        teacher=None,
        views=("observed",),
    )


def progress_of(
    tmp_path: Path, *, terminal: bool = False, jobs: int = 1
) -> tuple[StudyProgress, io.StringIO]:
    """Progress that prints into a text."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    return StudyProgress("A study", StudyFile(tmp_path), jobs, console), text


def test_a_line_a_finished_run_when_piped(tmp_path: Path) -> None:
    progress, text = progress_of(tmp_path)
    runs = [spec("a"), spec("b"), spec("c"), spec("d")]
    with progress:
        progress.planned(runs[:1], runs[1:])
        progress.started(runs[1])
        progress.reported(runs[1], {"epoch": 10, "loss": 1.0, "accuracy": 0.5, "validation_accuracy": 0.25})
        progress.reported(runs[1], {"top1": {"observed": 0.5}})
        progress.ticked()
        progress.ended(runs[1], 3600.0)
        progress.finished(runs[1])
        progress.failed(runs[2], "it broke.")
    first, second, third = text.getvalue().splitlines()
    assert first == "1 of 4 runs were finished before."
    assert second == (
        "2/4 runs: b: validation top-1 25.0 %, observed top-1 50.0 %, 1:00:00; about 2:00:00 left"
    )
    assert third == "2/4 runs: c: FAILED: it broke.; about 1:00:00 left"


def test_the_time_left_is_counted_in_epochs_of_like_runs(tmp_path: Path) -> None:
    progress, _ = progress_of(tmp_path, jobs=2)
    teacher, first, second, third = (
        *(spec("teacher", "teacher"), spec("first"), spec("second", epochs=20), spec("third")),
    )
    progress.planned([], [teacher, first, second, third])
    assert progress.left_s() is None
    progress.started(teacher)
    progress.ended(teacher, 10.0)
    progress.finished(teacher)
    assert progress.left_s() == pytest.approx(40 * 1 / 2)  # of the teacher's kind, for want of another
    progress.started(first)
    progress.ended(first, 30.0)
    progress.finished(first)
    assert progress.left_s() == pytest.approx(30 * 3 / 2)
    progress.started(second)
    progress.reported(second, {"epoch": 15, "loss": 1.0, "accuracy": 0.5})
    assert progress.left_s() == pytest.approx((5 + 10) * 3 / 2)


def test_a_resumed_study_knows_what_its_runs_took(tmp_path: Path) -> None:
    before, _ = progress_of(tmp_path)
    before.planned([], [spec("a"), spec("b")])
    before.started(spec("a"))
    before.ended(spec("a"), 20.0)  # stopped
    before.ended(spec("a"), 30.0)
    before.finished(spec("a"))
    again, _ = progress_of(tmp_path)
    again.planned([spec("a")], [spec("b")])
    assert again.left_s() == pytest.approx(50)


def test_a_terminal_shows_what_runs(tmp_path: Path) -> None:
    progress, text = progress_of(tmp_path, terminal=True)
    with progress:
        progress.planned([], [spec("first"), spec("second")])
        progress.started(spec("first"))
        progress.reported(spec("first"), {"epoch": 3, "loss": 1.25, "accuracy": 0.5})
        progress.ticked()
    for words in ("A study", "first", "3/10", "1.250", "50.0 %", "0 of 2 runs, 1 waiting", "so far"):
        assert words in text.getvalue()
