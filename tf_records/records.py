"""An opened record folder: checked against its manifest, read as a dataset, its damage named."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import tensorflow as tf

from tf_records import schema
from tf_records.augment import CROP_FRACTION
from tf_records.errors import RecordError
from tf_records.manifest import (
    Manifest,
    ShardInfo,
    SplitInfo,
    find_file_fault,
    find_size_fault,
    load_manifest,
)
from tf_records.reader import central_batches, fresh_training_batches, label_features, label_of, plain
from tf_records.remote_path import RecordPath, record_path
from tf_records.verify import find_damage


@dataclasses.dataclass(frozen=True, slots=True)
class Records:
    """An opened record folder, checked against its manifest; clips are read in one `modality`.

    Args:
        folder: where the records lie; see `Records.open`, which makes these objects.
        manifest: what the folder says of itself.
        modality: "rgb" or "flow".
        left_out: damaged training shards that `manifest` here, unlike the file, no longer has.

    Example:
        >>> records = Records.open("records")
        >>> records.manifest.clip.clip_frames
        8
        >>> data = records.dataset(batch_size=4, crop=32)
        >>> data.element_spec["observed"].shape
        TensorShape([4, 8, 32, 32, 3])
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
    ) -> Records:
        """Reads the manifest and checks each shard's presence and size.

        Args:
            folder: of the records, a path or a URL.
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
        records._check_clip_frames(clip_frames)
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

    def dataset(
        self,
        *,
        split: str = "train",
        view: str | None = None,
        batch_size: int = 8,
        crop: int | None = None,
        clip_frames: int | None = None,
        training: bool | None = None,
        seed: int = 0,
    ) -> tf.data.Dataset:
        """Batches of clips for `fit` and `evaluate`, in training drawn anew on every pass.

        Training draws the order of the records, and of each record where its two clips start, which square
        is cut out of both, and whether they are mirrored. Pass k over the dataset, counted from 0 in this
        process, is a function of `seed`, k and TensorFlow's global seed: `fit(data, epochs=2)` sees two
        draws, and two datasets of one seed are equal pass by pass. Its last, incomplete batch is dropped.
        Without training, records come in order, the middle clip of each segment, the central square.

        Args:
            split: "train", "val" or "test".
            view: None for both clips of a pair, as `Distiller` takes them; "observed", "future" or, in
                training, "either" for one of them with its label, as plain `fit` takes them.
            batch_size: records a batch.
            crop: pixels of the square that is cut out of the frames and scaled; None for 7/8 of the
                frames' shorter side, which needs no scaling.
            clip_frames: that the records should have; None for any.
            training: None for the training split alone.
            seed: of the draws.

        Returns:
            Dataset with a length. Its elements, with T frames, are without a view dicts of "observed" and
            "future", float32 `(batch, T, crop, crop, C)` in [-1, 1], where C is 3 for RGB and 2 for flow
            (records of features: see `reader.training_batches`); "label", int32 `(batch,)`, -1 where
            unlabelled; and "index", int64 `(batch,)`, the record's number in its split. With a view they
            are pairs of one such clip and its label, of labelled records alone.

        Raises:
            RecordError: no such split or view, another clip length, or fewer records than a batch.

        Example:
            >>> data = Records.open("records").dataset(view="observed", batch_size=4)
            >>> clip, label = next(iter(data))
            >>> clip.shape, label.dtype
            (TensorShape([4, 8, 56, 56, 3]), tf.int32)
        """
        self._check_clip_frames(clip_frames)
        training = split == "train" if training is None else training
        _check_dataset(split, view, batch_size, training)
        options: dict[str, Any] = {
            "views": (schema.OBSERVED, schema.FUTURE) if view is None else (view,),
            "batch_size": batch_size,
            "crop": self._default_crop() if crop is None else crop,
            "labeled_only": view is not None,
        }
        if training:
            data = fresh_training_batches(self, seed=seed, **options)
        else:
            data = central_batches(self, split=split, **options)
        return data if view is None else data.map(plain(lambda batch: (batch[view], batch["label"])))

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

    def labels_and_videos(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Label indices of a split in record order, int64 `(records,)`, and the videos, bytes `(records,)`.

        Of records with heads the labels are `(records, n)`, see `reader.label_of`. Reads every shard once.
        """
        heads = self.manifest.heads

        @plain
        def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            features = {**label_features(heads), schema.CLIP_VIDEO: tf.io.FixedLenFeature((), tf.string)}
            context, _ = tf.io.parse_single_sequence_example(serialized, context_features=features)
            return label_of(context, heads), context[schema.CLIP_VIDEO]

        dataset = tf.data.TFRecordDataset(self.paths(split)).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        with naming_damage(self, split):
            pairs = list(dataset.as_numpy_iterator())
        labels = np.array([label for label, _ in pairs], dtype=np.int64)
        return labels, np.array([video for _, video in pairs], dtype=np.bytes_)

    def describe_damage(self, split: str, reason: str) -> str:
        """What to say after reading a split has failed for `reason`: its first damaged shard."""
        damage = next(find_damage(self.folder, self.split(split).shards, self.manifest), None)
        if damage is None:
            return f"A record of split {split!r} in {self.folder} cannot be read: {reason}."
        where = "" if damage.record is None else f"record {damage.record}: "
        path = self.folder / damage.shard
        return f"Shard {path} is damaged: {where}{damage.reason}. {self._advice(split)}"

    def _check_clip_frames(self, wanted: int | None) -> None:
        found = self.manifest.clip.clip_frames
        if wanted not in (None, found):
            raise RecordError(
                f"{self.folder} has clips of {found} frames, the run wants {wanted}. "
                f"Build records with --clip-frames {wanted}."
            )

    def _default_crop(self) -> int:
        """Pixels of the square that needs no scaling, or that features of clips were made of."""
        features = self.manifest.features
        if features is not None and features.crop is not None:
            return features.crop
        return int(self.manifest.short_side * CROP_FRACTION + Fraction(1, 2))

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

    def _without_damaged_shards(self) -> Records:
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


def _check_dataset(split: str, view: str | None, batch_size: int, training: bool) -> None:
    """Raises RecordError for arguments of `Records.dataset` that cannot be."""
    if training and split != "train":
        raise RecordError(f"`training` should be False for split {split!r}. Received: True.")
    known = (schema.OBSERVED, schema.FUTURE, *((schema.EITHER,) if training else ()))
    if view not in (None, *known):
        raise RecordError(f"`view` should be None or one of {', '.join(known)}. Received: {view!r}.")
    if batch_size < 1:
        raise RecordError(f"`batch_size` should be at least 1. Received: {batch_size}.")


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
    message: str = error.message
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    return lines[-1 if lines[0].startswith("Graph execution error") else 0].rstrip(".")
