"""What a difference between two maps costs: squared (paper eq. 8, 9) or Huber's (§4.2)."""

from typing import Any

from keras import ops

PENALTIES = ("huber", "squared")
REDUCTIONS = ("mean", "sum")


def penalize(difference: Any, penalty: str, delta: float) -> Any:
    """x², or 0.5·x² within delta and delta·(|x| − 0.5·delta) beyond, for each element."""
    if penalty == "squared":
        return ops.square(difference)
    size = ops.abs(difference)
    quadratic = ops.minimum(size, delta)
    return 0.5 * ops.square(quadratic) + delta * (size - quadratic)


def penalty_slope(difference: Any, penalty: str, delta: float) -> Any:
    """The derivative of `penalize`."""
    return 2.0 * difference if penalty == "squared" else ops.clip(difference, -delta, delta)


def reduce_penalties(penalties: Any, reduction: str) -> Any:
    """Mean over everything, or sum over positions and channels averaged over the batch.

    Args:
        penalties: float32 `(B, N, d)`.
        reduction: "mean" or "sum".
    """
    # Channels first: XLA adds ten million values up one by one on a CPU, and loses 3e-4 of their sum.
    mean = ops.mean(ops.mean(penalties, axis=-1))
    return mean if reduction == "mean" else mean * elements_of_a_sample(penalties)


def elements_of_a_sample(values: Any) -> Any:
    """N · d of `(B, N, d)`, as float32."""
    _, positions, channels = ops.shape(values)
    return ops.cast(positions, "float32") * ops.cast(channels, "float32")
