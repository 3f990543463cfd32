"""Epochs follow one another without a wait, and what fails in one is raised where it is asked for."""

import contextlib
import threading
from collections.abc import Iterator

import pytest

from kdant_tf.training.loop import PREFETCH_STEPS, EpochPrefetcher

STEPS = PREFETCH_STEPS + 2


class SlowPipeline:
    """An iterator that is taken down only once it may be, as TensorFlow's sometimes take seconds."""

    def __init__(self, epoch: int, may_end: threading.Event, ended: list[int]) -> None:
        self.epoch = epoch
        self.steps = iter(range(STEPS))
        self.may_end = may_end
        self.ended = ended

    def __iter__(self) -> "SlowPipeline":
        return self

    def __next__(self) -> tuple[int, int]:
        return self.epoch, next(self.steps)

    def __del__(self) -> None:
        self.may_end.wait()
        self.ended.append(self.epoch)


def test_no_epoch_waits_for_the_one_before_to_be_taken_down():
    may_end, ended = threading.Event(), []
    prefetcher = EpochPrefetcher(lambda epoch: SlowPipeline(epoch, may_end, ended), None, range(2), STEPS)
    received = [batch for epoch in range(2) for batch in prefetcher.batches(epoch)]
    assert received == [(epoch, step) for epoch in range(2) for step in range(STEPS)]
    assert ended == []
    may_end.set()
    prefetcher.close()
    assert sorted(ended) == [0, 1]


def test_the_next_epoch_is_begun_before_this_one_ends():
    begun = {1: threading.Event(), 2: threading.Event()}

    def start(epoch: int) -> Iterator[int]:
        begun[epoch].set()
        return iter(range(STEPS))

    with contextlib.closing(EpochPrefetcher(start, None, range(1, 3), STEPS)) as prefetcher:
        batches = prefetcher.batches(1)
        for _ in range(STEPS - PREFETCH_STEPS):
            next(batches)
        assert not begun[2].is_set()
        next(batches)
        assert begun[2].wait(timeout=60)
        assert len(list(batches)) == PREFETCH_STEPS - 1


def test_an_epoch_that_is_begun_in_its_middle_begins_the_next_one_in_time():
    begun = threading.Event()

    def start(epoch: int) -> Iterator[int]:
        if epoch == 1:
            begun.set()
        return iter(range(STEPS if epoch else STEPS - 1))

    with contextlib.closing(EpochPrefetcher(start, None, range(2), 2 * STEPS, STEPS + 1)) as prefetcher:
        batches = prefetcher.batches(0)
        for _ in range(STEPS - 1 - PREFETCH_STEPS):
            next(batches)
        assert not begun.is_set()
        next(batches)
        assert begun.wait(timeout=60)
        assert len(list(batches)) == PREFETCH_STEPS - 1
        assert list(prefetcher.batches(1)) == list(range(STEPS))


def test_an_epoch_that_cannot_begin_fails_when_it_is_asked_for():
    def start(epoch: int) -> Iterator[int]:
        if epoch == 1:
            raise OSError("no such shard")
        return iter(range(STEPS))

    with contextlib.closing(EpochPrefetcher(start, None, range(2), STEPS)) as prefetcher:
        assert list(prefetcher.batches(0)) == list(range(STEPS))
        with pytest.raises(OSError, match="no such shard"):
            list(prefetcher.batches(1))
