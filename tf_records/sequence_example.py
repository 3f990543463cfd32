"""`tf.train.SequenceExample` in its wire format, written without TensorFlow.

Building needs nothing else of TensorFlow, whose import takes longer than many a build and 400 MB of every
worker. A message comes as pieces, so that the frames of a long action are not copied.
"""

import struct
from collections.abc import Mapping, Sequence

Value = bytes | int | float | Sequence[int]
# Field numbers of tensorflow/core/example/example.proto and feature.proto.
_CONTEXT, _FEATURE_LISTS = 1, 2
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_KEY, _VALUE = 1, 2


def encode_sequence_example(
    context: Mapping[str, Value], lists: Mapping[str, Sequence[bytes]]
) -> list[bytes]:
    """What `SerializeToString(deterministic=True)` gives, in pieces.

    Args:
        context: key → its value; whole numbers become int64, others float32.
        lists: key → one value a frame.
    """
    features = [_entry(key, _feature(context[key])) for key in sorted(context, key=_map_order)]
    feature_lists = [
        _entry(key, [piece for value in lists[key] for piece in _field(1, _feature(value))])
        for key in sorted(lists, key=_map_order)
    ]
    return [*_field(_CONTEXT, _flatten(features)), *_field(_FEATURE_LISTS, _flatten(feature_lists))]


def _map_order(key: str) -> bytes:
    """Protobuf's: by bytes, and of two that begin alike the longer first; no UTF-8 has a byte of 255."""
    return key.encode() + b"\xff"


def _entry(key: str, value: list[bytes]) -> list[bytes]:
    """One entry of a map, which is field 1 of the message that holds it."""
    return _field(1, [*_field(_KEY, [key.encode()]), *_field(_VALUE, value)])


def _feature(value: Value) -> list[bytes]:
    if isinstance(value, bytes):
        return _field(_BYTES_LIST, _field(1, [value]))
    if isinstance(value, float):
        return _field(_FLOAT_LIST, _field(1, [struct.pack("<f", value)]))
    numbers = [value] if isinstance(value, int) else value
    return _field(_INT64_LIST, _field(1, [_varint(number % 2**64) for number in numbers]))


def _field(number: int, pieces: list[bytes]) -> list[bytes]:
    """A field with a length: its key, the length, the content."""
    return [_varint(number << 3 | 2) + _varint(sum(map(len, pieces))), *pieces]


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    if number <= 0x7F:
        return bytes((number,))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _flatten(lists: list[list[bytes]]) -> list[bytes]:
    return [piece for pieces in lists for piece in pieces]
