"""How a training runs, as against what it trains. No TensorFlow here."""

import dataclasses
import math

from tf_records.errors import KdantError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What may differ when a run is resumed: its results change in rounding at most.

    Args:
        devices, strategy: see `kdant_tf.training.strategy.make_strategy`.
        checkpoint_minutes: save within an epoch as often as this, besides at its end; 0 never does.
        deterministic: make every operation give the same bits each time, at some cost.
        xla: "auto", "on" or "off", see `kdant_tf.training.xla.choose_xla`.
        cache_teacher: compute the teacher's outputs once for each pair and view (students).
    """

    devices: str = "auto"
    strategy: str = "auto"
    checkpoint_minutes: float = 10.0
    deterministic: bool = False
    xla: str = "auto"
    cache_teacher: bool = False

    def __post_init__(self) -> None:
        minutes = self.checkpoint_minutes
        if not (math.isfinite(minutes) and minutes >= 0):
            raise KdantError(f"`--checkpoint-minutes` should be 0 or more. Received: {minutes}.")


DEFAULT_EXECUTION = Execution()
