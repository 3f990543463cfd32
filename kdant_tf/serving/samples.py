"""Clips to try an exported model on: of records, or drawn."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from kdant_tf.evaluation.protocols import default_view
from kdant_tf.serving.signatures import DEFAULT, ENCODED, FEATURES, input_names
from kdant_tf.serving.streams import Stream
from tf_records import augment
from tf_records.clips import decode_clip, parse
from tf_records.errors import RunError
from tf_records.records import Records
from tf_records.schema import CHANNELS, FLOW

DRAWN = 2
READ = 4
# Splits in the order in which one is looked for.
_SPLITS = ("test", "val", "train")
_ASPECT = 4 / 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One clip, in each stream's modality.

    Args:
        clips: uint8 `(1, T, H, W, C)` of each stream.
        frames: the same as strings, `(1, T)` or `(1, T, 2)`, of each stream.
    """

    clips: tuple[np.ndarray, ...]
    frames: tuple[np.ndarray, ...]

    def requests(self, streams: Sequence[Stream]) -> dict[str, dict[str, np.ndarray]]:
        """Signature → input → value."""
        clips = dict(zip(input_names(DEFAULT, streams), self.clips, strict=True))
        frames = dict(zip(input_names(ENCODED, streams), self.frames, strict=True))
        return {DEFAULT: clips, ENCODED: frames, FEATURES: clips}


def draw_samples(streams: Sequence[Stream]) -> list[Sample]:
    """Clips of noise, always the same ones, of the frame size that the runs were trained on."""
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(DRAWN):
        clips = []
        for stream in streams:
            height = stream.run.short_side
            shape = (1, stream.run.clip.clip_frames, height, round(height * _ASPECT), stream.channels)
            clips.append(generator.integers(0, 256, shape, dtype=np.uint8))
        samples.append(Sample(clips=tuple(clips), frames=tuple(_encode(each) for each in clips)))
    return samples


def read_samples(streams: Sequence[Stream], records: Records) -> list[Sample]:
    """The middle clips of the first records, of the segment that the first run is to see.

    Raises:
        RunError: records that do not fit a run.
        RecordError: there are none in the folder.
    """
    for stream in streams:
        # Of a run that was trained on features these are the frames that the stem sees.
        if records.manifest.features is not None:
            raise RunError(
                f"{records.folder} has features. Give the records of frames that they were made of."
            )
        dataclasses.replace(stream.run, features=None).check_records(records.manifest, records.folder)
    split = next((name for name in _SPLITS if name in records.manifest.splits), _SPLITS[0])
    view = default_view(streams[0].run)
    read = [_read(dataclasses.replace(records, modality=s.run.modality), split, view) for s in streams]
    return [
        Sample(clips=tuple(clips for clips, _ in each), frames=tuple(frames for _, frames in each))
        for each in itertools.islice(zip(*read, strict=True), READ)
    ]


def _read(records: Records, split: str, view: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    clip_frames = records.manifest.clip.clip_frames
    for serialized in tf.data.TFRecordDataset(records.paths(split)):
        _, segments = parse(records, serialized, (view,))
        count = tf.shape(segments[view])[0]
        (start,) = augment.window_starts(count, clip_frames, 1)
        frames = tf.gather(segments[view], augment.clip_indices(count, start, clip_frames))
        yield decode_clip(records, segments[view], start)[None].numpy(), frames[None].numpy()


def _encode(clips: np.ndarray) -> np.ndarray:
    """uint8 `(1, T, H, W, C)` → PNG strings."""
    if clips.shape[-1] == CHANNELS[FLOW]:
        strings = [[tf.io.encode_png(frame[..., i : i + 1]).numpy() for i in range(2)] for frame in clips[0]]
    else:
        strings = [tf.io.encode_png(frame).numpy() for frame in clips[0]]
    return np.array([strings], dtype=object)
