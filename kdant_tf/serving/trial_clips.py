"""Clips to try an exported model on: drawn ones, or those of records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from kdant_tf.evaluation.evaluate import default_view
from kdant_tf.serving import ENCODED, FEATURES, RAW
from kdant_tf.serving.model import encode_frames
from kdant_tf.serving.signatures import Stream, input_names
from tf_records import augment, schema
from tf_records.errors import RunError
from tf_records.reader import decode_clip, parse
from tf_records.records import Records

# Splits in the order in which one is looked for.
_SPLITS = ("test", "val", "train")
_ASPECT = 4 / 3
_DRAWN_CLIPS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialClip:
    """A clip in each stream's modality.

    Args:
        clips: uint8 `(1, T, H, W, C)` of each stream.
        frames: the same as strings, `(1, T)` or `(1, T, 2)`, of each stream.
        label: index of its class, or -1; of several heads or labels `(n,)`, see `tf_records.reader.label_of`.
    """

    clips: tuple[np.ndarray, ...]
    frames: tuple[np.ndarray, ...]
    label: int | np.ndarray = -1

    def requests(self, streams: Sequence[Stream]) -> dict[str, dict[str, np.ndarray]]:
        """Signature → input → value."""
        clips = dict(zip(input_names(RAW, streams), self.clips, strict=True))
        frames = dict(zip(input_names(ENCODED, streams), self.frames, strict=True))
        return {RAW: clips, ENCODED: frames, FEATURES: clips}


def draw_trial_clips(streams: Sequence[Stream]) -> list[TrialClip]:
    """Clips of noise, always the same ones, of the frame size that the runs were trained on."""
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(_DRAWN_CLIPS):
        clips = []
        for stream in streams:
            height = stream.run.short_side
            shape = (1, stream.run.clip.clip_frames, height, round(height * _ASPECT), stream.channels)
            clips.append(generator.integers(0, 256, shape, dtype=np.uint8))
        samples.append(TrialClip(clips=tuple(clips), frames=tuple(encode_frames(each) for each in clips)))
    return samples


class TrialRecords:
    """The middle clips of records, of the segment that the first run is to see; each pass reads them anew.

    Args:
        streams: that are to see them.
        records: of frames.
        count: of clips at most, spread evenly over the split.
        split: None for the first one there is of test, val and train.

    Raises:
        RunError: records that do not fit a run.
        RecordError: there are none in the folder.
    """

    def __init__(
        self, streams: Sequence[Stream], records: Records, count: int, split: str | None = None
    ) -> None:
        for stream in streams:
            # Of a run that was trained on features these are the frames that the stem sees.
            if records.manifest.features is not None:
                raise RunError(
                    f"{records.folder} has features. Give the records of frames that they were made of."
                )
            dataclasses.replace(stream.run, features=None).check_records(records.manifest, records.folder)
        self._records = [dataclasses.replace(records, modality=each.run.modality) for each in streams]
        self._view = default_view(streams[0].run)
        self._count = count
        self._split = next((name for name in _SPLITS if name in records.manifest.splits), _SPLITS[0])
        if split is not None:
            self._split = split

    def __iter__(self) -> Iterator[TrialClip]:
        read = [_read(records, self._split, self._view, self._count) for records in self._records]
        for each in zip(*read, strict=True):
            clips, frames, labels = zip(*each, strict=True)
            yield TrialClip(clips=clips, frames=frames, label=labels[0])


def _read(
    records: Records, split: str, view: str, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    clip_frames = records.manifest.clip.clip_frames
    total = records.split(split).records
    chosen = {*np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()}
    for number, serialized in enumerate(tf.data.TFRecordDataset(records.paths(split))):
        if number not in chosen:
            continue
        context, segments = parse(records, serialized, (view,))
        length = tf.shape(segments[view])[0]
        (start,) = augment.window_starts(length, clip_frames, 1)
        frames = tf.gather(segments[view], augment.clip_indices(length, start, clip_frames))
        clip = decode_clip(records, segments[view], start)[None].numpy()
        yield clip, frames[None].numpy(), context[schema.LABEL_INDEX].numpy()
