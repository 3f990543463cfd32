"""From records of frames to records of what a network makes of them: of clips, or of each frame alone.

`write_clip_features` keeps maps of whole clips, as of I3D's stem (paper §4.3). A network that looks across
time makes a map of a clip, not of a frame, so the clips are chosen here: evenly spaced windows of each
segment, in training records with the same starts in both, so that the two clips of a pair keep their
distance. Shards are written whole, the manifest last; `.progress` holds what each finished shard contains,
so that a killed extraction resumes.

`write_feature_records` keeps features of single frames; that folder appears as a whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_records import augment, schema
from tf_records.errors import RecordError
from tf_records.files import atomic_path, hash_file, remove_folder, write_text_atomically
from tf_records.manifest import MANIFEST_NAME, Manifest, ShardInfo, load_manifest
from tf_records.reader import decode_clip, parse, plain
from tf_records.records import Records, naming_damage
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, OBSERVED, FeatureInfo
from tf_records.tfrecord import RecordFile
from tf_records.writer import PROGRESS_FOLDER, remove_leftovers

Compute = Callable[[tf.Tensor], tf.Tensor]
# Clips that wait, decoded, for the network; one of 32x256x456 takes 45 MB.
_PREFETCH = 4


class _Shard(NamedTuple):
    """A finished shard, and the shapes of the maps in it."""

    info: ShardInfo
    shapes: tuple[tuple[int, ...], ...]


def write_clip_features(
    records: Records,
    out: RecordPath,
    compute: Compute,
    info: FeatureInfo,
    *,
    batch_size: int,
    on_record: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Writes records with the maps of clips in place of frames into `out`, or keeps what is there of them.

    Args:
        records: an opened folder of frames.
        out: folder that is there and locked; it is empty, or holds what an earlier call left.
        compute: float32 `(batch_size, T, H, W, C)` in [-1, 1], any H and W → float `(batch_size, *map)`.
        info: of the features; its shape is filled in.
        batch_size: clips `compute` takes at a time, of one shard; the last of them are repeated.
        on_record: told of each number of records done.

    Raises:
        RecordError: a record is damaged, a map does not fit float16, or `out` holds other features.
        OSError: a shard cannot be written.
    """
    if (out / MANIFEST_NAME).exists():
        return finished_features(out, info, records.modality)
    given = records.manifest.splits
    remove_leftovers(out, {shard.file for split in given.values() for shard in split.shards})
    (out / PROGRESS_FOLDER).mkdir(exist_ok=True)
    decisive = json.dumps([dataclasses.asdict(info), records.modality, batch_size])
    key = hashlib.sha256(decisive.encode()).hexdigest()
    extraction = _Extraction(records, out, compute, info, batch_size, key)
    splits, shapes = {}, set()
    for name, split in given.items():
        shards = []
        for shard in split.shards:
            made = extraction.write_shard(shard, name, on_record)
            shards.append(made.info)
            shapes |= set(made.shapes)
        splits[name] = dataclasses.replace(split, shards=tuple(shards))
    features = dataclasses.replace(info, shape=_common_shape(shapes))
    manifest = dataclasses.replace(
        records.manifest,
        splits=splits,
        features=features,
        modality=records.modality,
        flow=records.manifest.flow if records.modality == schema.FLOW else None,
    )
    write_text_atomically(out / MANIFEST_NAME, manifest.to_json())
    remove_folder(out / PROGRESS_FOLDER)
    return manifest


def finished_features(out: RecordPath, info: FeatureInfo, modality: str) -> Manifest:
    """The manifest of finished features, if they are those that `info` and `modality` ask for.

    Raises:
        RecordError: they are others (says which).
    """
    manifest = load_manifest(out)
    made = manifest.features
    if made is None:
        raise RecordError(f"{out} holds frames, not features. Choose another folder.")
    wanted = {**dataclasses.asdict(info), "modality": modality}
    found = {**dataclasses.asdict(made), "modality": manifest.modality}
    changed = [
        f"{name} {found[name]} → {wanted[name]}"
        for name in wanted
        if name != "shape" and wanted[name] != found[name]
    ]
    if changed:
        raise RecordError(
            f"{out} holds other finished features: {'; '.join(changed)}. Choose another "
            f"folder, or add --overwrite in place of --resume."
        )
    return manifest


