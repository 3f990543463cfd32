"""From `--devices` to a tf.distribute strategy."""

import functools
import re

import tensorflow as tf

from tf_records.errors import KdantError

_PATTERN = re.compile(r"(cpu|gpu)(?::([1-9]\d*))?")


def make_strategy(devices: str = "auto") -> tf.distribute.Strategy:
    """MirroredStrategy over the devices asked for.

    Args:
        devices: "auto" (every GPU, or the CPU where there is none), "cpu", "gpu", or a number of
            them: "gpu:2", or "cpu:2" for two logical CPU devices.

    Raises:
        KdantError: another text, more GPUs than there are, or logical CPUs asked for after
            TensorFlow has started with another number of them.
    """
    if devices == "auto":
        devices = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    match = _PATTERN.fullmatch(devices)
    if match is None:
        raise KdantError(f"`--devices` should be auto, cpu, gpu, cpu:N or gpu:N. Received: {devices!r}.")
    kind, number = match[1].upper(), match[2]
    if kind == "CPU":
        count = int(number or 1)
        _make_logical_cpus(count)
    else:
        found = len(tf.config.list_physical_devices("GPU"))
        count = int(number or found)
        if count > found or count == 0:
            raise KdantError(
                f"`--devices {devices}` asks for more GPUs than TensorFlow sees, which are {found}."
            )
    return _mirrored_strategy(tuple(f"{kind}:{i}" for i in range(count)))


@functools.cache
def _mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One strategy a set of devices: a second one would reuse the keys of the first one's collectives."""
    return tf.distribute.MirroredStrategy(list(devices))


def _make_logical_cpus(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu)
    if (len(configured) if configured else 1) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise KdantError(
            f"TensorFlow has started with fewer than {count} CPU devices. Ask for them in a new process."
        ) from error
