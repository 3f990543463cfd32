"""The optimizer as the step calls it: on gradients that all replicas have agreed on."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.config import TrainConfig
from tf_records.errors import KdantError


class SummedSGD(keras.optimizers.SGD):
    """Keras' SGD, given gradients that are summed over the replicas already.

    Keras sums within `apply`, after it has clipped and after LossScaleOptimizer has looked for infinities,
    so that both would see one replica's gradients alone.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        return list(grads_and_vars)


def make_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """SGD with the momentum of `config`, its loss scaled where gradients are computed in float16."""
    sgd = SummedSGD(config.learning_rate, momentum=config.momentum)
    return keras.optimizers.LossScaleOptimizer(sgd) if config.precision == "mixed_float16" else sgd


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Any:
    """What the gradients have to be divided by, or None where no loss is scaled."""
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return tf.identity(optimizer.dynamic_scale.value) if scaled else None


def apply_summed(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[keras.Variable]
) -> None:
    """Updates `variables` by gradients that are summed over the replicas, with any optimizer."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1 and not isinstance(inner, SummedSGD):
        gradients = [gradient / replicas for gradient in gradients]  # it adds them up itself
    optimizer.apply(gradients, variables)


def check_precision(precision: str, strategy: tf.distribute.Strategy) -> None:
    """Refuses to train in mixed precision on a CPU.

    Raises:
        KdantError: says why.
    """
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in strategy.extended.worker_devices}
    if precision != "float32" and kinds != {"GPU"}:
        raise KdantError(
            f"`--precision {precision}` needs a GPU: in 16 bits a CPU gives filter gradients of convolutions "
            f"that are NaN. Leave it out, or give --devices gpu."
        )
