"""A training stops where its numbers are numbers no more."""

import math
from collections.abc import Mapping

from tf_records.errors import KdantError

# Loss scaling halves the scale for each gradient that overflowed: 15 in a row, from Keras' first scale.
_SMALLEST_SCALE = 1.0


class NotFiniteError(KdantError):
    """A loss or gradient that is infinite or not a number."""


def check_finite(losses: Mapping[str, float], epoch: int, step: int) -> None:
    """Refuses to go on from a step whose loss or gradient is not finite.

    Under loss scaling a gradient may overflow now and then: the optimizer leaves that step out.

    Args:
        losses: of `Distiller.train_step`.
        epoch, step: counted from 0.

    Raises:
        NotFiniteError: names the step and the loss's parts.
    """
    if not math.isfinite(losses["loss"]):
        what = "The loss is no longer finite"
    elif not math.isfinite(losses["gradient_norm"]):
        what = "The gradient is no longer finite"
    elif losses.get("loss_scale", _SMALLEST_SCALE) < _SMALLEST_SCALE:
        what = "The gradient overflows float16 at every scale of the loss"
    else:
        return
    raise NotFiniteError(
        f"{what} in epoch {epoch + 1}, step {step + 1} (loss {losses['loss']:.4g}, classification "
        f"{losses['classification_loss']:.4g}, features {losses['feature_loss']:.4g}, gradient norm "
        f"{losses['gradient_norm']:.4g}). Lower --learning-rate or --feature-weight, or give --clip-norm"
    )
