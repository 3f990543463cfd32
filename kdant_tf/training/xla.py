"""From `--xla` to what of a step XLA compiles."""

import tensorflow as tf

from tf_records.errors import KdantError

STEP, POOLING, NOTHING = "step", "pooling", "nothing"
CHOICES = ("auto", "on", "off")


def choose_xla(choice: str, strategy: tf.distribute.Strategy) -> str:
    """What to compile: STEP, all of the step; POOLING, the feature loss alone; or NOTHING.

    Args:
        choice: "on", STEP; "off", NOTHING; "auto", STEP on the GPUs of one machine and POOLING elsewhere:
            oneDNN computes a CPU's convolutions faster than XLA.
        strategy: where the step runs.

    Raises:
        KdantError: another choice, or "on" for several CPU devices.
    """
    if choice not in CHOICES:
        raise KdantError(f"`--xla` should be one of {', '.join(CHOICES)}. Received: {choice!r}.")
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in strategy.extended.worker_devices}
    if choice == "on" and kinds == {"CPU"} and strategy.num_replicas_in_sync > 1:
        raise KdantError(
            f"`--xla on` compiles for one CPU device, this training has {strategy.num_replicas_in_sync}. "
            f"Give --xla auto, or --devices cpu."
        )
    # Collectives between machines within an XLA computation are not tried.
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    whole = kinds == {"GPU"} and not several
    return {"on": STEP, "off": NOTHING, "auto": STEP if whole else POOLING}[choice]
