"""Times of several functions taken in turn, so that a machine that slows down slows all of them."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

PRODUCT = "matrix product"
_PRODUCT_SIZE = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """Seconds of the repeats of one function, by the clock and of the processors.

    The latter hold beside other work, but do not see how well both cores are kept busy.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    def scaled(self, factor: float) -> "Times":
        return Times(*(tuple(factor * value for value in each) for each in (self.seconds, self.cpu_seconds)))

    def to_dict(self) -> dict[str, Any]:
        cpu_s = statistics.median(self.cpu_seconds) if self.cpu_seconds else None
        return {
            "median_s": self.median,
            "minimum_s": self.minimum,
            "median_cpu_s": cpu_s,
            "repeats": len(self.seconds),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One result: the time of `name` over the time of `against`, measured in turn.

    `target` is what two CPU cores should reach or stay under; `details` are figures for the JSON.
    """

    name: str
    times: Times
    against: str
    against_times: Times
    pixels: int | None = None
    target: float | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.times.median / self.against_times.median

    @property
    def ratio_of_minima(self) -> float:
        return self.times.minimum / self.against_times.minimum

    @property
    def cpu_ratio(self) -> float | None:
        """Of the processors' time; None where one of the two ran in another process."""
        if not (self.times.cpu_seconds and self.against_times.cpu_seconds):
            return None
        return statistics.median(self.times.cpu_seconds) / statistics.median(self.against_times.cpu_seconds)

    @property
    def verdict(self) -> str:
        """The target, and whether it is met by the clock, or, on a busy machine, by processor time."""
        if self.target is None:
            return ""
        judged = {"clock": self.ratio, "CPU": self.cpu_ratio}
        met = [
            f"{by} {'met' if ratio <= self.target else 'not met'}" for by, ratio in judged.items() if ratio
        ]
        return f"≤ {self.target}: {', '.join(met)}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pixels": self.pixels,
            **self.times.to_dict(),
            "against": self.against,
            "against_median_s": self.against_times.median,
            "against_minimum_s": self.against_times.minimum,
            "ratio": self.ratio,
            "ratio_of_minima": self.ratio_of_minima,
            "cpu_ratio": self.cpu_ratio,
            "target_on_two_cores": self.target,
            **self.details,
        }


def take_turns(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Times]:
    """Runs each function once per round, after two rounds of warm-up.

    A function is timed until the devices have finished what it began.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(2 + repeats):
        for name, function in functions.items():
            began_s, used_s = time.perf_counter(), time.process_time()
            function()
            tf.test.experimental.sync_devices()
            if number >= 2:
                seconds[name].append(time.perf_counter() - began_s)
                cpu_seconds[name].append(time.process_time() - used_s)
    return {name: Times(tuple(seconds[name]), tuple(cpu_seconds[name])) for name in functions}


def take_turns_with_product(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Times]:
    """`take_turns` with a float32 matrix product before each function; its times are under PRODUCT."""
    matrix = tf.random.stateless_normal((_PRODUCT_SIZE, _PRODUCT_SIZE), seed=(0, 0))
    product = tf.function(lambda: tf.matmul(matrix, matrix), autograph=False)
    schedule: dict[str, Callable[[], Any]] = {}
    for name, function in functions.items():
        schedule[f"{PRODUCT} before {name}"] = product
        schedule[name] = function
    times = take_turns(schedule, repeats)
    before = [times[f"{PRODUCT} before {name}"] for name in functions]
    products = (
        tuple(itertools.chain(*each))
        for each in zip(*((one.seconds, one.cpu_seconds) for one in before), strict=True)
    )
    return {**{name: times[name] for name in functions}, PRODUCT: Times(*products)}


def ideal_times(product_times: Times, flops: int) -> Times:
    """The time of `flops` operations at the rate of the matrix product."""
    return product_times.scaled(flops / _product_flops())


def gflop_per_second(product_times: Times) -> float:
    """The median rate of the matrix product."""
    return _product_flops() / product_times.median / 1e9


def _product_flops() -> int:
    return 2 * _PRODUCT_SIZE**3
