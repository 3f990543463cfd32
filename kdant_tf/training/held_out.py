"""Which training videos are kept out of a training, to validate on, and which labels count in it."""

import dataclasses

import numpy as np

from kdant_tf.config import TrainConfig
from tf_records.errors import RecordError
from tf_records.records import Records

# So that the draws of videos and of labels, from the same seed, are independent.
_VIDEOS = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLabels:
    """What a training sees of the training split, in record order.

    Args:
        labels: int64 `(records,)` in place of the recorded ones, or None for these.
        held_out: bool `(records,)`, samples to validate on, or None.
        samples, labeled: that are left to train on, and those of them with a label.
    """

    labels: np.ndarray | None
    held_out: np.ndarray | None
    samples: int
    labeled: int


def choose_labels(records: Records, config: TrainConfig) -> TrainingLabels:
    """Holds videos out, and of the labels that remain drops all but `label_fraction` (§4.4).

    Records are read only where one of both is asked for.

    Raises:
        RecordError: too few videos to hold any out.
    """
    split = records.split("train")
    if config.label_fraction == 1 and config.validation_fraction == 0:
        return TrainingLabels(labels=None, held_out=None, samples=split.records, labeled=split.labeled)
    labels, videos = records.labels_and_videos("train")
    held_out = None
    kept = np.ones(len(labels), dtype=bool)
    if config.validation_fraction > 0:
        held_out = hold_out(labels, videos, config.validation_fraction, config.label_seed)
        kept = ~held_out
    if config.label_fraction < 1:
        labels = reduce_labels(labels, kept, config.label_fraction, config.label_seed)
    return TrainingLabels(
        labels=labels if config.label_fraction < 1 else None,
        held_out=held_out,
        samples=int(np.sum(kept)),
        labeled=int(np.sum(kept & (labels >= 0))),
    )


def hold_out(labels: np.ndarray, videos: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Marks every sample of a seeded share of the videos that have labels: bool `(records,)`.

    At least one video is held out. The draw depends on the videos' names alone, not on the records' order.

    Args:
        labels: int `(records,)`, -1 where there is none.
        videos: bytes `(records,)`.
        fraction: of those videos, in (0, 1).
        seed: of the draw.

    Raises:
        RecordError: no labelled video would be left to train on.
    """
    names = np.unique(videos[labels >= 0])
    count = max(1, round(fraction * len(names)))
    if count >= len(names):
        raise RecordError(
            f"`validation_fraction` should leave videos to train on. Received: {fraction}, which holds out "
            f"{count} of the {len(names)} videos with labels. Lower it, or give --validation-split."
        )
    drawn = np.random.default_rng((seed, _VIDEOS)).permutation(len(names))[:count]
    return np.isin(videos, names[drawn])


def reduce_labels(labels: np.ndarray, kept: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The labels, with all but a seeded `fraction` of those that are `kept` replaced by -1."""
    labels = labels.copy()
    labeled = np.flatnonzero(kept & (labels >= 0))
    order = np.random.default_rng(seed).permutation(labeled)
    labels[order[round(fraction * len(labeled)) :]] = -1
    return labels