class _Extraction:
    """Writes shards with one compiled `compute`."""

    def __init__(
        self,
        records: Records,
        out: RecordPath,
        compute: Compute,
        info: FeatureInfo,
        batch_size: int,
        key: str,
    ) -> None:
        self.records = records
        self.out = out
        self.info = info
        self.batch_size = batch_size
        self.key = key
        clip_frames = records.manifest.clip.clip_frames
        channels = schema.CHANNELS[records.modality]

        def in_float16(clips: tf.Tensor) -> tf.Tensor:
            return tf.cast(compute(clips), tf.float16)

        def decode(encoded: tf.Tensor) -> tf.Tensor:
            frames = decode_clip(records, encoded, 0)
            return augment.scale(frames) if info.crop is None else augment.crop_centrally(frames, info.crop)

        # One trace for frames of any size, and one for all shards.
        clips = tf.TensorSpec((batch_size, clip_frames, None, None, channels), tf.float32)
        self._compute = tf.function(in_float16, input_signature=[clips], autograph=False)
        self._decode = tf.function(decode, autograph=False)

    def write_shard(self, shard: ShardInfo, split: str, on_record: Callable[[int], None]) -> _Shard:
        """Writes one shard, or returns what an earlier run noted of it."""
        note = self.out / PROGRESS_FOLDER / f"{shard.file}.json"
        earlier = self._earlier(shard, note)
        if earlier is not None:
            on_record(shard.records)
            return earlier
        shapes = set()
        maps = self._maps(shard, split)

        def replace_frames(example: tf.train.SequenceExample) -> None:
            shapes.add(self._replace_frames(example, maps, split))

        with atomic_path(self.out / shard.file) as temporary:
            info = _rewrite_shard(self.records, split, shard, temporary, replace_frames, on_record)
        fields = {"key": self.key, "shard": dataclasses.asdict(info), "shapes": sorted(shapes)}
        write_text_atomically(note, json.dumps(fields))
        return _Shard(info, tuple(sorted(shapes)))

    def _earlier(self, shard: ShardInfo, note: RecordPath) -> _Shard | None:
        if not note.exists() or not (self.out / shard.file).exists():
            return None
        noted = json.loads(note.read_text(encoding="utf-8"))
        if noted.get("key") != self.key:
            return None
        info = ShardInfo(**noted["shard"])
        if hash_file(self.out / shard.file) != info.sha256:
            return None
        return _Shard(info, tuple(tuple(shape) for shape in noted["shapes"]))

    def _maps(self, shard: ShardInfo, split: str) -> Iterator[np.ndarray]:
        """float16 maps of the shard's clips: record by record, observed before future, in time order."""
        for _, same_size in itertools.groupby(self._clips(shard, split), key=lambda clip: clip.shape):
            while batch := list(itertools.islice(same_size, self.batch_size)):
                padded = batch + batch[-1:] * (self.batch_size - len(batch))
                maps = self._compute(np.stack(padded)).numpy()[: len(batch)]
                if not np.isfinite(maps).all():
                    raise RecordError(
                        f"Features of {self.records.folder / shard.file} are not finite in float16. Check "
                        f"the weights of {self.info.source}."
                    )
                yield from maps

    def _clips(self, shard: ShardInfo, split: str) -> Iterator[np.ndarray]:
        """The clips of which `_maps` are, decoded in parallel: float32 `(T, H, W, C)` in [-1, 1]."""
        records, clip_frames = self.records, self.records.manifest.clip.clip_frames

        @plain
        def choose(serialized: tf.Tensor) -> tf.data.Dataset:
            _, segments = parse(records, serialized, (OBSERVED, FUTURE))
            frames = {view: tf.shape(encoded)[0] for view, encoded in segments.items()}
            starts = self._starts(frames, split)
            # Strings (windows, T), of flow (windows, T, 2), of the one view after those of the other
            chosen = [
                tf.gather(encoded, augment.clip_indices(frames[view], starts[view][:, None], clip_frames))
                for view, encoded in segments.items()
            ]
            return tf.data.Dataset.from_tensor_slices(tf.concat(chosen, axis=0))

        clips = _read_shard(self.records, shard).flat_map(choose)
        clips = clips.map(plain(self._decode), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        decoded: Iterator[np.ndarray] = clips.prefetch(_PREFETCH).as_numpy_iterator()
        return decoded

    def _starts(self, frames: dict[str, tf.Tensor], split: str) -> dict[str, tf.Tensor]:
        """First frames of the clips of each segment; in training the same for both."""
        if split == "train":
            frames = dict.fromkeys(frames, tf.minimum(*frames.values()))
        clip_frames, windows = self.records.manifest.clip.clip_frames, self.info.windows
        assert windows is not None
        return {view: augment.window_starts(count, clip_frames, windows) for view, count in frames.items()}

    def _replace_frames(
        self, example: tf.train.SequenceExample, maps: Iterator[np.ndarray], split: str
    ) -> tuple[int, ...]:
        """Puts maps in place of the frames of both segments; returns the shape of each."""
        lists = example.feature_lists.feature_list
        frames = {view: len(lists[keys[0]].feature) for view, keys in self.records.view_keys.items()}
        for modality in self.records.manifest.modalities:
            for key in itertools.chain(*schema.VIEW_KEYS[modality].values()):
                del lists[key]
        shapes = set()
        for view, starts in self._starts(frames, split).items():
            for _ in range(len(starts)):
                one = next(maps)
                shapes.add(one.shape)
                lists[schema.VIEW_FEATURES[view]].feature.add().bytes_list.value.append(one.tobytes())
        (shape,) = shapes
        example.context.feature[schema.FEATURE_SHAPE].int64_list.value.extend(shape)
        return shape


def _common_shape(shapes: set[tuple[int, ...]]) -> tuple[int | None, ...]:
    """The shape of all, with None where they differ."""
    return tuple(
        sizes.pop() if len(sizes) == 1 else None
        for sizes in (set(axis) for axis in zip(*shapes, strict=True))
    )


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

        def count(new: int) -> None:
            nonlocal done
            done += new
            on_record(done, total)

        for shard in records.split(split).shards:
            path = temporary / shard.file
            shards.append(_rewrite_shard(records, split, shard, path, frame_features.replace, count))
        splits = {split: dataclasses.replace(records.split(split), shards=tuple(shards))}
        manifest = dataclasses.replace(records.manifest, splits=splits, features=info)
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

        def from_jpegs(encoded: tf.Tensor) -> tf.Tensor:
            frames = augment.decode_frames(encoded, tf.range(batch_frames), batch_frames)
            return tf.cast(compute(augment.crop_centrally(frames, crop)), tf.float16)

        self._from_jpegs = tf.function(from_jpegs, autograph=False)

    def replace(self, example: tf.train.SequenceExample) -> None:
        """Puts features in place of the frames of both segments."""
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


def _read_shard(records: Records, shard: ShardInfo) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(str(records.folder / shard.file))


def _rewrite_shard(
    records: Records,
    split: str,
    shard: ShardInfo,
    path: Path,
    change: Callable[[tf.train.SequenceExample], None],
    on_record: Callable[[int], None],
) -> ShardInfo:
    """Writes a shard's records to `path`, each as `change` leaves it."""
    with path.open("wb") as file, naming_damage(records, split):
        written = RecordFile(file)
        for serialized in _read_shard(records, shard).as_numpy_iterator():
            example = tf.train.SequenceExample.FromString(serialized)
            change(example)
            content = example.SerializeToString(deterministic=True)
            written.write([content], len(content))
            on_record(1)
    return dataclasses.replace(shard, bytes=written.bytes, sha256=written.sha256)
