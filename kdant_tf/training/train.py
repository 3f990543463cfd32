"""What `kdant train-teacher` and `kdant distill` do, start to end."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from kdant_tf.config import STUDENT, TEACHER, ConfigError, TrainConfig
from kdant_tf.evaluation.plots import plot_curves
from kdant_tf.models.i3d import ENDPOINTS, build_i3d
from kdant_tf.runs import (
    CHECKPOINTS_NAME,
    CURVES_NAME,
    EVALUATION_NAME,
    METRICS_NAME,
    MODEL_NAME,
    TENSORBOARD_NAME,
    Run,
    load_run,
    manifest_sha256,
)
from kdant_tf.training.checkpoint import RunCheckpoints, read_metrics
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import fit
from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.tensorboard import EpochScalars
from tf_records.errors import KdantError, RecordError, RunError
from tf_records.files import atomic_path, claim_folder
from tf_records.reader import Records, training_batches
from tf_records.schema import EITHER, FUTURE, OBSERVED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training prints. `clips_per_second` is of the last epoch."""

    run: Path
    epochs: int
    final_loss: float
    clips_per_second: float

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "run": str(self.run)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One training with its inputs opened and checked."""

    run: Run
    records: Records
    labels: np.ndarray | None
    samples: int
    teacher: Run | None

    @property
    def views(self) -> tuple[str, ...]:
        """Clips to read; the first is the one that the trained network sees."""
        if self.teacher is not None:
            return (OBSERVED, FUTURE)
        return (FUTURE,) if self.run.config.teacher_view == FUTURE else (EITHER,)


def train(
    records_folder: Path,
    out: Path,
    config: TrainConfig,
    *,
    teacher: Run | None = None,
    devices: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult:
    """Trains a teacher, or with `teacher` a student, and leaves a run folder.

    Args:
        records_folder: folder of records.
        out: run folder, made if need be; not empty only with `resume` or `overwrite`.
        config: all settings.
        teacher: a finished run; None trains a teacher.
        devices: see `make_strategy`.
        resume: go on from the last checkpoint in `out`.
        overwrite: replace the run in `out`; other files there stay.
        callbacks: told of epochs and steps, such as a progress bar.

    Raises:
        KdantError: records, teacher, settings, devices and `out` do not fit together (says how).
    """
    records = Records.open(records_folder, clip_frames=config.clip_frames)
    job = _prepare(records, out, config, teacher)
    strategy = make_strategy(devices)
    if config.batch_size % strategy.num_replicas_in_sync:
        raise KdantError(
            f"Batch size {config.batch_size} should be a multiple of the {strategy.num_replicas_in_sync} "
            f"devices. Change --batch-size or --devices."
        )
    _claim_run_folder(job.run, resume=resume, overwrite=overwrite)
    job.run.save()
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        distiller = _build_distiller(job)
    checkpoints = RunCheckpoints(out, distiller)
    finished = checkpoints.restore()
    if finished:
        logging.info("Resuming after epoch %d of %d.", finished, config.epochs)
    told = keras.callbacks.CallbackList(
        [checkpoints, EpochScalars(out / TENSORBOARD_NAME), *callbacks], model=distiller
    )
    told.set_params({"epochs": config.epochs, "steps": job.samples // config.batch_size})
    logs = fit(
        distiller,
        strategy,
        lambda epoch: _batches(job, epoch),
        epochs=range(finished, config.epochs),
        learning_rate=config.learning_rate_at,
        callbacks=told,
    )
    with atomic_path(job.run.model_path) as temporary:
        distiller.student.save(temporary)
    rows = read_metrics(out / METRICS_NAME)
    plot_curves({job.run.folder.name: rows}, out / CURVES_NAME)
    return TrainResult(
        run=out,
        epochs=config.epochs,
        final_loss=rows[-1]["loss"],
        clips_per_second=logs.get("clips_per_second", 0.0),
    )


def _prepare(records: Records, out: Path, config: TrainConfig, teacher: Run | None) -> _Job:
    """Opens and checks everything that can be checked before the first network is built."""
    manifest = records.manifest
    split = records.split("train")
    if len(manifest.classes) < 2:
        raise RecordError(
            f"Training needs at least two classes; {records.folder} has {len(manifest.classes)}. "
            f"Label more rows."
        )
    if config.endpoint not in ENDPOINTS:
        raise ConfigError(
            f"Setting `endpoint` should be one of {', '.join(ENDPOINTS)}. Received: {config.endpoint!r}."
        )
    if teacher is not None:
        teacher.check_records(manifest, records.folder)
    labels = _reduced_labels(records, config) if config.label_fraction < 1 else None
    labeled = split.labeled if labels is None else int(np.sum(labels >= 0))
    samples = labeled if teacher is None else split.records
    if samples < config.batch_size:
        raise RecordError(
            f"Batch size {config.batch_size} is larger than the {samples} training samples in "
            f"{records.folder}. Lower --batch-size."
        )
    run = Run(
        folder=out,
        role=TEACHER if teacher is None else STUDENT,
        config=config,
        classes=manifest.classes,
        clip=manifest.clip,
        modality=manifest.modality,
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(records.folder),
        teacher=None if teacher is None else str(teacher.folder),
    )
    return _Job(run=run, records=records, labels=labels, samples=samples, teacher=teacher)


def _reduced_labels(records: Records, config: TrainConfig) -> np.ndarray:
    """The recorded labels, with all but a seeded `label_fraction` of them replaced by -1 (§4.4)."""
    labels = records.labels("train")
    labeled = np.flatnonzero(labels >= 0)
    order = np.random.default_rng(config.label_seed).permutation(labeled)
    labels[order[round(config.label_fraction * len(labeled)) :]] = -1
    return labels


def _claim_run_folder(run: Run, *, resume: bool, overwrite: bool) -> None:
    """Makes the folder ready; a resumed run must be the same but for the number of epochs."""
    claim_folder(run.folder, resume=resume, overwrite=overwrite)
    if overwrite:
        for name in (CHECKPOINTS_NAME, TENSORBOARD_NAME):
            if (run.folder / name).is_dir():
                tf.io.gfile.rmtree(str(run.folder / name))
        for name in (METRICS_NAME, CURVES_NAME, EVALUATION_NAME, MODEL_NAME):
            (run.folder / name).unlink(missing_ok=True)
    if resume and any(run.folder.iterdir()):
        _check_same_run(load_run(run.folder, finished=False), run)


def _check_same_run(before: Run, now: Run) -> None:
    old, new = dataclasses.asdict(before), dataclasses.asdict(now)
    settings = {
        name: (old["config"][name], new["config"][name]) for name in new["config"] if name != "epochs"
    }
    fields = {name: (old[name], new[name]) for name in ("role", "classes", "records_sha256", "teacher")}
    changed = [f"{name} {a!r} → {b!r}" for name, (a, b) in {**settings, **fields}.items() if a != b]
    if changed:
        raise RunError(
            f"Run {now.folder} was begun with other settings: {'; '.join(changed)}. Resume it as it was "
            f"begun, or give another --out."
        )


def _build_distiller(job: _Job) -> Distiller:
    """Network, frozen teacher and optimizer; to be called in the strategy's scope."""
    config = job.run.config
    student = build_i3d(
        len(job.run.classes),
        (job.run.clip.clip_frames, config.crop, config.crop, 3),
        width=config.width,
        endpoints=(config.endpoint,),
        dropout=config.dropout,
        batch_norm_momentum=config.batch_norm_momentum,
        seed=config.seed,
    )
    teacher = None if job.teacher is None else load_network(job.teacher)
    try:
        distiller = Distiller(
            student,
            teacher,
            view=job.views[0],
            feature_loss="none" if teacher is None else config.feature_loss,
            feature_weight=config.feature_weight,
            endpoint=config.endpoint,
            alpha=config.alpha,
            penalty=config.penalty,
            delta=config.huber_delta,
            reduction=config.reduction,
            weight_decay=config.weight_decay,
        )
    except (ValueError, KeyError) as error:
        raise RunError(f"Teacher and student do not fit: {error}") from error
    distiller.compile(optimizer=keras.optimizers.SGD(config.learning_rate, momentum=config.momentum))
    distiller.optimizer.build(student.trainable_variables)
    return distiller


def load_network(run: Run) -> keras.Model:
    """The trained network of a run.

    Raises:
        RunError: its model.keras cannot be read.
    """
    try:
        return keras.saving.load_model(run.model_path, compile=False)
    except (ValueError, OSError, KeyError) as error:
        raise RunError(f"{run.model_path} cannot be read: {error}. Train the run again.") from error


def _batches(job: _Job, epoch: int) -> tf.data.Dataset:
    config = job.run.config
    return training_batches(
        job.records,
        views=job.views,
        batch_size=config.batch_size,
        crop=config.crop,
        seed=config.seed,
        epoch=epoch,
        labels=job.labels,
        labeled_only=job.teacher is None,
    )
