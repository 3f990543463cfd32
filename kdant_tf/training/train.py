"""What `kdant train-teacher` and `kdant distill` do, start to end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.config import DEFAULT_EXECUTION, Execution, TrainConfig
from kdant_tf.models.networks import FLOAT32, LOGITS, set_precision
from kdant_tf.models.weights import weights_paths
from kdant_tf.runs import (
    CHECKPOINTS_NAME,
    METRICS_NAME,
    TEACHER_CACHE_NAME,
    Run,
    best_epoch,
    load_run,
    read_metrics,
    weights_sha256,
)
from kdant_tf.training.assembly import Assembly, assemble
from kdant_tf.training.callbacks import best_network, plot_run, run_callbacks, save_result
from kdant_tf.training.checkpoint import (
    RunCheckpoints,
    SavedCheckpoint,
    checkpoint_name,
    checkpoint_names,
    find_checkpoint,
    read_checkpoint,
)
from kdant_tf.training.job import Job, check_same_run, prepare_job, remove_run, resumable_run
from kdant_tf.training.loop import NotFiniteError, Position, fit
from kdant_tf.training.strategy import (
    check_precision,
    check_same_on_all,
    choose_xla,
    count_workers,
    is_chief,
    make_strategy,
    naming_lost_workers,
    of_chief,
    wait_for_all,
    worker_number,
)
from kdant_tf.training.teacher_cache import TeacherCache, check_views_are_fixed
from kdant_tf.training.weight_average import SwapWeights
from tf_records.errors import KdantError, RunError, StoppedError
from tf_records.files import StopSignals, check_apart, claim_folder, lock_folder, remove_folder
from tf_records.reader import clips_in_order, training_epochs
from tf_records.records import Records
from tf_records.remote_path import record_path

# What the chief tells the other workers where there is no checkpoint to go on from.
_NO_STEP = -1
# Whose outputs are looked at before a network is kept.
_CHECKED_CLIPS = 4


def train(
    records: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: TrainConfig,
    *,
    teacher: Run | str | os.PathLike[str] | None = None,
    execution: Execution = DEFAULT_EXECUTION,
    resume: bool = False,
    overwrite: bool = False,
    skip_damaged: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    report: Callable[[str], None] = lambda line: None,
) -> TrainResult:
    """Trains a teacher, or with `teacher` a student, and leaves a run folder.

    Args:
        records: folder of records, local or remote.
        out: run folder, made if need be; not empty only with `resume` or `overwrite`.
        config: all settings.
        teacher: a finished run or its folder; None trains a teacher.
        execution: how it runs.
        resume: go on from the last checkpoint in `out`.
        overwrite: replace the run in `out`; other files there stay.
        skip_damaged: train without the shards whose bytes are not those that the manifest describes; a
            resumed run has to lack the same ones.
        callbacks: called at each epoch and step, such as a progress bar.
        report: called with a line on what takes long before the first epoch, and where it goes on from.

    Raises:
        KdantError: records, teacher, settings, devices and `out` do not fit together (says how).
        StoppedError: SIGTERM or Ctrl-C; a checkpoint was written first.
        WorkerError: of several workers, another has ended, or has other settings or records.
    """
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    if teacher is not None and not isinstance(teacher, Run):
        teacher = load_run(teacher)
    inputs = () if teacher is None else (teacher.folder,)
    check_apart(Path(out), record_path(records), *inputs, *weights_paths(config.init))
    # The first thing of all: several workers have to find each other before TensorFlow runs anything.
    strategy = make_strategy(execution.devices, execution.strategy)
    with naming_lost_workers(strategy):
        opened = Records.open(
            records,
            clip_frames=config.clip_frames,
            modality=config.modality,
            skip_damaged=skip_damaged,
        )
        if opened.left_out:
            report(_describe_left_out(opened))
        job = prepare_job(opened, Path(out), config, teacher, execution)
        _check_devices(job, strategy)
        with _claim_run(job.run, strategy, resume=resume, overwrite=overwrite, report=report) as saved:
            return _train(job, strategy, saved, overwrite=overwrite, callbacks=callbacks, report=report)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training made.

    Args:
        run: the finished run.
        epochs: that were trained, in all.
        final_loss: mean of the last epoch.
        best_epoch: counted from 1, the one whose network was kept; None where nothing was validated.
        validation_accuracy: of that epoch.
        clips_per_second: in the last epoch.
        left_out: damaged shards.
        xla: what XLA compiled, "step", "pooling" or "nothing"; `--xla auto` decides by the devices.
        worker: number of this worker; 0, the chief, wrote the run.
    """

    run: Run
    epochs: int
    final_loss: float
    best_epoch: int | None
    validation_accuracy: float | None
    clips_per_second: float
    left_out: tuple[str, ...]
    xla: str
    worker: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What the command line prints as JSON."""
        return {
            "run": str(self.run.folder),
            "epochs": self.epochs,
            "final_loss": self.final_loss,
            "best_epoch": self.best_epoch,
            "validation_accuracy": self.validation_accuracy,
            "clips_per_second": self.clips_per_second,
            "left_out": list(self.left_out),
            "xla": self.xla,
        }


def _check_devices(job: Job, strategy: tf.distribute.Strategy) -> None:
    """Refuses what the devices cannot do."""
    config, execution = job.run.config, job.run.execution
    parts, replicas = config.gradient_accumulation, strategy.num_replicas_in_sync
    # Every device sees as many samples as any other, in every micro-batch.
    if config.batch_size % (replicas * parts):
        times = "" if parts == 1 else f" times {parts} micro-batches"
        raise KdantError(
            f"Batch size {config.batch_size} should be a multiple of the {replicas} devices{times}. Change "
            f"--batch-size, --gradient-accumulation or --devices."
        )
    if config.mixes and config.batch_size == replicas:
        raise KdantError(
            f"`--mixup` and `--cutmix` mix the samples that a device has of a batch, and with a batch size "
            f"of {replicas} each device has one. Raise --batch-size."
        )
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
    logs = _fit(job, assembly, strategy, saved=saved, cache=cache, callbacks=callbacks, report=report)
    if assembly.average is not None:
        assembly.average.swap()
    run = job.run
    if is_chief(strategy):
        _check_outputs(job, assembly)
        save_result(assembly, out)
        run = dataclasses.replace(run, network_sha256=weights_sha256(run.model_path))
        run.save()
        plot_run(out)
        remove_folder(out / TEACHER_CACHE_NAME)
    # The others end when all is written, so that they fail where that does.
    wait_for_all(strategy)
    return _describe_result(run, strategy, logs, assembly.distiller.compiled_by_xla)


def _fit(
    job: Job,
    assembly: Assembly,
    strategy: tf.distribute.Strategy,
    *,
    saved: SavedCheckpoint | None,
    cache: TeacherCache | None,
    callbacks: Sequence[keras.callbacks.Callback],
    report: Callable[[str], None],
) -> dict[str, float]:
    """Trains from a checkpoint, or from the start, to the last epoch; returns the last logs.

    Args:
        job, assembly: of the training, assembled under `strategy`.
        saved: checkpoint to go on from.
        cache: of the teacher's outputs; filled first, as far as it is not.
        callbacks, report: see `train`.

    Raises:
        NotFiniteError: a loss or gradient that is not finite; names the last checkpoint.
        StoppedError: SIGTERM or Ctrl-C; a checkpoint was written first.
    """
    config, out = job.run.config, job.run.folder
    position, stop = Position(), StopSignals(report)
    chiefs: list[keras.callbacks.Callback] = []
    if is_chief(strategy):
        chiefs = [*run_callbacks(job, assembly, report), *callbacks]
    checkpoints = RunCheckpoints(
        out,
        assembly.network,
        assembly.distiller,
        position,
        average=assembly.average,
        others=chiefs,
        minutes=job.run.execution.checkpoint_minutes,
        stop_requested=lambda: stop.received,
    )
    if saved is not None:
        checkpoints.restore(saved)
        done = f"epochs done: {position.epoch}, and steps: {position.step}"
        report(f"Going on from {saved.path.name} ({done}).")
    # The chief's see the average of the weights, where there is one; checkpoints hold both.
    swaps = [] if assembly.average is None else [SwapWeights(assembly.average)]
    callback_list = keras.callbacks.CallbackList(
        [*swaps, *chiefs, *swaps, checkpoints], model=assembly.distiller
    )
    steps = job.samples // config.batch_size
    callback_list.set_params({"epochs": config.epochs, "steps": steps})
    with _explaining_early_end(out, writes=is_chief(strategy)), stop:
        if cache is not None and position.epoch < config.epochs:
            clips = config.batch_size // strategy.num_replicas_in_sync
            cache.fill(job, assembly, clips, report, lambda: stop.received)
        return fit(
            assembly.distiller,
            strategy,
            _batches_of(job, assembly, strategy, cache, (position.epoch, position.step)),
            epochs=config.epochs,
            learning_rate=functools.partial(config.learning_rate_at, steps=steps),
            callbacks=callback_list,
            position=position,
            records=assembly.records,
            average=assembly.average,
        )


def _check_outputs(job: Job, assembly: Assembly) -> None:
    """Refuses to keep a network whose outputs are not finite, as after a last step that went too far.

    Raises:
        NotFiniteError: says after which epoch.
    """
    if best_network(job.run.folder) is not None:
        return  # Its validation gave numbers.
    config, student = job.run.config, assembly.distiller.student
    batches = clips_in_order(
        assembly.records,
        view=assembly.distiller.view,
        batch_size=_CHECKED_CLIPS,
        crop=config.crop,
        seed=config.seed,
        draw=0,
    )
    # As it will be used, whatever it was trained in.
    set_precision(student, FLOAT32)
    logits = student(next(iter(batches)), training=False)[LOGITS]
    set_precision(student, config.precision)
    if not np.isfinite(logits).all():
        rows = read_metrics(job.run.folder / METRICS_NAME)
        raise NotFiniteError(
            f"The network's outputs are not finite after epoch {len(rows)}, though the loss in it was "
            f"({rows[-1]['loss']:.4g}). Lower --learning-rate or give --clip-norm, and begin again with "
            f"--overwrite."
        )


@contextlib.contextmanager
def _explaining_early_end(out: Path, *, writes: bool) -> Iterator[None]:
    """Where the training ends early: draws its curves so far, or names the checkpoint to go on from."""
    try:
        yield
    except NotFiniteError as error:
        names = checkpoint_names(out / CHECKPOINTS_NAME)
        where = f"the last checkpoint is {names[-1]}" if names else "there is no checkpoint yet"
        raise NotFiniteError(f"{error}; {where}.") from error
    except StoppedError:
        if writes:
            plot_run(out)
        raise


def _batches_of(
    job: Job,
    assembly: Assembly,
    strategy: tf.distribute.Strategy,
    cache: TeacherCache | None,
    begin: tuple[int, int],
) -> Callable[[int], tf.data.Dataset]:
    """Epoch → its batches; of the epoch to begin with, those after the steps that are done."""
    config, (first, done) = job.run.config, begin
    read = training_epochs(
        assembly.records,
        views=job.views if cache is None else job.views[:1],
        batch_size=config.batch_size,
        crop=config.crop,
        seed=config.seed,
        labels=job.labels,
        labeled_only=job.teacher is None,
        held_out=job.held_out,
        share=(worker_number(strategy), count_workers(strategy)),
        augmentation=job.augmentation,
        eight_bits=True,
    )

    def batches(epoch: int) -> tf.data.Dataset:
        dataset = read(epoch, config.draw_at(epoch), done if epoch == first else 0)
        return dataset if cache is None else cache.add_outputs(dataset, epoch)

    return batches


@contextlib.contextmanager
def _claim_run(
    run: Run,
    strategy: tf.distribute.Strategy,
    *,
    resume: bool,
    overwrite: bool,
    report: Callable[[str], None],
) -> Iterator[SavedCheckpoint | None]:
    """Makes or accepts the folder of `run`, and keeps other trainings out of it meanwhile.

    The chief does, who writes there; the other workers follow it.

    Yields:
        The checkpoint to go on from, the same on all workers.

    Raises:
        KdantError: the folder is not empty, holds another run, another training writes there, or no
            checkpoint in it is whole.
        WorkerError: another worker has other settings, records or versions.
    """
    check_same_on_all(strategy, _describe_settings(run))
    with contextlib.ExitStack() as stack:
        saved = None
        if is_chief(strategy):
            claim_folder(run.folder, resume=resume, overwrite=overwrite)
            stack.enter_context(lock_folder(run.folder, "training"))
            saved = _find_own_checkpoint(run, report) if resume else None
        step = of_chief(strategy, _NO_STEP if saved is None else saved.state["position"]["global_step"])
        if not is_chief(strategy) and step != _NO_STEP:
            saved = read_checkpoint(run.folder / CHECKPOINTS_NAME / checkpoint_name(step))
        yield saved


def _find_own_checkpoint(run: Run, report: Callable[[str], None]) -> SavedCheckpoint | None:
    before = resumable_run(run.folder)
    if before is None:
        return None
    check_same_run(before, run)
    saved = find_checkpoint(run.folder / CHECKPOINTS_NAME, report)
    if saved is None and run.model_path.is_file():
        raise RunError(
            f"Run {run.folder} has a trained network, but no checkpoint to go on from. Nothing was changed. "
            f"Use the network as it is, or train anew with --overwrite or another --out."
        )
    done = 0 if saved is None else saved.state["position"]["epoch"]
    if done > run.config.epochs:
        raise RunError(
            f"Run {run.folder} has {done} epochs already, more than --epochs {run.config.epochs}. Nothing "
            f"was changed. Resume it with --epochs {done} or more, or give another --out."
        )
    return saved


def _describe_settings(run: Run) -> dict[str, str]:
    """All that the workers of one training should agree in, by the name a person knows it under."""
    fields = dataclasses.asdict(run)
    del fields["folder"], fields["teacher"]  # which may lie elsewhere on another machine
    settings = fields.pop("config")
    return {name: repr(value) for name, value in {**fields, **settings}.items()}


def _describe_left_out(records: Records) -> str:
    kept, left_out = records.split("train"), records.left_out
    lost = sum(shard.records for shard in left_out)
    return (
        f"Left out {len(left_out)} of {len(left_out) + len(kept.shards)} training shards, {lost} of "
        f"{lost + kept.records} records, because they are damaged: "
        f"{', '.join(shard.file for shard in left_out)}"
    )


def _describe_result(
    run: Run, strategy: tf.distribute.Strategy, logs: dict[str, float], xla: str
) -> TrainResult:
    """The result of `run`, whose last epoch had these logs."""
    rows = read_metrics(run.folder / METRICS_NAME) if is_chief(strategy) else []
    best = best_epoch(rows)
    return TrainResult(
        run=run,
        epochs=len(rows),
        final_loss=rows[-1]["loss"] if rows else logs.get("loss", math.nan),
        best_epoch=best,
        validation_accuracy=None if best is None else rows[best - 1]["validation_accuracy"],
        clips_per_second=logs.get("clips_per_second", 0.0),
        left_out=run.left_out,
        xla=xla,
        worker=worker_number(strategy),
    )
