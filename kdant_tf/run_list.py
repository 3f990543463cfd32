"""The runs in a folder, and in what they differ. No TensorFlow here."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdant_tf.config import TEACHER
from kdant_tf.metrics_csv import best_epoch, read_metrics
from kdant_tf.runs import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    EVALUATION_NAME,
    METRICS_NAME,
    Run,
    load_run,
)
from tf_records.errors import RunError
from tf_records.manifest import MANIFEST_NAME

DEPTH = 3
_FOR_STUDENTS = (
    *("feature_loss", "feature_weight", "projection", "alpha", "penalty", "huber_delta", "reduction"),
    "teacher",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run folder tells.

    Args:
        run: as config.json has it.
        rows: of its metrics.csv.
        evaluation: of its evaluation.json: view → result.
    """

    run: Run
    rows: Sequence[dict[str, float]]
    evaluation: dict[str, Any]

    @property
    def state(self) -> str:
        """ "finished", "in the middle" or "no epoch done"."""
        model, metrics = self.run.model_path, self.run.folder / METRICS_NAME
        # A callback may end a training early; one that goes on has written metrics since its model.
        if model.is_file() and (
            len(self.rows) >= self.run.config.epochs
            or (metrics.is_file() and model.stat().st_mtime_ns >= metrics.stat().st_mtime_ns)
        ):
            return "finished"
        return "in the middle" if self.rows else "no epoch done"

    @property
    def last(self) -> dict[str, float]:
        """Metrics of the last epoch, empty before the first."""
        return self.rows[-1] if self.rows else {}

    @property
    def best(self) -> dict[str, float]:
        """Metrics of the epoch that validation finds best, empty where there is none."""
        epoch = best_epoch(self.rows)
        return {} if epoch is None else self.rows[epoch - 1]

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what comes out of the training; of a teacher, without what is for students."""
        run = self.run
        settings = dataclasses.asdict(run.config)
        settings |= {"modality": run.modality, "records_sha256": run.records_sha256, "teacher": run.teacher}
        unused = _FOR_STUDENTS if run.role == TEACHER else ("teacher_view",)
        return {name: value for name, value in settings.items() if name not in unused}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRun:
    """A run folder that cannot be read, and why."""

    folder: Path
    reason: str


def list_runs(folder: Path) -> tuple[list[RunSummary], list[BrokenRun]]:
    """The runs in `folder` and up to DEPTH levels below, by name, and those that cannot be read.

    Raises:
        RunError: no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise RunError(f"Folder {folder} does not exist. Give one with run folders in it.")
    runs: list[RunSummary] = []
    broken: list[BrokenRun] = []
    for found in _find_run_folders(folder, DEPTH):
        try:
            runs.append(_summarize(found))
        except RunError as error:
            broken.append(BrokenRun(folder=found, reason=str(error)))
    if not runs and not broken:
        raise RunError(
            f"No run folder in {folder}, nor {DEPTH} levels below. Train one: kdant train-teacher --out "
            f"{folder / 'teacher'}."
        )
    return runs, broken


def differing_settings(runs: Sequence[RunSummary]) -> tuple[str, ...]:
    """Names of the settings that are not the same in all runs that have them."""
    values: dict[str, list[Any]] = {}
    for run in runs:
        for name, value in run.settings.items():
            values.setdefault(name, []).append(value)
    return tuple(name for name, each in values.items() if any(value != each[0] for value in each))


def _find_run_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Run folders are not looked into, nor are records and hidden folders."""
    if (folder / CONFIG_NAME).is_file() or (folder / METRICS_NAME).is_file():
        yield folder
        return
    if (folder / CHECKPOINTS_NAME).is_dir():
        yield folder
        return
    if depth == 0 or (folder / MANIFEST_NAME).is_file():
        return
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except PermissionError:
        return
    for path in below:
        yield from _find_run_folders(path, depth - 1)


def _summarize(folder: Path) -> RunSummary:
    run = load_run(folder, finished=False)
    return RunSummary(
        run=run,
        rows=read_metrics(folder / METRICS_NAME),
        evaluation=_read_evaluation(folder / EVALUATION_NAME),
    )


def _read_evaluation(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Delete it and evaluate again.") from error
    if not isinstance(results, dict) or not all(isinstance(result, dict) for result in results.values()):
        raise RunError(f"{path} cannot be read: it holds no results. Delete it and evaluate again.")
    return results
