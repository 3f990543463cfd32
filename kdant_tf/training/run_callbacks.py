"""The callbacks that measure a training and write its run folder."""

from collections.abc import Callable
from pathlib import Path

import keras

from kdant_tf.runs import METRICS_NAME, TENSORBOARD_NAME
from kdant_tf.training.assembly import Assembly
from kdant_tf.training.best import BestNetwork
from kdant_tf.training.heat_map_samples import heat_map_drawer
from kdant_tf.training.job import Job
from kdant_tf.training.metrics_file import MetricsFile
from kdant_tf.training.tensorboard import TensorBoardEvents
from kdant_tf.training.validation import describe_data, validation_of

# Pictures a training, one more at its end.
_PICTURES = 10


def run_callbacks(
    job: Job, assembly: Assembly, save_networks: Callable[[Path], None], report: Callable[[str], None]
) -> list[keras.callbacks.Callback]:
    """In the order in which they have to be told; validation first, since the others see its numbers.

    Args:
        job, assembly: of the training.
        save_networks: writes the networks into a folder.
        report: told in a line what is validated on.
    """
    config, out = job.run.config, job.run.folder
    validation = validation_of(job, assembly)
    if validation is not None:
        report(describe_data(validation.data))
    drawer = heat_map_drawer(job, assembly, None if validation is None else validation.data)
    events = TensorBoardEvents(out / TENSORBOARD_NAME, drawer, every=max(1, config.epochs // _PICTURES))
    written: list[keras.callbacks.Callback] = [MetricsFile(out / METRICS_NAME), events]
    return written if validation is None else [validation, BestNetwork(out, save_networks), *written]
