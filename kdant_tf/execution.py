"""How a training runs, as against what it trains. No TensorFlow here."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What may differ when a run is resumed: its results change in rounding at most.

    Args:
        devices: see `kdant_tf.training.strategy.make_strategy`.
    """

    devices: str = "auto"


DEFAULT_EXECUTION = Execution()
