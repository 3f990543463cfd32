"""From summed gradients to an update: SGD or AdamW, weight decay, the learning rate of pretrained layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kdant_tf.config import TrainConfig
from kdant_tf.private_apis import index_in_optimizer

# Weights that may have several dimensions and are no kernels, as Keras names them; `alpha` is PReLU's.
_NO_KERNELS = ("bias", "beta", "gamma", "scale", "alpha", "embeddings")


def is_kernel(variable: keras.Variable) -> bool:
    """Whether weight decay is for `variable`, with every optimizer: what inputs are multiplied by.

    That is any weight of two or more dimensions but biases, embeddings and the scales of normalisation.
    """
    return len(variable.shape) > 1 and variable.name not in _NO_KERNELS


class SummedGradients(keras.optimizers.Optimizer):
    """Part of an optimizer that is given gradients which are summed over the replicas already.

    Keras sums within `apply`, after it has clipped and after LossScaleOptimizer has looked for infinities,
    so that both would see one replica's gradients alone.

    Args:
        pretrained: variables with a learning rate of their own.
        pretrained_share: that rate, as a share of the others'.
        decoupled_decay: share of each kernel that an update takes off it, times the variable's learning
            rate (Loshchilov and Hutter 2019); Keras' own `weight_decay` would know only one rate.
        settings: of the Keras optimizer.
    """

    def __init__(
        self,
        *args: Any,
        pretrained: Iterable[keras.Variable] = (),
        pretrained_share: float = 1.0,
        decoupled_decay: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self._pretrained = frozenset(map(id, pretrained))
        self._pretrained_share = pretrained_share
        self._decoupled_decay = decoupled_decay
        # Of each variable, in the optimizer's order.
        self._rates: tuple[float, ...] = ()
        self._decays: tuple[float, ...] = ()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if not self.built:
            shares = (1.0, self._pretrained_share)
            self._rates = tuple(shares[id(variable) in self._pretrained] for variable in variables)
            self._decays = tuple(self._decoupled_decay * is_kernel(variable) for variable in variables)
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = index_in_optimizer(self, variable)
        rate = ops.cast(learning_rate, variable.dtype)
        if self._rates[index] != 1.0:
            rate = rate * self._rates[index]
        if self._decays[index] > 0:
            self.assign_sub(variable, rate * self._decays[index] * variable)
        self._move(gradient, variable, rate)

    def _move(self, gradient: Any, variable: Any, rate: Any) -> None:
        """Keras' update."""
        super().update_step(gradient, variable, rate)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        return list(grads_and_vars)


class SummedSGD(SummedGradients, keras.optimizers.SGD):
    """Keras' SGD, as `SummedGradients` says."""

    def _move(self, gradient: Any, variable: tf.Variable, rate: Any) -> None:
        if self.momentum == 0 or self.nesterov or isinstance(gradient, tf.IndexedSlices):
            super()._move(gradient, variable, rate)
            return
        # m ← momentum·m − rate·g, w ← w + m: bit for bit Keras' update, for which it traces seven operations.
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index_in_optimizer(self, variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_locking=True,
        )


class SummedAdam(SummedGradients, keras.optimizers.Adam):
    """Keras' Adam, as `SummedGradients` says; with `decoupled_decay` AdamW."""


def make_optimizer(
    config: TrainConfig, pretrained: Iterable[keras.Variable] = ()
) -> keras.optimizers.Optimizer:
    """The optimizer of `config`, its loss scaled where gradients are computed in float16.

    Args:
        config: all settings. The L2 penalty of SGD is not the optimizer's, but added to the gradients
            (`l2_factor`).
        pretrained: variables that `pretrained_learning_rate` is for.
    """
    own = config.pretrained_learning_rate
    share = 1.0 if own is None else own / config.learning_rate
    settings: dict[str, Any] = {"pretrained": pretrained, "pretrained_share": share}
    made: keras.optimizers.Optimizer
    if config.optimizer == "adamw":
        decay = config.weight_decay
        made = SummedAdam(config.learning_rate, config.momentum, decoupled_decay=decay, **settings)
    else:
        made = SummedSGD(config.learning_rate, config.momentum, **settings)
    return keras.optimizers.LossScaleOptimizer(made) if config.precision == "mixed_float16" else made


def l2_factor(config: TrainConfig) -> float:
    """What of the weight decay is a penalty in the gradients: all of it, but for AdamW."""
    return 0.0 if config.optimizer == "adamw" else config.weight_decay


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
    if replicas > 1 and not isinstance(inner, SummedGradients):
        gradients = [gradient / replicas for gradient in gradients]  # it adds them up itself
    optimizer.apply(gradients, variables)
