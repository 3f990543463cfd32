"""Where a training stands, to the step: all that the loop has to know to go on from there."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from kdant_tf.training.distiller import COUNTS


class EpochMeter:
    """Running means of an epoch, and how its time was spent."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.clips = 0
        self.waited_s = 0.0
        self.spent_s = 0.0  # before a resumed epoch was resumed
        self.began_s = time.perf_counter()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, with the wait for each counted."""
        self.began_s = time.perf_counter()
        while True:
            asked_s = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - asked_s
            if batch is None:
                return
            yield batch

    def add(self, values: dict[str, float], clips: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.clips += clips

    def logs(self) -> dict[str, float]:
        """Means of the losses over steps, accuracy over labelled samples, speed, share of time waiting."""
        means = {name: total / self.steps for name, total in self.sums.items() if name not in COUNTS}
        return {
            **means,
            "accuracy": self.sums["correct"] / max(self.sums["labeled"], 1.0),
            "clips_per_second": self.clips / self._elapsed_s(),
            "data_wait_share": self.waited_s / self._elapsed_s(),
        }

    def get_state(self) -> dict[str, Any]:
        names = ("sums", "steps", "clips", "waited_s")
        return {**{name: getattr(self, name) for name in names}, "spent_s": self._elapsed_s()}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def _elapsed_s(self) -> float:
        return self.spent_s + time.perf_counter() - self.began_s


@dataclasses.dataclass(slots=True, kw_only=True)
class Position:
    """How far a training has come; the loop moves it on.

    Args:
        epoch: that runs or comes next, counted from 0.
        global_step: steps done in all epochs.
        meter: of the steps done in `epoch`.
        stopped: whether a callback, such as EarlyStopping, ended the training.
    """

    epoch: int = 0
    global_step: int = 0
    meter: EpochMeter = dataclasses.field(default_factory=EpochMeter)
    stopped: bool = False

    @property
    def step(self) -> int:
        """Steps done in `epoch`."""
        return self.meter.steps

    def add(self, values: dict[str, float], clips: int) -> None:
        """Counts one step, with its losses and counts."""
        self.meter.add(values, clips)
        self.global_step += 1

    def begin_next_epoch(self) -> None:
        self.epoch += 1
        self.meter = EpochMeter()

    def get_state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "global_step": self.global_step,
            "stopped": self.stopped,
            "meter": self.meter.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.epoch, self.global_step = state["epoch"], state["global_step"]
        self.stopped = state["stopped"]
        self.meter = EpochMeter()
        self.meter.set_state(state["meter"])
