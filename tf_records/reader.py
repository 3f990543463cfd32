"""From a record folder to batches. Every batch is a function of (seed, epoch), whatever the machine.

Training draws one start, one crop and one flip for both clips of a pair, keyed by the record's number
in its split; evaluation cuts evenly spaced windows and the central crop.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from tf_records import augment, schema
from tf_records.errors import RecordError
from tf_records.remote_path import RecordPath, record_path
from tf_records.schema import EITHER, FLOW, FUTURE, OBSERVED, Manifest, ShardInfo, SplitInfo, load_manifest
from tf_records.shard_files import find_file_fault, find_size_fault
from tf_records.verify import find_damage

SHUFFLE_RECORDS = 256
# At most, where records are large: a pair of maps of 8x16x29x480 takes 7 MB.
SHUFFLE_BYTES = 2**30
# Pixels of a clip for each position of I3D's map at MaxPool3d_4a_3x3.
MAP_STRIDE = 16

# Nothing here needs AutoGraph, and its conversion takes longer than the tracing, anew for each epoch.
plain = tf.autograph.experimental.do_not_convert
_CONTEXT = {
    schema.LABEL_INDEX: tf.io.FixedLenFeature((), tf.int64),
    schema.CLIP_ID: tf.io.FixedLenFeature((), tf.string),
    # Empty in records of frames.
    schema.FEATURE_SHAPE: tf.io.RaggedFeature(tf.int64),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Records:
    """An opened record folder, checked against its manifest; clips are read in one `modality`.

    `left_out` are the damaged training shards that `manifest` here, unlike the file, no longer has.
    """

    folder: RecordPath
    manifest: Manifest
    modality: str
    left_out: tuple[ShardInfo, ...] = ()

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        clip_frames: int | None = None,
        modality: str | None = None,
        split: str | None = None,
        skip_damaged: bool = False,
    ) -> "Records":
        """Reads the manifest and checks each shard's presence and size.

        Args:
            folder: of the records.
            clip_frames: that the records should have, or None for any.
            modality: "rgb" or "flow", to read clips in; None is RGB where the records hold that.
            split: that will be read, so that damage elsewhere does not matter, or None for all.
            skip_damaged: read every shard of the training split, and leave those out whose bytes are
                not those that the manifest describes; the other splits are then not looked at.

        Raises:
            RecordError: no finished record folder, a shard missing or of the wrong size, or records
                of another clip length, or without the modality asked for.
        """
        manifest = load_manifest(folder)
        records = cls(record_path(folder), manifest, manifest.modalities[0] if modality is None else modality)
        if clip_frames is not None and manifest.clip.clip_frames != clip_frames:
            raise RecordError(
                f"{folder} has clips of {manifest.clip.clip_frames} frames, the run wants {clip_frames}. "
                f"Build records with --clip-frames {clip_frames}."
            )
        if records.modality not in manifest.modalities:
            raise RecordError(
                f"{folder} has modality {manifest.modality!r}, the run wants {modality!r}. "
                f"Build records with --modality {modality}."
            )
        if skip_damaged:
            return records._without_damaged_shards()
        for name, info in manifest.splits.items():
            for shard in info.shards if split in (None, name) else ():
                if fault := find_size_fault(records.folder, shard):
                    path = records.folder / shard.file
                    raise RecordError(f"Shard {path} {fault}. {records._advice(name)}")
        return records

    def split(self, name: str) -> SplitInfo:
        """Raises RecordError where the folder has no such split, or an empty one."""
        info = self.manifest.splits.get(name)
        if info is None or info.records == 0:
            raise RecordError(
                f"{self.folder} has no records in split {name!r}. It has: "
                f"{', '.join(self.manifest.splits) or 'none'}."
            )
        return info

    def paths(self, split: str) -> list[str]:
        return [str(self.folder / shard.file) for shard in self.split(split).shards]

    @property
    def clip_entries(self) -> int:
        """Entries that make a clip: all of its frames, or one map."""
        features = self.manifest.features
        is_map = features is not None and features.per == schema.PER_CLIP
        return 1 if is_map else self.manifest.clip.clip_frames

    @property
    def view_keys(self) -> dict[str, tuple[str, ...]]:
        """View → the key its frames are under, or keys of u and v, or of features in their place."""
        if self.manifest.features is not None:
            return {view: (key,) for view, key in schema.VIEW_FEATURES.items()}
        return schema.VIEW_KEYS[self.modality]

    def labels(self, split: str) -> np.ndarray:
        """Label indices of a split in record order: int64 `(records,)`. Reads every shard once."""
        dataset = tf.data.TFRecordDataset(self.paths(split)).map(
            _parse_context, num_parallel_calls=tf.data.AUTOTUNE
        )
        with naming_damage(self, split):
            labels = [context[schema.LABEL_INDEX] for context in dataset.as_numpy_iterator()]
        return np.array(labels, dtype=np.int64)

    def _advice(self, split: str) -> str:
        """What to do about a damaged shard of a split."""
        features = self.manifest.features
        if features is not None and features.per == schema.PER_FRAME:
            return f"Delete {self.folder}, and the next training computes it again."
        advice = f"Rebuild the records: kdant build-records … --out {self.folder} --resume"
        if features is not None:
            advice = f"Make them again: kdant extract-features … --out {self.folder} --overwrite"
        return (
            f"{advice}, or leave it out of a training: --skip-damaged." if split == "train" else f"{advice}."
        )

    def _without_damaged_shards(self) -> "Records":
        shards = self.split("train").shards
        damaged = tuple(shard for shard in shards if find_file_fault(self.folder, shard))
        if len(damaged) == len(shards):
            raise RecordError(
                f"All {len(shards)} training shards in {self.folder} are damaged, so there is nothing to "
                f"train on. Rebuild them: the same command and --resume."
            )
        kept = SplitInfo.of(shard for shard in shards if shard not in damaged)
        manifest = dataclasses.replace(self.manifest, splits={**self.manifest.splits, "train": kept})
        return dataclasses.replace(self, manifest=manifest, left_out=damaged)

    def describe_damage(self, split: str, reason: str) -> str:
        """What to say after reading a split has failed for `reason`: its first damaged shard."""
        damage = next(find_damage(self.folder, self.split(split).shards, self.manifest), None)
        if damage is None:
            return f"A record of split {split!r} in {self.folder} cannot be read: {reason}."
        where = "" if damage.record is None else f"record {damage.record}: "
        path = self.folder / damage.shard
        return f"Shard {path} is damaged: {where}{damage.reason}. {self._advice(split)}"


@contextmanager
def naming_damage(records: Records | None, split: str) -> Iterator[None]:
    """Turns what TensorFlow says of a damaged record, while reading a split, into a RecordError.

    It names the shard, which TensorFlow does not. Without records the error stays as it is.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        if records is None:
            raise
        raise RecordError(records.describe_damage(split, _reason(error))) from error


