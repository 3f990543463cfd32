"""How far a study's run is, by its folder. No TensorFlow here."""

import dataclasses
from pathlib import Path

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.predictions import load_predictions
from kdant_tf.metrics_csv import read_metrics
from kdant_tf.runs import (
    CONFIG_NAME,
    EVALUATION_NAME,
    METRICS_NAME,
    PREDICTIONS_NAME,
    load_run,
    manifest_sha256,
)
from kdant_tf.studies.study import RunSpec, run_folder
from tf_records.errors import RunError

TEST = "test"


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
    return run.model_path.is_file() and len(read_metrics(folder / METRICS_NAME)) >= run.config.epochs


def is_finished(spec: RunSpec, study_folder: Path) -> bool:
    """Whether the run is trained, and evaluated on all its views. Raises as `is_trained` does."""
    folder = run_folder(study_folder, spec.name)
    evaluated = not spec.views or (folder / EVALUATION_NAME).is_file()
    return (
        is_trained(spec, study_folder)
        and evaluated
        and all(
            load_predictions(folder / PREDICTIONS_NAME, f"{view}/{TEST}") is not None for view in spec.views
        )
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
