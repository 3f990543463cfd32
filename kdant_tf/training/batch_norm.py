"""Batch normalisation while a network is trained: over all devices, or not at all; and its statistics.

Keras' flags `synchronized` and `trainable` of the layers are all it takes, for networks of any kind. They
are set for the training alone, so that what is saved is a plain network.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from kdant_tf.config import TrainConfig
from tf_records.errors import RunError

BatchNorms = tuple[keras.layers.BatchNormalization, ...]


def prepare_batch_norm(network: keras.Model, config: TrainConfig) -> BatchNorms:
    """Sets what `sync_batch_norm` and `freeze_batch_norm` ask for; returns the layers that were changed.

    A frozen one normalises by its moving statistics and keeps them, scale and shift, as everywhere in Keras
    where `trainable` is False: the layer is then a constant, which no small batch can move.

    Args:
        network: that will be trained, before its step is traced and its optimizer built.
        config: the settings.

    Raises:
        RunError: the network has no batch normalisation that learns.
    """
    if not (config.sync_batch_norm or config.freeze_batch_norm):
        return ()
    found = _find_batch_norms(network)
    if not found:
        name = "sync_batch_norm" if config.sync_batch_norm else "freeze_batch_norm"
        raise RunError(
            f"Setting `{name}` is for networks with batch normalisation that learns, and {config.model} has "
            f"none. Leave it out."
        )
    for layer in found:
        layer.synchronized = config.sync_batch_norm
        layer.trainable = not config.freeze_batch_norm
    return found


@contextlib.contextmanager
def plain_batch_norm(changed: BatchNorms) -> Iterator[None]:
    """Within the block, which saves the network, the layers are as `prepare_batch_norm` found them."""
    flags = [(layer.synchronized, layer.trainable) for layer in changed]
    for layer in changed:
        layer.synchronized, layer.trainable = False, True
    try:
        yield
    finally:
        for layer, (synchronized, trainable) in zip(changed, flags, strict=True):
            layer.synchronized, layer.trainable = synchronized, trainable


def agree_on_statistics(network: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Gives every device the mean over devices of moving statistics; to be called on all workers.

    Each device keeps those of its own share of the batches. A moving average of means is the mean of moving
    averages, so that it makes no difference when, or how often, this is done during a training.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    statistics = _find_statistics(network)
    if not statistics:
        return

    def take_mean() -> None:
        # Copies, since what is read of a variable names no device to reduce to.
        own = [tf.identity(variable.value) for variable in statistics]
        replica = tf.distribute.get_replica_context()
        assert replica is not None
        for variable, mean in zip(statistics, replica.all_reduce("MEAN", own), strict=True):
            variable.assign(mean)

    tf.function(lambda: strategy.run(take_mean), autograph=False)()


def _find_batch_norms(network: keras.Model) -> BatchNorms:
    layers = network._flatten_layers(include_self=False)
    return tuple(
        each for each in layers if isinstance(each, keras.layers.BatchNormalization) and each.trainable
    )


def _find_statistics(network: keras.Model) -> list[keras.Variable]:
    """What layers that learn keep beside their weights, but for whole numbers, such as dropout's seeds."""
    layers = [each for each in network._flatten_layers(include_self=False) if each.trainable]
    found = {id(each): each for layer in layers for each in layer._non_trainable_variables}
    return [each for each in found.values() if "float" in each.dtype]
