"""Batches of one epoch after the other, without a wait between them."""

import concurrent.futures
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from tf_records.records import Records, iterate_batches

STEPS_AHEAD = 8


class EpochsAhead:
    """One epoch's batches after the other's; the next epoch is begun while the last steps of this one run.

    Tracing its pipeline and filling its buffers would otherwise be waited for at the start of every epoch,
    and taking a pipeline down, which can take seconds, at the end. Beginning the next no earlier keeps one
    shuffle buffer full at a time.

    Args:
        start: epoch → an iterator of its batches.
        records: where they come from, so that an error can name the damaged shard.
        epochs: that will be asked for, in order.
        steps: an epoch.
        first_step: that the first of the epochs begins with.
    """

    def __init__(
        self,
        start: Callable[[int], Iterator[Any]],
        records: Records | None,
        epochs: range,
        steps: int,
        first_step: int = 0,
    ) -> None:
        self._start = start
        self._records = records
        self._epochs = epochs
        self._begin_at = max(0, steps - STEPS_AHEAD)
        self._first_step = first_step
        # One thread begins the next pipeline while another still takes the last one down.
        self._pool = concurrent.futures.ThreadPoolExecutor(2)
        self._begun: dict[int, concurrent.futures.Future[Iterator[Any]]] = {}
        self._pipelines: dict[int, Iterator[Any]] = {}  # kept, so that they do not end with their last batch

    def batches(self, epoch: int) -> Iterator[Any]:
        self._begin(epoch)
        first = self._first_step if epoch == self._epochs.start else 0
        for number, batch in enumerate(self._begun.pop(epoch).result(), start=first):
            if number >= self._begin_at and epoch + 1 in self._epochs:
                self._begin(epoch + 1)  # what fails there is raised when it is asked for
            yield batch
        self._pool.submit(self._take_down, epoch)

    def close(self) -> None:
        """Waits for what the threads have begun, so that nothing of it runs beside a next training."""
        self._pool.shutdown(cancel_futures=True)
        self._pipelines.clear()

    def _begin(self, epoch: int) -> None:
        if epoch not in self._begun:
            self._begun[epoch] = self._pool.submit(self._read_first_batch, epoch)

    def _read_first_batch(self, epoch: int) -> Iterator[Any]:
        pipeline = self._pipelines[epoch] = self._start(epoch)
        batches = iterate_batches(pipeline, self._records, "train")
        return itertools.chain(list(itertools.islice(batches, 1)), batches)

    def _take_down(self, epoch: int) -> None:
        del self._pipelines[epoch]
