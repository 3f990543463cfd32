"""The samples that pictures show: which they are, and their pairs of clips."""

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kdant_tf.evaluation.predictions import Predictions
from tf_records import schema
from tf_records.augment import CROP_FRACTION, clip_indices, crop_centrally, window_starts
from tf_records.clips import decode_clip, parse
from tf_records.contact_sheet import colour_flow
from tf_records.errors import RecordError
from tf_records.reader import observed_start
from tf_records.records import Records, naming_damage
from tf_records.schema import FUTURE, OBSERVED

FIRST_CLASSES = 8
_STARTS = {OBSERVED: schema.OBSERVED_START_S, FUTURE: schema.FUTURE_START_S}
_TIMES = {key: tf.io.FixedLenFeature((), tf.float32) for key in (*_STARTS.values(), schema.FRAME_RATE)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A pair of clips of one record, as far apart as those that training compares, where its video allows.

    Args:
        number: of the record in its split.
        id: of the sample.
        label: index of its class.
        stored: modality → view → clip as it is stored, uint8 `(T, H, W, C)`.
        times_s: view → when each frame of the clip is shown in the video, float `(T,)`.
    """

    number: int
    id: str
    label: int
    stored: dict[str, dict[str, np.ndarray]]
    times_s: dict[str, np.ndarray]

    def clip(self, view: str, modality: str, crop: int) -> np.ndarray:
        """What a network sees of a view: float32 `(1, T, crop, crop, C)` in [-1, 1]."""
        return crop_centrally(tf.constant(self.stored[modality][view]), crop)[None].numpy()

    def frames(self, view: str) -> np.ndarray:
        """The same square as it is stored, to look at: RGB `(T, S, S, 3)` in [0, 1]; flow has hues."""
        modality = schema.RGB if schema.RGB in self.stored else schema.FLOW
        stored = self.stored[modality][view]
        pixels = crop_centrally(tf.constant(stored), _square(stored)).numpy()
        if modality == schema.RGB:
            return np.clip((pixels + 1) / 2, 0, 1)
        return np.stack([np.asarray(colour_flow(frame[..., 0], frame[..., 1])) / 255 for frame in pixels])


def choose_samples(
    predictions: Predictions, *, count: int | None = None, seed: int = 0, ids: Sequence[str] = ()
) -> list[int]:
    """Numbers of the records to show.

    Args:
        predictions: of the split.
        count: draw so many, one of each class in turn; None is the first of each class, at most
            FIRST_CLASSES.
        seed: of the draw.
        ids: show these, in this order.

    Raises:
        RecordError: an id that no sample has.
    """
    if ids:
        numbers = {str(name): number for number, name in enumerate(predictions.ids)}
        if unknown := [name for name in ids if name not in numbers]:
            raise RecordError(_describe_unknown(unknown[0], list(numbers)))
        return [numbers[name] for name in ids]
    classes = np.unique(predictions.labels)
    groups = [np.flatnonzero(predictions.labels == label) for label in classes]
    if count is None:
        return [int(group[0]) for group in groups[:FIRST_CLASSES]]
    rng = np.random.default_rng(seed)
    turns = [rng.permutation(group) for group in groups]
    order = rng.permutation(len(turns))
    longest = max(len(group) for group in groups)
    drawn = [int(turns[i][turn]) for turn in range(longest) for i in order if turn < len(turns[i])]
    return sorted(drawn[:count], key=lambda number: (predictions.labels[number], number))


def read_samples(records: Records, split: str, numbers: Sequence[int]) -> list[Sample]:
    """The records of these numbers, in the order given.

    Raises:
        RecordError: records of features, which show nothing, or a damaged shard.
    """
    if records.manifest.features is not None:
        raise RecordError(
            f"{records.folder} holds features, over which no map can be drawn. Give the records of frames "
            f"that they were made of, and a run that was trained on those."
        )
    wanted = frozenset(numbers)
    found = {}
    with naming_damage(records, split):
        for number, serialized in enumerate(tf.data.TFRecordDataset(records.paths(split))):
            if number in wanted:
                found[number] = _read_sample(records, number, serialized)
            if len(found) == len(wanted):
                break
    return [found[number] for number in numbers]


def _read_sample(records: Records, number: int, serialized: tf.Tensor) -> Sample:
    stored: dict[str, dict[str, np.ndarray]] = {}
    for modality in records.manifest.modalities:
        opened = dataclasses.replace(records, modality=modality)
        context, segments = parse(opened, serialized, (OBSERVED, FUTURE))
        lengths = {view: int(tf.shape(segments[view])[0]) for view in segments}
        starts, times_s = _place_clips(records, serialized, lengths)
        stored[modality] = {
            view: decode_clip(opened, segments[view], starts[view]).numpy() for view in segments
        }
    return Sample(
        number=number,
        id=context[schema.CLIP_ID].numpy().decode(),
        label=int(context[schema.LABEL_INDEX]),
        stored=stored,
        times_s=times_s,
    )


def _place_clips(
    records: Records, serialized: tf.Tensor, lengths: dict[str, int]
) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """View → where its clip begins in its segment, and the times of its frames.

    The observed clip is the middle window, or the one clip that the protocol lets a student see; the future
    one begins the records' offset later, as far as its segment allows.
    """
    context, _ = tf.io.parse_single_sequence_example(serialized, context_features=_TIMES)
    fps, clip_frames = float(context[schema.FRAME_RATE]), records.clip_entries
    first = {view: round(float(context[key]) * fps) for view, key in _STARTS.items()}
    if records.manifest.longest_anticipation_s is None:
        observed = int(window_starts(lengths[OBSERVED], clip_frames, 1)[0])
    else:
        observed = int(observed_start(records, serialized, tf.constant(lengths[OBSERVED]), None))
    wanted = first[OBSERVED] + observed + records.manifest.clip.offset_at(fps) - first[FUTURE]
    starts = {OBSERVED: observed, FUTURE: min(max(wanted, 0), max(lengths[FUTURE] - clip_frames, 0))}
    return starts, {
        view: (first[view] + clip_indices(lengths[view], starts[view], clip_frames).numpy()) / fps
        for view in starts
    }


def _square(stored: np.ndarray) -> int:
    """Pixels of a crop that is cut without scaling."""
    shorter = min(stored.shape[1:3])
    return (shorter * CROP_FRACTION.numerator + CROP_FRACTION.denominator // 2) // CROP_FRACTION.denominator


def _describe_unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Such ids are there: {known[0]!r}."
    return f"There is no sample with the id {name!r}. {hint} `kdant evaluate` keeps all in predictions.npz."