def iterate_batches(dataset: Iterable[Any], records: Records | None, split: str) -> Iterator[Any]:
    """The dataset's batches; a damaged shard among those they are read from is named."""
    iterator = iter(dataset)
    while True:
        with naming_damage(records, split):
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def _reason(error: tf.errors.OpError) -> str:
    """The line of TensorFlow's message that says what is wrong, below a trace where there is one."""
    lines = [line.strip() for line in error.message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    return lines[-1 if lines[0].startswith("Graph execution error") else 0].rstrip(".")


def training_batches(
    records: Records,
    *,
    views: tuple[str, ...],
    batch_size: int,
    crop: int,
    seed: int,
    epoch: int,
    labels: np.ndarray | None = None,
    labeled_only: bool = False,
) -> tf.data.Dataset:
    """One epoch of training batches; the last, incomplete batch is dropped.

    Args:
        records: an opened record folder.
        views: which clips to give: "observed", "future", or "either", a clip of either segment.
        batch_size: records a batch.
        crop: pixels of the square that the network sees; of maps, the square that is as large.
        seed, epoch: decide order, starts, crops and flips; maps are not flipped.
        labels: int64 `(records,)` in record order, in place of the recorded labels.
        labeled_only: leave out records whose label is -1.

    Returns:
        Dataset of dicts: each view float32 `(batch, T, crop, crop, C)` in [-1, 1] with C 3 for RGB, 2
        (u, v) for flow; of records of features `(batch, T, *shape)` of a frame's or `(batch, T, side,
        side, C)` of a clip's, see `map_side`; and `label` int32 `(batch,)`, -1 where unlabelled.
    """
    dataset = _numbered_records(records, seed, epoch)

    @plain
    def parse_label(index: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        recorded = _parse_context(serialized)[schema.LABEL_INDEX]
        label = recorded if labels is None else tf.gather(tf.constant(labels), index)
        return index, serialized, label

    dataset = dataset.map(parse_label, num_parallel_calls=tf.data.AUTOTUNE)
    if labeled_only:
        dataset = dataset.filter(plain(lambda index, serialized, label: label >= 0))
    order_seed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    dataset = dataset.shuffle(
        _shuffle_records(records.split("train")), seed=order_seed, reshuffle_each_iteration=False
    )

    @plain
    def decode(index: tf.Tensor, serialized: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        decision = augment.draw_decision(seed, epoch, index)
        clips = _pair_of_clips(records, serialized, decision, views, crop)
        return {**clips, "label": tf.cast(label, tf.int32)}

    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    records: Records, *, split: str, view: str, batch_size: int, crop: int, windows: int
) -> tf.data.Dataset:
    """All windows of a split in record order; a record gives as many as its segment has, up to `windows`.

    Returns:
        Dataset of dicts: `clip` float32 `(batch, T, crop, crop, C)`, `index` int64 `(batch,)` (the
        record's number in the split) and `label` int32 `(batch,)`. The last batch may be smaller.
    """

    @plain
    def cut_windows(index: tf.Tensor, serialized: tf.Tensor) -> tf.data.Dataset:
        context, segments = parse(records, serialized, (view,))
        encoded = segments[view]
        starts = augment.window_starts(tf.shape(encoded)[0], records.clip_entries, windows)

        @plain
        def cut(start: tf.Tensor) -> dict[str, tf.Tensor]:
            clip = _cut_clip(records, context, encoded, start, crop, None)
            return {"clip": clip, "index": index, "label": tf.cast(context[schema.LABEL_INDEX], tf.int32)}

        return tf.data.Dataset.from_tensor_slices(starts).map(cut)

    dataset = tf.data.TFRecordDataset(records.paths(split)).enumerate()
    dataset = dataset.interleave(
        cut_windows,
        cycle_length=4,
        block_length=windows,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def map_side(crop: int) -> int:
    """Positions a side that I3D's stem makes of `crop` pixels."""
    return -(-crop // MAP_STRIDE)


def _shuffle_records(split: SplitInfo) -> int:
    """Records to hold for shuffling."""
    mean_bytes = sum(shard.bytes for shard in split.shards) // split.records
    return max(1, min(SHUFFLE_RECORDS, SHUFFLE_BYTES // max(1, mean_bytes)))


def _numbered_records(records: Records, seed: int, epoch: int) -> tf.data.Dataset:
    """(number in the split, serialized record), with the shards in an order drawn from (seed, epoch)."""
    shards = records.split("train").shards
    first = np.cumsum([0] + [shard.records for shard in shards])[:-1].astype(np.int64)
    order = np.random.default_rng((seed, epoch)).permutation(len(shards))
    paths = np.array(records.paths("train"))
    files = tf.data.Dataset.from_tensor_slices((paths[order], first[order]))
    return files.interleave(
        plain(lambda path, number: tf.data.TFRecordDataset(path).enumerate(start=number)),
        cycle_length=4,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _pair_of_clips(
    records: Records, serialized: tf.Tensor, decision: augment.Decision, views: tuple[str, ...], crop: int
) -> dict[str, tf.Tensor]:
    """Clips of the views, cut with the same start, square and flip."""
    context, segments = parse(records, serialized, (OBSERVED, FUTURE))
    observed, future = segments[OBSERVED], segments[FUTURE]
    entries = records.clip_entries
    starts = [tf.maximum(tf.shape(encoded)[0] - entries + 1, 1) for encoded in (observed, future)]
    shared = _draw_start(decision, tf.minimum(*starts))
    drawn = _draw_start(decision, starts[0] + starts[1])
    clips = {}
    for view in views:
        if view == EITHER:
            in_future = drawn >= starts[0]
            encoded = tf.cond(in_future, lambda: future, lambda: observed)
            start = tf.where(in_future, drawn - starts[0], drawn)
        else:
            encoded, start = segments[view], shared
        clips[view] = _cut_clip(records, context, encoded, start, crop, decision)
    return clips


def _cut_clip(
    records: Records,
    context: dict[str, Any],
    encoded: tf.Tensor,
    start: tf.Tensor,
    crop: int,
    decision: augment.Decision | None,
) -> tf.Tensor:
    """The clip that begins at `start`; of frames and maps, the square decided on, or the central one."""
    features, clip_frames = records.manifest.features, records.manifest.clip.clip_frames
    if features is not None and features.per == schema.PER_CLIP:
        side = map_side(crop)
        features_map = augment.decode_map(encoded[start], context[schema.FEATURE_SHAPE])
        cut = augment.crop_map(features_map, decision, side)
        return tf.ensure_shape(cut, (features.shape[0], side, side, features.shape[-1]))
    if features is not None:
        indices = augment.clip_indices(tf.shape(encoded)[0], start, clip_frames)
        return augment.decode_features(encoded, indices, clip_frames, features.shape)
    frames = decode_clip(records, encoded, start)
    if decision is None:
        return augment.crop_centrally(frames, crop)
    return augment.crop_randomly(frames, decision, crop)


def decode_clip(records: Records, encoded: tf.Tensor, start: tf.Tensor | int) -> tf.Tensor:
    """A segment's strings, as `parse` gives them → the clip at `start`: uint8 `(T, H, W, C)`."""
    clip_frames = records.manifest.clip.clip_frames
    indices = augment.clip_indices(tf.shape(encoded)[0], start, clip_frames)
    decode = augment.decode_flow if records.modality == FLOW else augment.decode_frames
    return decode(encoded, indices, clip_frames)


def _draw_start(decision: augment.Decision, starts: tf.Tensor) -> tf.Tensor:
    return tf.cast(decision.start * tf.cast(starts, tf.float32), tf.int32)


def _parse_context(serialized: tf.Tensor) -> dict[str, Any]:
    context, _ = tf.io.parse_single_sequence_example(serialized, context_features=_CONTEXT)
    return context


def parse(
    records: Records, serialized: tf.Tensor, views: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
    """The context, and view → its strings `(N,)`, or `(N, 2)` of u and v."""
    keys = records.view_keys
    context, lists = tf.io.parse_single_sequence_example(
        serialized,
        context_features=_CONTEXT,
        sequence_features={
            key: tf.io.FixedLenSequenceFeature((), tf.string) for view in views for key in keys[view]
        },
    )
    segments = {view: [lists[key] for key in keys[view]] for view in views}
    return context, {
        view: strings[0] if len(strings) == 1 else tf.stack(strings, axis=1)
        for view, strings in segments.items()
    }
