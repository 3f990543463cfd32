"""Samples as looping clips, with what each network said of them."""

from collections.abc import Sequence

import numpy as np

from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.pictures.samples import Sample
from kdant_tf.report.content import Clip, Guess
from kdant_tf.report.group import Group, refuse_records
from kdant_tf.report.inline import data_uri
from kdant_tf.report.moving import encode_moving, encode_still, side_by_side
from tf_records.schema import FUTURE, OBSERVED

GUESSES = 3


def make_clip(group: Group, sample: Sample) -> Clip:
    """A sample's two clips, and the most probable classes by each network.

    Raises:
        RunError: the predictions are of other records.
    """
    frames = side_by_side(sample.frames(OBSERVED), sample.frames(FUTURE))
    said = {
        title: top_guesses(predictions, sample.number, group.classes)
        for title, predictions in group.predictions.items()
    }
    return Clip(
        label=group.classes[sample.label],
        id=sample.id,
        still=data_uri("image/webp", encode_still(frames[0])),
        moving=data_uri("image/webp", encode_moving(frames, _seconds(sample.times_s[OBSERVED]))),
        width=frames[0].width,
        height=frames[0].height,
        frames=len(frames),
        times=f"observed {_span(sample.times_s[OBSERVED])}, future {_span(sample.times_s[FUTURE])}",
        said=said,
    )


def check_ids(group: Group, samples: Sequence[Sample]) -> None:
    """Refuses predictions of other records than the samples were read from."""
    # All networks of a group saw the same samples.
    kept = next(iter(group.predictions.values())).ids
    for sample in samples:
        if kept[sample.number] != sample.id:
            raise refuse_records(
                group, f"sample {sample.number} is {kept[sample.number]} there and {sample.id} here"
            )


def top_guesses(predictions: Predictions, place: int, classes: Sequence[str]) -> tuple[Guess, ...]:
    """The most probable classes of a sample, three at most."""
    probabilities = predictions.probabilities[place]
    order = np.argsort(-probabilities, kind="stable")[:GUESSES]
    return tuple(
        Guess(name=classes[i], probability=float(probabilities[i]), right=i == predictions.labels[place])
        for i in order.tolist()
    )


def _seconds(times_s: np.ndarray) -> float:
    """That the clip lasts, its last frame included."""
    steps = np.diff(times_s)
    return float(times_s[-1] - times_s[0] + (steps[0] if len(steps) else 1.0))


def _span(times_s: np.ndarray) -> str:
    return f"{times_s[0]:.2f} to {times_s[-1]:.2f} s"
