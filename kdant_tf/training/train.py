"""What `kdant train-teacher` and `kdant distill` do, start to end."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from kdant_tf.config import TrainConfig
from kdant_tf.execution import DEFAULT_EXECUTION, Execution
from kdant_tf.runs import TEACHER_CACHE_NAME, Run
from kdant_tf.training.assembly import assemble
from kdant_tf.training.checkpoint_folder import SavedCheckpoint
from kdant_tf.training.claim import claim_run
from kdant_tf.training.fitting import fit_job
from kdant_tf.training.job import Job, prepare_job, remove_run
from kdant_tf.training.optimizer import check_precision
from kdant_tf.training.result import TrainResult, describe_result
from kdant_tf.training.saving import plot_run, save_result
from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.teacher_cache import TeacherCache, check_views_are_fixed
from kdant_tf.training.workers import is_chief, naming_lost_workers, wait_for_all
from kdant_tf.training.xla import choose_xla
from tf_records.errors import KdantError
from tf_records.files import remove_folder
from tf_records.records import Records
from tf_records.remote_path import RecordPath


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
        _check_settings(job, strategy)
        with claim_run(job.run, strategy, resume=resume, overwrite=overwrite, report=report) as saved:
            return _train(job, strategy, saved, overwrite=overwrite, callbacks=callbacks, report=report)


def _check_settings(job: Job, strategy: tf.distribute.Strategy) -> None:
    """Refuses what the devices cannot do."""
    config, execution = job.run.config, job.run.execution
    _check_batch_size(config, strategy.num_replicas_in_sync)
    check_precision(config.precision, strategy)
    choose_xla(execution.xla, strategy)
    if execution.cache_teacher:
        check_views_are_fixed(job, strategy)


def _train(
    job: Job,
    strategy: tf.distribute.Strategy,
    saved: SavedCheckpoint | None,
    *,
    overwrite: bool,
    callbacks: Sequence[keras.callbacks.Callback],
    report: Callable[[str], None],
) -> TrainResult:
    """What `train` does once the folder is its own."""
    out = job.run.folder
    keras.utils.set_random_seed(job.run.config.seed)
    with strategy.scope():
        assembly = assemble(job, load_weights=saved is None, report=report)
    cache = TeacherCache.of(job, assembly) if job.run.execution.cache_teacher else None
    if cache is not None:
        cache.check_space()
    if is_chief(strategy):
        if overwrite:
            remove_run(out)
        job.run.save()
    logs = fit_job(job, assembly, strategy, saved=saved, cache=cache, callbacks=callbacks, report=report)
    if is_chief(strategy):
        save_result(assembly, out)
        plot_run(out)
        remove_folder(out / TEACHER_CACHE_NAME)
    # The others end when all is written, so that they fail where that does.
    wait_for_all(strategy)
    return describe_result(job.run, strategy, logs)


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
