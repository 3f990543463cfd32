"""An opened record folder: checked against its manifest, and damage met while reading named."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from tf_records import schema
from tf_records.errors import RecordError
from tf_records.manifest import (
    Manifest,
    ShardInfo,
    SplitInfo,
    find_file_fault,
    find_size_fault,
    load_manifest,
)
from tf_records.remote_path import RecordPath, record_path
from tf_records.verify import find_damage


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
        return self.labels_and_videos(split)[0]

    def labels_and_videos(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The same, and the video of each record: bytes `(records,)`."""
        dataset = tf.data.TFRecordDataset(self.paths(split)).map(
            _parse_label_and_video, num_parallel_calls=tf.data.AUTOTUNE
        )
        with naming_damage(self, split):
            pairs = list(dataset.as_numpy_iterator())
        labels = np.array([label for label, _ in pairs], dtype=np.int64)
        return labels, np.array([video for _, video in pairs], dtype=np.bytes_)

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


def _parse_label_and_video(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    features = {
        schema.LABEL_INDEX: tf.io.FixedLenFeature((), tf.int64),
        schema.CLIP_VIDEO: tf.io.FixedLenFeature((), tf.string),
    }
    context, _ = tf.io.parse_single_sequence_example(serialized, context_features=features)
    return context[schema.LABEL_INDEX], context[schema.CLIP_VIDEO]
