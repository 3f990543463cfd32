"""How a training takes its run folder: on the chief, who writes there; the other workers follow it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import tensorflow as tf

from kdant_tf.runs import CHECKPOINTS_NAME, Run
from kdant_tf.training.checkpoint_folder import (
    SavedCheckpoint,
    checkpoint_name,
    find_checkpoint,
    read_checkpoint,
)
from kdant_tf.training.job import check_same_run, resumable_run
from kdant_tf.training.workers import check_same_on_all, is_chief, of_chief
from tf_records.files import claim_folder, lock_folder

_NONE = -1


@contextlib.contextmanager
def claim_run(
    run: Run,
    strategy: tf.distribute.Strategy,
    *,
    resume: bool,
    overwrite: bool,
    report: Callable[[str], None],
) -> Iterator[SavedCheckpoint | None]:
    """Makes or accepts the folder of `run`, and keeps other trainings out of it meanwhile.

    Yields:
        The checkpoint to go on from, the same on all workers.

    Raises:
        KdantError: the folder is not empty, holds another run, another training writes there, or no
            checkpoint in it is whole.
        WorkerError: another worker has other settings, records or versions.
    """
    check_same_on_all(strategy, _describe(run))
    with contextlib.ExitStack() as stack:
        saved = None
        if is_chief(strategy):
            claim_folder(run.folder, resume=resume, overwrite=overwrite)
            stack.enter_context(lock_folder(run.folder, "training"))
            saved = _find_own_checkpoint(run, report) if resume else None
        step = of_chief(strategy, _NONE if saved is None else saved.state["position"]["global_step"])
        if not is_chief(strategy) and step != _NONE:
            saved = read_checkpoint(run.folder / CHECKPOINTS_NAME / checkpoint_name(step))
        yield saved


def _find_own_checkpoint(run: Run, report: Callable[[str], None]) -> SavedCheckpoint | None:
    before = resumable_run(run.folder)
    if before is None:
        return None
    check_same_run(before, run)
    return find_checkpoint(run.folder / CHECKPOINTS_NAME, report)


def _describe(run: Run) -> dict[str, str]:
    """All that the workers of one training should agree in, by the name a person knows it under."""
    fields = dataclasses.asdict(run)
    del fields["folder"], fields["teacher"]  # which may lie elsewhere on another machine
    settings = fields.pop("config")
    return {name: repr(value) for name, value in {**fields, **settings}.items()}
