"""From records of frames to records of features: what a frozen network makes of each frame, computed once."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_records import augment, schema
from tf_records.manifest import MANIFEST_NAME, Manifest, ShardInfo, load_manifest
from tf_records.records import Records, naming_damage
from tf_records.schema import FeatureInfo


def write_feature_records(
    records: Records,
    out: Path,
    compute: Callable[[tf.Tensor], tf.Tensor],
    info: FeatureInfo,
    *,
    crop: int,
    batch_frames: int,
    split: str = "train",
    on_record: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Writes a record folder like `records` with features in place of frames, or keeps a finished one.

    Frames are cut centrally. A frame that both segments hold is computed once.

    Args:
        records: an opened folder of frames.
        out: folder to make; it appears as a whole, when everything is written.
        compute: float32 `(batch_frames, crop, crop, 3)` in [-1, 1] → float `(batch_frames, *shape)`.
        info: of the features.
        crop: pixels of the square that `compute` sees.
        batch_frames: frames `compute` takes at a time.
        split: the split to write.
        on_record: told of records done and records in all.

    Raises:
        RecordError: a record is damaged, or the folder has no such split.
    """
    if (out / MANIFEST_NAME).is_file():
        return load_manifest(out)
    temporary = out.with_name(f".tmp-{os.getpid()}-{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    frame_features = _FrameFeatures(compute, info, crop, batch_frames)
    try:
        total, done, shards = records.split(split).records, 0, []
        for shard in records.split(split).shards:
            with tf.io.TFRecordWriter(str(temporary / shard.file)) as writer:
                for example in _read_examples(records, split, shard):
                    with naming_damage(records, split):
                        replaced = frame_features.replace(example)
                    writer.write(replaced.SerializeToString(deterministic=True))
                    done += 1
                    on_record(done, total)
            content = (temporary / shard.file).read_bytes()
            shards.append(
                dataclasses.replace(shard, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            )
        manifest = _describe(records.manifest, split, tuple(shards), info)
        (temporary / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        _rename_unless_there(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _rename_unless_there(temporary: Path, out: Path) -> None:
    """Two trainings may compute the same features at once; the first one's stay."""
    try:
        temporary.rename(out)
    except OSError:
        if not (out / MANIFEST_NAME).is_file():
            raise


class _FrameFeatures:
    """Computes features of JPEGs in batches of one size, so that nothing is traced twice."""

    def __init__(
        self, compute: Callable[[tf.Tensor], tf.Tensor], info: FeatureInfo, crop: int, batch_frames: int
    ) -> None:
        self.info = info
        self.batch_frames = batch_frames

        @tf.function(autograph=False)
        def from_jpegs(encoded: tf.Tensor) -> tf.Tensor:
            frames = augment.decode_frames(encoded, tf.range(batch_frames), batch_frames)
            return tf.cast(compute(augment.crop_centrally(frames, crop)), tf.float16)

        self._from_jpegs = from_jpegs

    def replace(self, example: tf.train.SequenceExample) -> tf.train.SequenceExample:
        """The example with features in place of the frames of both segments."""
        lists = example.feature_lists.feature_list
        segments = {
            view: [feature.bytes_list.value[0] for feature in lists[key].feature]
            for view, key in schema.VIEW_IMAGES.items()
        }
        features = self._compute(list(dict.fromkeys(jpeg for jpegs in segments.values() for jpeg in jpegs)))
        for view, jpegs in segments.items():
            del lists[schema.VIEW_IMAGES[view]]
            for jpeg in jpegs:
                lists[schema.VIEW_FEATURES[view]].feature.add().bytes_list.value.append(features[jpeg])
        example.context.feature[schema.FEATURE_SHAPE].int64_list.value.extend(self.info.shape)
        return example

    def _compute(self, jpegs: list[bytes]) -> dict[bytes, bytes]:
        """JPEG → its features as float16 bytes."""
        features: dict[bytes, bytes] = {}
        for first in range(0, len(jpegs), self.batch_frames):
            batch = jpegs[first : first + self.batch_frames]
            padded = batch + batch[-1:] * (self.batch_frames - len(batch))
            values: np.ndarray[Any, Any] = self._from_jpegs(tf.constant(padded)).numpy()
            features |= {
                jpeg: value.tobytes() for jpeg, value in zip(batch, values[: len(batch)], strict=True)
            }
        return features


def _read_examples(records: Records, split: str, shard: ShardInfo) -> Iterator[tf.train.SequenceExample]:
    with naming_damage(records, split):
        for serialized in tf.data.TFRecordDataset(str(records.folder / shard.file)).as_numpy_iterator():
            yield tf.train.SequenceExample.FromString(serialized)


def _describe(manifest: Manifest, split: str, shards: tuple[ShardInfo, ...], info: FeatureInfo) -> Manifest:
    splits = {split: dataclasses.replace(manifest.splits[split], shards=shards)}
    return dataclasses.replace(manifest, splits=splits, features=info)
