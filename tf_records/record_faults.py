"""What a record folder's manifest promises of each record, and whether a record keeps it."""

import math

import tensorflow as tf

from tf_records import schema
from tf_records.jpeg import JpegHeader, read_jpeg_header
from tf_records.manifest import Manifest
from tf_records.schema import FLOW, RGB, FeatureInfo

_CONTEXT = {
    schema.CLIP_ID: "bytes_list",
    schema.CLIP_VIDEO: "bytes_list",
    schema.CLIP_OFFSET_FRAMES: "int64_list",
    schema.LABEL_INDEX: "int64_list",
    schema.LABEL_STRING: "bytes_list",
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
    if fault := _label_fault(context, manifest.classes):
        return fault
    if manifest.features is not None:
        return _features_fault(example, manifest.features)
    return _pictures_fault(example, manifest)


def _label_fault(context: tf.train.Features, classes: tuple[str, ...]) -> str | None:
    index = context[schema.LABEL_INDEX].int64_list.value[0]
    label = context[schema.LABEL_STRING].bytes_list.value[0].decode(errors="replace")
    if not (index == schema.UNLABELED or 0 <= index < len(classes)):
        return f"label index {index} is none of the {len(classes)} classes"
    expected = "" if index == schema.UNLABELED else classes[index]
    return None if label == expected else f"label index {index} means {expected!r}, the label says {label!r}"


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
