"""Whether a record folder keeps what its manifest promises: every byte, every record, every JPEG's header."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_records import schema
from tf_records.heads import Head, label_keys, labeled_columns
from tf_records.manifest import Damage, Manifest, ShardInfo, find_file_fault
from tf_records.remote_path import RecordPath
from tf_records.schema import FLOW, RGB, FeatureInfo
from tf_records.tfrecord import read_records

_CONTEXT = {
    schema.CLIP_ID: "bytes_list",
    schema.CLIP_VIDEO: "bytes_list",
    schema.CLIP_OFFSET_FRAMES: "int64_list",
    schema.OBSERVED_START_S: "float_list",
    schema.FUTURE_START_S: "float_list",
    schema.FRAME_RATE: "float_list",
    schema.IMAGE_HEIGHT: "int64_list",
    schema.IMAGE_WIDTH: "int64_list",
    schema.IMAGE_CHANNELS: "int64_list",
}
_FLOAT16_BYTES = 2
# Of one JPEG: u and v of flow are a picture each.
_PICTURE_CHANNELS = {RGB: 3, FLOW: 1}
# Start of frame: all of C0 to CF but C4 (Huffman tables), C8 (reserved) and CC (arithmetic coding tables).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def find_damage(
    folder: RecordPath,
    shards: Iterable[ShardInfo],
    manifest: Manifest,
    on_shard: Callable[[ShardInfo], None] = lambda shard: None,
) -> Iterator[Damage]:
    """Yields everything in which `shards` of `folder` differ from the manifest, in their order.

    Of each shard: presence, size, sha256, number of records in all and by class; of each record: its
    checksums, and what `find_record_fault` looks at. `on_shard` is called after each shard.
    """
    for shard in shards:
        yield from _check_shard(folder, shard, manifest)
        on_shard(shard)


def _check_shard(folder: RecordPath, shard: ShardInfo, manifest: Manifest) -> Iterator[Damage]:
    fault = find_file_fault(folder, shard)
    if fault is not None:
        yield Damage(shard=shard.file, reason=fault)
    if not (folder / shard.file).is_file():
        return
    damaged, records = fault is not None, 0
    labels: Counter[str] = Counter()
    try:
        for example in read_examples(folder / shard.file, manifest):
            if isinstance(example, str):
                damaged = True
                yield Damage(shard=shard.file, record=records, reason=example)
            else:
                labels.update(_label(example, manifest))
            records += 1
    except OSError:
        if damaged:  # and said to be: what cannot be read has no checksum either
            return
        raise
    if damaged:
        return
    if records != shard.records:
        yield Damage(shard=shard.file, reason=f"has {records} records, the manifest says {shard.records}")
    elif labels != shard.classes:
        reason = f"has the labels {dict(labels)}, the manifest says {shard.classes}"
        yield Damage(shard=shard.file, reason=reason)


def read_examples(path: RecordPath, manifest: Manifest) -> Iterator[tf.train.SequenceExample | str]:
    """Each record of a shard, or in its place the first thing that is wrong with it."""
    for content in read_records(path):
        if isinstance(content, str):
            yield content
            continue
        try:
            example = tf.train.SequenceExample.FromString(content)
        except DecodeError:
            yield "it is no tf.train.SequenceExample"
        else:
            yield find_record_fault(example, manifest) or example


def _label(example: tf.train.SequenceExample, manifest: Manifest) -> list[str]:
    """The classes, or columns, that a record whose labels are right counts for."""
    names = [
        tuple(name.decode() for name in example.context.feature[key].bytes_list.value if name)
        for _, key in label_keys(manifest.heads)
    ]
    if len(manifest.heads) < 2:
        return [*names[0]]
    return [*labeled_columns([each[0] if each else "" for each in names], manifest.heads)]


def find_record_fault(example: tf.train.SequenceExample, manifest: Manifest) -> str | None:
    """The first thing in which a record differs from what `manifest` promises, or None.

    Looked at: the keys and their types, label index against label string, at least one frame a
    segment, each JPEG's header (size, short side, channels) and end, or the length of each entry of
    features. No picture is decoded.
    """
    context = example.context.feature
    for key, kind in _CONTEXT.items():
        if key not in context or len(getattr(context[key], kind).value) != 1:
            return f"{key} should be one value in a {kind}"
    heads = manifest.heads or (Head(name="", classes=manifest.classes),)
    for keys, head in zip(label_keys(manifest.heads), heads, strict=True):
        if fault := _label_fault(context, keys, head):
            return fault
    if manifest.features is not None:
        return _features_fault(example, manifest.features)
    return _pictures_fault(example, manifest)


def _label_fault(context: tf.train.Features, keys: tuple[str, str], head: Head) -> str | None:
    for key, kind in zip(keys, ("int64_list", "bytes_list"), strict=True):
        count = len(getattr(context[key], kind).value) if key in context else 0
        if count != 1 and (count == 0 or not head.several):
            return f"{key} should be one value in a {kind}"
    indices = context[keys[0]].int64_list.value
    labels = [name.decode(errors="replace") for name in context[keys[1]].bytes_list.value]
    if len(indices) != len(labels):
        return f"{keys[0]} has {len(indices)} values, {keys[1]} {len(labels)}"
    for index, label in zip(indices, labels, strict=True):
        if not (index == schema.UNLABELED or 0 <= index < len(head.classes)):
            return f"label index {index} is none of the {len(head.classes)} classes"
        expected = "" if index == schema.UNLABELED else head.classes[index]
        if label != expected:
            return f"label index {index} means {expected!r}, the label says {label!r}"
    return None


def _pictures_fault(example: tf.train.SequenceExample, manifest: Manifest) -> str | None:
    context = example.context.feature
    height, width = (context[key].int64_list.value[0] for key in (schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH))
    if min(height, width) != manifest.short_side:
        return f"has frames of {height}x{width}, the manifest's short side is {manifest.short_side}"
    for modality in manifest.modalities:
        expected = JpegHeader(height, width, _PICTURE_CHANNELS[modality])
        for view in (schema.OBSERVED, schema.FUTURE):
            lengths = set()
            for key in schema.VIEW_KEYS[modality][view]:
                pictures = _entries(example, key)
                lengths.add(len(pictures))
                for number, picture in enumerate(pictures):
                    header = None if picture is None else read_jpeg_header(picture)
                    if header != expected:
                        found = header or "no whole JPEG"
                        return f"frame {number} of {key} is {found}, the record promises {expected}"
            if len(lengths) != 1 or 0 in lengths:
                return f"has {sorted(lengths)} frames in its {view} {modality} segment"
    return None


def _features_fault(example: tf.train.SequenceExample, info: FeatureInfo) -> str | None:
    shape = tuple(example.context.feature[schema.FEATURE_SHAPE].int64_list.value)
    fits = len(shape) == len(info.shape) and all(
        wanted in (None, size) for size, wanted in zip(shape, info.shape, strict=True)
    )
    if not fits:
        return f"{schema.FEATURE_SHAPE} is {shape}, the manifest says {info.shape_words}"
    wanted = math.prod(shape) * _FLOAT16_BYTES
    for key in schema.VIEW_FEATURES.values():
        entries = _entries(example, key)
        if not entries:
            return f"{key} is empty"
        for number, entry in enumerate(entries):
            if entry is None or len(entry) != wanted:
                return f"entry {number} of {key} should be {wanted} bytes"
    return None


def _entries(example: tf.train.SequenceExample, key: str) -> list[bytes | None]:
    """The values of a feature list, with None for an entry that is not one string of bytes."""
    lists = example.feature_lists.feature_list
    values = [feature.bytes_list.value for feature in lists[key].feature] if key in lists else []
    return [value[0] if len(value) == 1 else None for value in values]


class JpegHeader(NamedTuple):
    """Pixels and colour channels."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG, or None where the bytes are none, or end before its end mark."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] in _START_OF_FRAME:
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            return JpegHeader(height, width, data[place + 9])
        place += 2 + length
    return None
