"""An exponential moving average of the weights, which takes their place wherever a network is looked at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


class WeightAverage:
    """Average of variables over updates: a_t = d·a_{t−1} + (1 − d)·w_t, d = min(decay, (1 + t) / (10 + t)).

    The smaller d of the first updates lets the average forget the weights that a training began with; with
    a fixed 0.999 they would still be 37 % of it after 1,000 updates. Moving statistics of batch normalisation
    are averaged too, since they have to fit the weights. To be made in the strategy's scope.

    Args:
        variables: that learn, and statistics.
        decay: from 0 to below 1.

    Source: Polyak and Juditsky 1992; the decay of the first updates is that of
    tf.train.ExponentialMovingAverage. Deviations: none.
    """

    def __init__(self, variables: Sequence[keras.Variable], decay: float) -> None:
        self.decay = decay
        self.variables = list(variables)
        self.averages = [
            keras.Variable(
                keras.ops.convert_to_tensor(each), trainable=False, dtype=each.dtype, name="average"
            )
            for each in variables
        ]
        self.updates = keras.Variable(0, trainable=False, dtype="int64", name="updates")
        self._strategy = tf.distribute.get_strategy()

    def update(self) -> None:
        """Takes the weights of this moment in; to be called on each replica."""
        self.updates.assign_add(1)
        done = tf.cast(self.updates.value, tf.float32)
        keep = tf.minimum(self.decay, (1.0 + done) / (10.0 + done))
        for variable, average in zip(self.variables, self.averages, strict=True):
            value, before = variable.value, average.value
            average.assign(before + (1.0 - tf.cast(keep, before.dtype)) * (value - before))

    def swap(self) -> None:
        """Exchanges the weights and their averages, on every device."""
        self._swap()

    @property
    def of_statistics(self) -> list[keras.Variable]:
        """The averages of what does not learn, which differ from device to device as statistics do."""
        pairs = zip(self.variables, self.averages, strict=True)
        return [average for variable, average in pairs if not variable.trainable]

    @property
    def state(self) -> dict[str, object]:
        """What a checkpoint has to hold."""
        return {"averages": [each.value for each in self.averages], "updates": self.updates.value}

    @functools.cached_property
    def _swap(self) -> Callable[[], None]:
        def exchange() -> None:
            for variable, average in zip(self.variables, self.averages, strict=True):
                value, other = tf.identity(variable.value), tf.identity(average.value)
                variable.assign(other)
                average.assign(value)

        swap: Callable[[], None] = tf.function(lambda: self._strategy.run(exchange), autograph=False)
        return swap


class SwapWeights(keras.callbacks.Callback):
    """Exchanges weights and averages at an epoch's end, once before and once after other callbacks.

    Args:
        average: of the network in training.
    """

    def __init__(self, average: WeightAverage) -> None:
        super().__init__()
        self.average = average

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.average.swap()
