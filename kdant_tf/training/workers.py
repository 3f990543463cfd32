"""What the workers of one training do together. With one worker, all of it is nothing.

A worker is a process; each has the same number of devices. The chief, worker 0, writes what a run leaves
behind. Everything here but `is_chief` and `count_workers` waits for all workers, so all have to call it
in the same order.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kdant_tf.training.strategy import HEARTBEAT_TIMEOUT_S
from kdant_tf.version import __version__
from tf_records.errors import KdantError

_DIGITS = 64  # of a sha256
# What TensorFlow raises where a worker is no longer there.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class WorkerError(KdantError):
    """Workers that are gone, or do not do the same."""


def count_workers(strategy: tf.distribute.Strategy) -> int:
    """Processes that train together."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.extended._num_workers if several else 1


def worker_number(strategy: tf.distribute.Strategy) -> int:
    """This process's number among the workers, from 0; the chief's is 0."""
    return strategy.extended._id_in_cluster if count_workers(strategy) > 1 else 0


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker is the one that writes."""
    return worker_number(strategy) == 0


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called it."""
    _gather(strategy, [0])


def any_worker(strategy: tf.distribute.Strategy, *flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set on any worker; the same answer on all."""
    rows = _gather(strategy, [int(flag) for flag in flags])
    return tuple(bool(column.any()) for column in rows.T)


def of_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """The chief's `number`."""
    return int(_gather(strategy, [number])[0, 0])


def check_same_on_all(strategy: tf.distribute.Strategy, values: Mapping[str, str]) -> None:
    """Refuses workers that disagree.

    Args:
        strategy: of the training.
        values: what they should agree in → what this worker has.

    Raises:
        WorkerError: another worker has something else (names all of it).
    """
    names = sorted(values)
    # First that they speak of the same things, so that the rows below are equally long.
    _compare(strategy, {"the version of kdant": f"{__version__} {names}"})
    _compare(strategy, {name: values[name] for name in names})


def _compare(strategy: tf.distribute.Strategy, values: Mapping[str, str]) -> None:
    digests = [hashlib.sha256(value.encode()).hexdigest() for value in values.values()]
    words = [int(digest[i : i + 4], 16) for digest in digests for i in range(0, _DIGITS, 4)]
    # (workers, values, words)
    rows = _gather(strategy, words).reshape(count_workers(strategy), len(values), -1)
    differs = (rows != rows[:1]).any(axis=-1)
    if differs.any():
        names = [name for name, other in zip(values, differs.any(axis=0), strict=True) if other]
        others = [str(number) for number in np.flatnonzero(differs.any(axis=1))]
        raise WorkerError(
            f"Worker {', '.join(others)} of {len(rows)} differs from worker 0 in {', '.join(names)}. Start "
            f"the same command on the same records everywhere."
        )


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The block runs on the chief, and when that has ended on the others."""
    if not is_chief(strategy):
        wait_for_all(strategy)
    yield
    if is_chief(strategy):
        wait_for_all(strategy)


@contextlib.contextmanager
def naming_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Says in one sentence that another worker is gone, where the block fails for that.

    Raises:
        WorkerError: in place of TensorFlow's error.
    """
    try:
        yield
    except _LOST as error:
        if count_workers(strategy) == 1:
            raise
        raise WorkerError(
            f"Another of the {count_workers(strategy)} workers has ended, or was silent for "
            f"{HEARTBEAT_TIMEOUT_S} s; its own output says why. Start all of them again with --resume."
        ) from error


def _gather(strategy: tf.distribute.Strategy, row: list[int]) -> np.ndarray:
    """Every worker's row of whole numbers below 2^24, `(workers, len(row))`."""
    workers, own = count_workers(strategy), worker_number(strategy)
    if workers == 1:
        return np.array([row])
    devices = len(strategy.extended.worker_devices)

    def rows_of(context: Any) -> tf.Tensor:
        # Zero but for this worker's row on its first device, so that the sum has each row once.
        table = np.zeros((workers, len(row)), np.float32)
        if context.replica_id_in_sync_group % devices == 0:
            table[own] = row
        return tf.constant(table)

    rows = strategy.experimental_distribute_values_from_function(rows_of)
    return strategy.reduce("SUM", rows, axis=None).numpy().astype(np.int64)
