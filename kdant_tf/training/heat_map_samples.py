"""Heat maps of a few fixed samples, drawn of the networks in training (paper §4.2, Figure 3)."""

from collections.abc import Callable

import keras
import numpy as np

from kdant_tf.evaluation.heat_maps import first_clips, heat_map_rows
from kdant_tf.evaluation.plots import heat_map_pixels
from kdant_tf.models.networks import feature_map_name
from kdant_tf.training.assembly import Assembly
from kdant_tf.training.job import Job
from kdant_tf.training.validation import TRAIN, ValidationData
from tf_records.schema import FUTURE, OBSERVED

ROWS = 4
# Records to look for ROWS classes in.
_LOOKED_AT = 256


def heat_map_drawer(
    job: Job, assembly: Assembly, data: ValidationData | None
) -> Callable[[], np.ndarray] | None:
    """Draws the network in training on the first sample of each of ROWS classes, and the teacher beside it.

    The samples are of `data`, or else of the training split, without augmentation; never of the test split
    unless that is validated on. None where the networks have no map in space.
    """
    student, teacher = assembly.distiller.student, assembly.distiller.teacher
    if not all(_has_places(network) for network in (student, teacher) if network is not None):
        return None
    data = ValidationData(records=assembly.records, split=TRAIN) if data is None else data

    def choose(view: str) -> dict[int, np.ndarray]:
        return first_clips(
            data.records,
            data.split,
            view,
            job.run.config.crop,
            chosen=data.chosen,
            classes=ROWS,
            samples=_LOOKED_AT,
        )

    future = choose(FUTURE)
    if not future:
        return None
    observed = future if teacher is None else choose(OBSERVED)
    titles = [job.run.classes[label] for label in future]
    past, action = (np.stack([*clips.values()]) for clips in (observed, future))
    if teacher is None:
        shown, columns = ("future clip", action), {"teacher": (action, student)}
    else:
        shown = ("observed clip", past)
        columns = {
            "student": (past, student),
            "teacher": (past, teacher),
            "teacher, future clip": (action, teacher),
        }
    return lambda: heat_map_pixels(heat_map_rows(titles, shown, columns))


def _has_places(network: keras.Model) -> bool:
    """Whether its map is `(B, T, H, W, d)`."""
    return len(network.output[feature_map_name(network)].shape) == 5
