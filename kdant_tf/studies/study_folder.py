"""A study's folder: study.json, how far its runs are, what they run on, and their settings as TOML files.

No TensorFlow here.
"""

import dataclasses
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.predictions import Predictions, load_predictions
from kdant_tf.runs import (
    CONFIG_NAME,
    EVALUATION_NAME,
    METRICS_NAME,
    MODEL_NAME,
    PREDICTIONS_NAME,
    Run,
    describe_provenance,
    load_run,
    manifest_sha256,
    read_metrics,
    stale_results,
    weights_sha256,
)
from kdant_tf.studies.study_plan import RunSpec, run_folder
from tf_records.errors import RunError
from tf_records.files import json_text, parse_json_text, write_text_atomically

STUDY_NAME = "study.json"
TEST = "test"
_CPUINFO = Path("/proc/cpuinfo")
_SECONDS = 30


class StudyFile:
    """study.json: for each table made in the folder its settings, and for each run the seconds it took.

    Args:
        folder: of the study.

    Raises:
        RunError: the file is there and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / STUDY_NAME
        self.fields: dict[str, Any] = {"tables": {}, "seconds": {}}
        if self.path.is_file():
            try:
                self.fields |= {**parse_json_text(self.path.read_text(encoding="utf-8"))}
                dict(self.fields["tables"]), dict(self.fields["seconds"])
            except (OSError, ValueError, TypeError) as error:
                raise RunError(
                    f"{self.path} cannot be read: {error}. Delete it; the runs beside it stay."
                ) from error

    @property
    def seconds(self) -> dict[str, float]:
        """Run → what its training and evaluation took, over all times it was begun."""
        seconds: dict[str, float] = self.fields["seconds"]
        return seconds

    def add_seconds(self, name: str, seconds: float) -> None:
        """Counts a process of the run `name`."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 1)
        self._write()

    def load_description(self, name: str) -> dict[str, Any] | None:
        """What was kept of how a table is made; None where it was not begun yet."""
        description: dict[str, Any] | None = self.fields["tables"].get(name)
        return description

    def save_description(self, name: str, scale: str, runs: Sequence[RunSpec]) -> dict[str, Any]:
        """Keeps what a table is made with, and returns it."""
        description = {
            "scale": scale,
            **describe_provenance(),
            "hardware": describe_hardware(),
            "runs": [_describe_run(spec) for spec in runs],
        }
        self.fields["tables"][name] = description
        self._write()
        return description

    def _write(self) -> None:
        write_text_atomically(self.path, json_text(self.fields, indent=1) + "\n")


def _describe_run(spec: RunSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "role": spec.role,
        "teacher": spec.teacher,
        "records": str(spec.records),
        "records_sha256": manifest_sha256(spec.records),
        "views": list(spec.views),
        "config": dataclasses.asdict(spec.config),
    }


def is_trained(spec: RunSpec, study_folder: Path) -> bool:
    """Whether the run's last epoch is done and its network kept.

    Raises:
        RunError: its folder cannot be read, or was begun with other settings (says which).
    """
    folder = run_folder(study_folder, spec.name)
    if not (folder / CONFIG_NAME).is_file():
        return False
    run = load_run(folder, finished=False)
    _check_same(spec, run.config, folder)
    if (run.records_sha256, run.role) != (manifest_sha256(spec.records), spec.role):
        raise RunError(f"Run {folder} was begun on other records than {spec.records}. Give another --out.")
    if spec.teacher is not None:
        _check_teacher(run, run_folder(study_folder, spec.teacher))
    return run.model_path.is_file() and len(read_metrics(folder / METRICS_NAME)) >= run.config.epochs


def is_finished(spec: RunSpec, study_folder: Path) -> bool:
    """Whether the run is trained, and evaluated on all its views. Raises as `is_trained` does."""
    folder = run_folder(study_folder, spec.name)
    evaluated = not spec.views or (folder / EVALUATION_NAME).is_file()
    return (
        is_trained(spec, study_folder)
        and evaluated
        and all(read_predictions(folder, view) is not None for view in spec.views)
    )


def read_predictions(folder: Path, view: str) -> Predictions | None:
    """Of a run on a view of the test split; None where its network was not evaluated on it.

    Raises:
        RunError: predictions or evaluation.json cannot be read.
    """
    predictions, model = load_predictions(folder / PREDICTIONS_NAME, f"{view}/{TEST}"), folder / MODEL_NAME
    if predictions is None or view in stale_results(folder):
        return None
    known = predictions.weights_sha256
    return predictions if not known or (model.is_file() and weights_sha256(model) == known) else None


def _check_teacher(student: Run, teacher: Path) -> None:
    known, model = student.teacher_sha256, teacher / MODEL_NAME
    if known is not None and model.is_file() and weights_sha256(model) != known:
        raise RunError(
            f"Run {student.folder} was taught by another network than {teacher} has now. Remove "
            f"{student.folder} to train it again, or give another --out."
        )


def _check_same(spec: RunSpec, begun: TrainConfig, folder: Path) -> None:
    now = dataclasses.asdict(spec.config)
    before = dataclasses.asdict(begun)
    changed = [f"{name} {before[name]!r} → {value!r}" for name, value in now.items() if before[name] != value]
    if changed:
        raise RunError(
            f"Run {folder} was begun with other settings: {'; '.join(changed)}. Give the same options as "
            f"then, or another --out."
        )


def describe_hardware() -> dict[str, Any]:
    """For study.json: "cpu", "cores" and "gpus"."""
    return {"cpu": _cpu_model(), "cores": count_cores(), "gpus": _list_gpus("name")}


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to, one GPU at a time; empty where there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return _list_gpus("index")
    names = [name.strip() for name in chosen.split(",")]
    return [] if "-1" in names else [name for name in names if name]


def _list_gpus(field: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _cpu_model() -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def to_toml(config: TrainConfig, comment: str = "") -> str:
    """Settings as a file that `--config` reads: all but those that are None, which is also their default."""
    settings = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    return "".join(f"# {line}\n" for line in comment.splitlines()) + tomli_w.dumps(settings)
