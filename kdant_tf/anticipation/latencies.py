"""What computing costs of the time that anticipating gains (Furnari and Farinella's streaming view)."""

import dataclasses
import math
from collections import Counter
from typing import Any

# Latencies are kept to 1 %, so that memory does not grow with their number.
_STEP = 1.01


@dataclasses.dataclass(slots=True)
class Latencies:
    """Counts of answers by their latency.

    Args:
        ahead_s: from the last frame of a clip to the beginning of what is expected; what comes later than
            that is no anticipation. Below 0 where the clips overlap.
    """

    ahead_s: float
    answers: int = 0
    late: int = 0
    dropped: int = 0
    _counts: Counter[int] = dataclasses.field(default_factory=Counter)

    def add(self, latency_s: float, dropped: int = 0) -> None:
        """Takes one answer's latency, and how many windows were dropped before it."""
        self.answers += 1
        self.late += latency_s > self.ahead_s
        self.dropped += dropped
        self._counts[round(math.log(max(latency_s, 1e-6), _STEP))] += 1

    def percentile_s(self, percent: float) -> float:
        """The latency that so many percent of the answers stay within, to 1 %; 0 without answers."""
        wanted, seen = math.ceil(self.answers * percent / 100), 0
        for place in sorted(self._counts):
            seen += self._counts[place]
            if seen >= wanted:
                return float(_STEP**place)
        return 0.0

    def share(self, percent: float = 50) -> float | None:
        """That latency as a share of `ahead_s`; None where nothing is gained that could be lost."""
        return self.percentile_s(percent) / self.ahead_s if self.ahead_s > 0 else None

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        percentiles = {f"p{percent}_s": round(self.percentile_s(percent), 4) for percent in (50, 90, 99)}
        share = self.share()
        return {
            "answers": self.answers,
            "dropped": self.dropped,
            "late": self.late,
            "anticipation_s": round(self.ahead_s, 4),
            **percentiles,
            "share": None if share is None else round(share, 4),
        }
