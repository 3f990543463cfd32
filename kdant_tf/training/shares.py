"""A worker's share of each batch, and from there to its devices."""

from typing import Any

import tensorflow as tf

from kdant_tf.training.workers import count_workers


def distribute(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Any:
    """An iterable of what each device of this worker gets of each batch.

    On one CPU these are the batches themselves. TensorFlow's iterator over devices would start threads and
    trace functions anew for each epoch, to copy to where the batches are already.

    Args:
        strategy: of the training.
        batches: dataset of whole batches; with several workers, of this worker's equal share of them, as
            `training_batches` gives. TensorFlow's own sharding would either decode all on every worker or
            deal out files, which are other batches than one worker's.
    """
    devices = strategy.extended.worker_devices
    if count_workers(strategy) == 1:
        alone = [tf.DeviceSpec.from_string(device).device_type for device in devices] == ["CPU"]
        return batches if alone else strategy.experimental_distribute_dataset(batches)
    # All workers have equally many, whole batches. Asking the others for each whether they have another would
    # be a collective in the thread that reads ahead, out of order with those of the step.
    strategy.extended.experimental_enable_get_next_as_optional = False
    if len(devices) > 1:
        batches = batches.flat_map(lambda batch: _split(batch, len(devices)))
    return strategy.distribute_datasets_from_function(lambda context: batches)


def _split(batch: dict[str, tf.Tensor], devices: int) -> tf.data.Dataset:
    """One batch as a dataset of its equal parts, in order."""
    parts = {
        # (B, …) → (devices, B / devices, …)
        name: tf.reshape(values, (devices, values.shape[0] // devices, *values.shape[1:]))
        for name, values in batch.items()
    }
    return tf.data.Dataset.from_tensor_slices(parts)
