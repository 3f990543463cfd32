"""What `kdant train-teacher` and `kdant distill` do, start to end."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.plots import plot_curves
from kdant_tf.execution import DEFAULT_EXECUTION, Execution
from kdant_tf.metrics_csv import best_epoch, read_metrics
from kdant_tf.runs import (
    CHECKPOINTS_NAME,
    CURVES_NAME,
    METRICS_NAME,
    MODEL_NAME,
    PROJECTION_NAME,
    TEACHER_CACHE_NAME,
    Run,
)
from kdant_tf.training.assembly import Assembly, assemble
from kdant_tf.training.batch_norm import plain_batch_norm
from kdant_tf.training.best import best_network
from kdant_tf.training.checkpoint import RunCheckpoints
from kdant_tf.training.checkpoint_folder import SavedCheckpoint, checkpoint_names
from kdant_tf.training.claim import claim_run
from kdant_tf.training.finite import NotFiniteError
from kdant_tf.training.job import Job, prepare_job, remove_run
from kdant_tf.training.loop import fit
from kdant_tf.training.optimizer import check_precision
from kdant_tf.training.position import Position
from kdant_tf.training.run_callbacks import run_callbacks
from kdant_tf.training.stop_signals import StoppedError, StopSignals
from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.teacher_cache import TeacherCache, check_views_are_fixed
from kdant_tf.training.workers import (
    count_workers,
    is_chief,
    naming_lost_workers,
    wait_for_all,
    worker_number,
)
from kdant_tf.training.xla import choose_xla
from tf_records.errors import KdantError
from tf_records.files import atomic_path, remove_folder
from tf_records.reader import training_batches
from tf_records.records import Records
from tf_records.remote_path import RecordPath


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training prints.

    `clips_per_second` is of the last epoch, `left_out` names damaged shards, `best_epoch` is the one whose
    network was kept; None where nothing was validated. Where several workers trained, `worker` is this one's
    number; 0, the chief, wrote the run.
    """

    run: Path
    epochs: int
    final_loss: float
    best_epoch: int | None
    validation_accuracy: float | None
    clips_per_second: float
    left_out: tuple[str, ...]
    worker: int = 0

    def to_dict(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        del fields["worker"]  # of which only the chief's result is shown
        return {**fields, "run": str(self.run), "left_out": list(self.left_out)}


def train(
    records_folder: RecordPath,
    out: Path,
    config: TrainConfig,
    *,
    teacher: Run | None = None,
    execution: Execution = DEFAULT_EXECUTION,
    resume: bool = False,
    overwrite: bool = False,
    skip_damaged: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    report: Callable[[str], None] = lambda line: None,
) -> TrainResult:
    """Trains a teacher, or with `teacher` a student, and leaves a run folder.

    Args:
        records_folder: folder of records, local or remote.
        out: run folder, made if need be; not empty only with `resume` or `overwrite`.
        config: all settings.
        teacher: a finished run; None trains a teacher.
        execution: how it runs.
        resume: go on from the last checkpoint in `out`.
        overwrite: replace the run in `out`; other files there stay.
        skip_damaged: train without the shards whose bytes are not those that the manifest describes; a
            resumed run has to lack the same ones.
        callbacks: told of epochs and steps, such as a progress bar.
        report: told in a line what takes long before the first epoch, and where it goes on from.

    Raises:
        KdantError: records, teacher, settings, devices and `out` do not fit together (says how).
        StoppedError: SIGTERM or Ctrl-C; a checkpoint was written first.
        WorkerError: of several workers, another has ended, or has other settings or records.
    """
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    # The first thing of all: several workers have to find each other before TensorFlow runs anything.
    strategy = make_strategy(execution.devices, execution.strategy)
    with naming_lost_workers(strategy):
        records = Records.open(
            records_folder,
            clip_frames=config.clip_frames,
            modality=config.modality,
            skip_damaged=skip_damaged,
        )
        if records.left_out:
            report(_describe_left_out(records))
        job = prepare_job(records, out, config, teacher, execution)
        _check_batch_size(config, strategy.num_replicas_in_sync)
        check_precision(config.precision, strategy)
        choose_xla(execution.xla, strategy)
        if execution.cache_teacher:
            check_views_are_fixed(job, strategy)
        saved = claim_run(job.run, strategy, resume=resume, overwrite=overwrite, report=report)
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            assembly = assemble(job, load_weights=saved is None, report=report)
        cache = TeacherCache.of(job, assembly) if execution.cache_teacher else None
        if cache is not None:
            cache.check_space()
        if is_chief(strategy):
            if overwrite:
                remove_run(out)
            job.run.save()
        logs = _fit(job, assembly, strategy, saved, cache, callbacks, report)
        if is_chief(strategy):
            _save(assembly, out)
            _plot(out)
            remove_folder(out / TEACHER_CACHE_NAME)
        # The others end when all is written, so that they fail where that does.
        wait_for_all(strategy)
    return _describe_result(job, strategy, logs)


def _describe_result(job: Job, strategy: tf.distribute.Strategy, logs: dict[str, float]) -> TrainResult:
    out = job.run.folder
    rows = read_metrics(out / METRICS_NAME) if is_chief(strategy) else []
    best = best_epoch(rows)
    return TrainResult(
        run=out,
        epochs=len(rows),
        final_loss=rows[-1]["loss"] if rows else logs.get("loss", math.nan),
        best_epoch=best,
        validation_accuracy=None if best is None else rows[best - 1]["validation_accuracy"],
        clips_per_second=logs.get("clips_per_second", 0.0),
        left_out=job.run.left_out,
        worker=worker_number(strategy),
    )


def _check_batch_size(config: TrainConfig, replicas: int) -> None:
    """Every device sees as many samples as any other, in every micro-batch."""
    parts = config.gradient_accumulation
    if config.batch_size % (replicas * parts):
        times = "" if parts == 1 else f" times {parts} micro-batches"
        raise KdantError(
            f"Batch size {config.batch_size} should be a multiple of the {replicas} devices{times}. Change "
            f"--batch-size, --gradient-accumulation or --devices."
        )


def _describe_left_out(records: Records) -> str:
    kept, left_out = records.split("train"), records.left_out
    lost = sum(shard.records for shard in left_out)
    return (
        f"Left out {len(left_out)} of {len(left_out) + len(kept.shards)} training shards, {lost} of "
        f"{lost + kept.records} records, because they are damaged: "
        f"{', '.join(shard.file for shard in left_out)}"
    )


def _fit(
    job: Job,
    assembly: Assembly,
    strategy: tf.distribute.Strategy,
    saved: SavedCheckpoint | None,
    cache: TeacherCache | None,
    callbacks: Sequence[keras.callbacks.Callback],
    report: Callable[[str], None],
) -> dict[str, float]:
    """Trains from a checkpoint, or from the start, to the last epoch; returns the last logs."""
    config, out, distiller = job.run.config, job.run.folder, assembly.distiller
    position, stop = Position(), StopSignals(report)
    others: list[keras.callbacks.Callback] = []
    if is_chief(strategy):
        others = [*run_callbacks(job, assembly, lambda to: _save_networks(assembly, to), report), *callbacks]
    checkpoints = RunCheckpoints(
        out,
        assembly.network,
        distiller,
        position,
        others=others,
        minutes=job.run.execution.checkpoint_minutes,
        stop_asked=lambda: stop.received,
    )
    if saved is not None:
        checkpoints.restore(saved)
        report(
            f"Going on from {saved.path.name} (epochs done: {position.epoch}, and steps: {position.step})."
        )
    told = keras.callbacks.CallbackList([*others, checkpoints], model=distiller)
    told.set_params({"epochs": config.epochs, "steps": job.samples // config.batch_size})
    first, done = position.epoch, position.step
    share = (worker_number(strategy), count_workers(strategy))
    try:
        with stop:
            if cache is not None and position.epoch < config.epochs:
                clips = config.batch_size // strategy.num_replicas_in_sync
                cache.fill(job, assembly, clips, report, lambda: stop.received)
            return fit(
                distiller,
                strategy,
                lambda epoch: _batches(
                    job, assembly.records, epoch, done if epoch == first else 0, share, cache
                ),
                epochs=config.epochs,
                learning_rate=config.learning_rate_at,
                callbacks=told,
                position=position,
                records=assembly.records,
            )
    except NotFiniteError as error:
        names = checkpoint_names(out / CHECKPOINTS_NAME)
        where = f"the last checkpoint is {names[-1]}" if names else "there is no checkpoint yet"
        raise NotFiniteError(f"{error}; {where}.") from error
    except StoppedError:
        if is_chief(strategy):
            _plot(out)
        raise


def _save(assembly: Assembly, out: Path) -> None:
    """The best epoch's networks where epochs were validated, else the last one's."""
    best = best_network(out)
    if best is None:
        _save_networks(assembly, out)
        return
    for path in best.iterdir():
        with atomic_path(out / path.name) as temporary:
            shutil.copyfile(path, temporary)


def _save_networks(assembly: Assembly, out: Path) -> None:
    """The network, and beside it the projection that it was trained through, where there is one."""
    with plain_batch_norm(assembly.batch_norms), atomic_path(out / MODEL_NAME) as temporary:
        assembly.network.save(temporary)
    projection = assembly.distiller.projection
    if projection is not None:
        student_map = keras.layers.Input((projection.kernel.shape[0],))
        with atomic_path(out / PROJECTION_NAME) as temporary:
            keras.Model(student_map, projection(student_map), name="projection").save(temporary)


def _plot(out: Path) -> None:
    rows = read_metrics(out / METRICS_NAME)
    if rows:
        plot_curves({out.name: rows}, out / CURVES_NAME)


def _batches(
    job: Job, records: Records, epoch: int, done: int, share: tuple[int, int], cache: TeacherCache | None
) -> tf.data.Dataset:
    config = job.run.config
    batches = training_batches(
        records,
        views=job.views if cache is None else job.views[:1],
        batch_size=config.batch_size,
        crop=config.crop,
        seed=config.seed,
        epoch=epoch,
        draw=config.draw_at(epoch),
        labels=job.labels,
        labeled_only=job.teacher is None,
        held_out=job.held_out,
        skip_batches=done,
        share=share,
    )
    return batches if cache is None else cache.add_outputs(batches, epoch)
