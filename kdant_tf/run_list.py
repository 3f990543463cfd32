"""The runs in a folder, and what they tell: how far they are, what they found, where they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdant_tf.config import TEACHER, TrainConfig
from kdant_tf.runs import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    EXPORT_NAME,
    METRICS_NAME,
    Run,
    best_epoch,
    load_run,
    read_evaluation,
    read_metrics,
    stale_results,
)
from kdant_tf.settings import settings_of
from tf_records.errors import RunError
from tf_records.manifest import MANIFEST_NAME

# Levels of folders that runs are looked for in.
_DEPTH = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run folder tells.

    Args:
        run: as config.json has it.
        rows: of its metrics.csv.
        evaluation: of its evaluation.json: view → result of the network that the run has now.
        stale: names of the results there that are of an earlier network.
    """

    run: Run
    rows: Sequence[dict[str, float]]
    evaluation: dict[str, dict[str, Any]]
    stale: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """ "finished", "another network", "in the middle" or "no epoch done"."""
        if self.run.has_other_network:
            return "another network"
        # A callback may end a training before its last epoch; one that goes on has no digest until it ends.
        ended = self.run.network_sha256 is not None or len(self.rows) >= self.run.config.epochs
        if ended and self.run.model_path.is_file():
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
        unused = {
            name for name, info in settings_of(TrainConfig).items() if info.role not in (None, run.role)
        }
        unused |= {"teacher"} if run.role == TEACHER else set()
        return {name: value for name, value in settings.items() if name not in unused}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRun:
    """A run folder that cannot be read, and why."""

    folder: Path
    reason: str


def list_runs(folder: str | Path) -> tuple[list[RunSummary], list[BrokenRun]]:
    """The runs in `folder` and up to three levels below, by name, and those that cannot be read.

    Raises:
        RunError: no such folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"Folder {folder} does not exist. Give one with run folders in it.")
    runs: list[RunSummary] = []
    broken: list[BrokenRun] = []
    for found in _find_run_folders(folder, _DEPTH):
        try:
            runs.append(_summarize(found))
        except RunError as error:
            broken.append(BrokenRun(folder=found, reason=str(error)))
    if not runs and not broken:
        raise RunError(
            f"No run folder in {folder}, nor {_DEPTH} levels below. Train one: kdant train-teacher --out "
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
    """Run folders are not looked into, nor are records, exports and hidden folders."""
    if (folder / EXPORT_NAME).is_file():
        return
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
    results, stale = read_evaluation(folder), stale_results(folder)
    return RunSummary(
        run=run,
        rows=read_metrics(folder / METRICS_NAME),
        evaluation={name: result for name, result in results.items() if name not in stale},
        stale=stale,
    )
