"""The loop with all that a run's training puts around it: callbacks, checkpoints, signals, the cache."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from kdant_tf.runs import CHECKPOINTS_NAME
from kdant_tf.training.assembly import Assembly
from kdant_tf.training.checkpoint import RunCheckpoints
from kdant_tf.training.checkpoint_folder import SavedCheckpoint, checkpoint_names
from kdant_tf.training.finite import NotFiniteError
from kdant_tf.training.job import Job
from kdant_tf.training.loop import fit
from kdant_tf.training.position import Position
from kdant_tf.training.run_callbacks import run_callbacks
from kdant_tf.training.saving import plot_run, save_networks
from kdant_tf.training.stop_signals import StoppedError, StopSignals
from kdant_tf.training.teacher_cache import TeacherCache
from kdant_tf.training.workers import count_workers, is_chief, worker_number
from tf_records.reader import training_batches


def fit_job(
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
    others: list[keras.callbacks.Callback] = []
    if is_chief(strategy):
        others = [*run_callbacks(job, assembly, lambda to: save_networks(assembly, to), report), *callbacks]
    checkpoints = RunCheckpoints(
        out,
        assembly.network,
        assembly.distiller,
        position,
        others=others,
        minutes=job.run.execution.checkpoint_minutes,
        stop_asked=lambda: stop.received,
    )
    if saved is not None:
        checkpoints.restore(saved)
        done = f"epochs done: {position.epoch}, and steps: {position.step}"
        report(f"Going on from {saved.path.name} ({done}).")
    told = keras.callbacks.CallbackList([*others, checkpoints], model=assembly.distiller)
    told.set_params({"epochs": config.epochs, "steps": job.samples // config.batch_size})
    with _at_its_end(out, writes=is_chief(strategy)), stop:
        if cache is not None and position.epoch < config.epochs:
            clips = config.batch_size // strategy.num_replicas_in_sync
            cache.fill(job, assembly, clips, report, lambda: stop.received)
        return fit(
            assembly.distiller,
            strategy,
            _batches_of(job, assembly, strategy, cache, (position.epoch, position.step)),
            epochs=config.epochs,
            learning_rate=config.learning_rate_at,
            callbacks=told,
            position=position,
            records=assembly.records,
        )


@contextlib.contextmanager
def _at_its_end(out: Path, *, writes: bool) -> Iterator[None]:
    """Where the training ends early: the curves so far, or which checkpoint there is to go on from."""
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
    share = (worker_number(strategy), count_workers(strategy))

    def batches(epoch: int) -> tf.data.Dataset:
        own = training_batches(
            assembly.records,
            views=job.views if cache is None else job.views[:1],
            batch_size=config.batch_size,
            crop=config.crop,
            seed=config.seed,
            epoch=epoch,
            draw=config.draw_at(epoch),
            labels=job.labels,
            labeled_only=job.teacher is None,
            held_out=job.held_out,
            skip_batches=done if epoch == first else 0,
            share=share,
        )
        return own if cache is None else cache.add_outputs(own, epoch)

    return batches
