"""How long a model takes to answer, where the time goes, and what threads gain. No TensorFlow."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from kdant_tf.serving.model import AnticipationModel

# Rounds before the first that counts: graphs are traced and kernels chosen in them.
_WARM_UPS = 2
# So much noise makes PNG take the share of raw frames that it takes of JHMDB's, 0.4 to 0.5.
_NOISE = 3.0
_BLOCK = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One question, asked again and again.

    Args:
        whole: asks it, and returns the probabilities once they are there.
        before: name of a part → does all up to the end of that part, in the order of the parts.
        rest: name of what comes after these.
    """

    whole: Callable[[], np.ndarray]
    before: Mapping[str, Callable[[], object]] = dataclasses.field(default_factory=dict)
    rest: str = "compute"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to be timed.

    Args:
        name: for the table.
        model: that answers clips.
        make_calls: uint8 clips `(B, T, H, W, C)` → signature → the call with these clips.
    """

    name: str
    model: AnticipationModel
    make_calls: Callable[[np.ndarray], dict[str, Call]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Times of one signature at one batch size.

    Args:
        model: name of the subject.
        signature: name.
        batch_size: clips a call.
        seconds: of each call, ascending.
        shares: of the parts in the median time.
        ratio: of the median to that of the first subject, where it has the signature and is another one.
    """

    model: str
    signature: str
    batch_size: int
    seconds: tuple[float, ...]
    shares: Mapping[str, float]
    ratio: float | None

    @property
    def clips_per_second(self) -> float:
        return self.batch_size * len(self.seconds) / sum(self.seconds)

    def percentile_s(self, percent: float) -> float:
        """The time that so many percent of the calls stay within."""
        return self.seconds[max(math.ceil(len(self.seconds) * percent / 100), 1) - 1]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = {"model": self.model, "signature": self.signature, "batch_size": self.batch_size}
        percentiles = {f"p{percent}_s": self.percentile_s(percent) for percent in (50, 90, 99)}
        rates = {"minimum_s": self.seconds[0], "clips_per_second": self.clips_per_second}
        return {**names, **percentiles, **rates, "shares": dict(self.shares), "ratio": self.ratio}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThreadsResult:
    """One clip a call, from one thread and from several at a time.

    Args:
        model: name of the subject.
        threads: that ask at a time.
        alone, together: clips a second, from one thread and from all, by the median time.
        largest_difference: between the answers of both.
    """

    model: str
    threads: int
    alone: float
    together: float
    largest_difference: float


def draw_clips(model: AnticipationModel, batch_size: int, height: int, width: int) -> np.ndarray:
    """Smooth shapes that move, with a camera's noise: uint8 `(B, T, H, W, C)`, always the same."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (math.ceil(height / _BLOCK) + 1, math.ceil(width / _BLOCK) + 1), np.uint8)
    plane = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    moved = np.stack([np.roll(plane, 2 * number, axis=1) for number in range(model.clip_frames)])
    clips = moved[None, ..., None] + rng.normal(0, _NOISE, (batch_size, *moved.shape, model.channels))
    return np.clip(clips, 0, 255).astype(np.uint8)


def time_calls(
    subjects: Sequence[Subject],
    *,
    batch_size: int,
    height: int,
    width: int,
    repeats: int,
    on_round: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Times all signatures of all subjects on the same clips, in turns: what else runs slows all alike.

    Args:
        subjects: the first is what the others are compared with.
        batch_size: clips a call.
        height, width: of the frames, in pixels.
        repeats: rounds that count.
        on_round: told of each round that has ended.
    """
    calls = {
        (subject.name, signature): call
        for subject in subjects
        for signature, call in subject.make_calls(
            draw_clips(subject.model, batch_size, height, width)
        ).items()
    }
    functions: dict[tuple[str, str, str | None], Callable[[], object]] = {}
    for (name, signature), call in calls.items():
        functions[name, signature, None] = call.whole
        functions |= {(name, signature, part): function for part, function in call.before.items()}
    seconds = _take_turns(functions, repeats, on_round)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    rows = []
    for (name, signature), call in calls.items():
        whole = medians[name, signature, None]
        reference = medians.get((subjects[0].name, signature, None)) if name != subjects[0].name else None
        ends = {part: medians[name, signature, part] for part in call.before}
        rows.append(
            Row(
                model=name,
                signature=signature,
                batch_size=batch_size,
                seconds=tuple(sorted(seconds[name, signature, None])),
                shares=_share(ends, whole, call.rest),
                ratio=None if reference is None else whole / reference,
            )
        )
    return rows


def time_threads(subject: Subject, *, threads: int, height: int, width: int, repeats: int) -> ThreadsResult:
    """Asks a model for clips one at a time and from `threads` threads at a time, `repeats` times in turns."""
    clips = draw_clips(subject.model, threads, height, width)

    def ask(clip: np.ndarray) -> np.ndarray:
        return subject.model.probabilities(clip[None])

    with ThreadPoolExecutor(threads) as pool:
        ways: dict[str, Callable[[], list[np.ndarray]]] = {
            "alone": lambda: [ask(clip) for clip in clips],
            "together": lambda: list(pool.map(ask, clips)),
        }
        seconds = _take_turns(ways, repeats, lambda: None)
        alone, together = (np.array(ask_all()) for ask_all in ways.values())
    return ThreadsResult(
        model=subject.name,
        threads=threads,
        alone=threads / statistics.median(seconds["alone"]),
        together=threads / statistics.median(seconds["together"]),
        largest_difference=float(np.max(np.abs(alone - together))),
    )


def _take_turns(
    functions: Mapping[Any, Callable[[], object]], repeats: int, on_round: Callable[[], None]
) -> dict[Any, list[float]]:
    seconds: dict[Any, list[float]] = {key: [] for key in functions}
    for number in range(_WARM_UPS + repeats):
        for key, function in functions.items():
            began_s = time.perf_counter()
            function()
            if number >= _WARM_UPS:
                seconds[key].append(time.perf_counter() - began_s)
        on_round()
    return seconds


def _share(ends: Mapping[str, float], whole: float, rest: str) -> dict[str, float]:
    """Shares of parts from the times of their ends; they are measured apart, so none is let below 0."""
    if not ends:
        return {}
    reached, shares = 0.0, {}
    for part, end in (*ends.items(), (rest, whole)):
        shares[part] = max(min(end, whole) - reached, 0.0) / whole
        reached = max(reached, min(end, whole))
    return shares
