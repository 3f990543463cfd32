"""TFRecord files, written and read without TensorFlow: in any order of the records, past damaged ones.

`encode_sequence_example` gives a `tf.train.SequenceExample` in its wire format, as pieces, so that the frames
of a long action are not copied. Building needs nothing else of TensorFlow, whose import takes longer than
many a build and 400 MB of every worker.
"""

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import google_crc32c

from tf_records.remote_path import record_path

Value = bytes | int | float | Sequence[int] | Sequence[bytes]
_MEMORY_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_HEADER_BYTES = 12
_CRC_BYTES = 4
# Field numbers of tensorflow/core/example/example.proto and feature.proto.
_CONTEXT, _FEATURE_LISTS = 1, 2
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_KEY, _VALUE = 1, 2


class RecordFile:
    """Writes records, each as its length, the length's checksum, itself, its checksum.

    `records`, `bytes` and `sha256` tell of the file so far, which need not be read again.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.records = 0
        self.bytes = 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def write(self, pieces: Iterable[bytes], size: int) -> None:
        """Appends the record that `pieces`, of `size` bytes in all, make up."""
        length = struct.pack("<Q", size)
        self._put(length + _masked(google_crc32c.value(length)))
        crc = 0
        for piece in pieces:
            crc = google_crc32c.extend(crc, piece)
            self._put(piece)
        self._put(_masked(crc))
        self.records += 1

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.bytes += len(data)


class OrderedRecords:
    """Writes records by their number, whatever order they come in; use as a context manager.

    Those whose turn has not come wait in memory, beyond 64 MB in an unnamed file in `folder`.
    """

    def __init__(self, records: RecordFile, folder: Path) -> None:
        self._records = records
        self._next = 0
        self._places: dict[int, tuple[int, int]] = {}
        self._waiting = tempfile.SpooledTemporaryFile(_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115

    def __enter__(self) -> "OrderedRecords":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.close()

    def add(self, number: int, pieces: list[bytes]) -> None:
        """Takes record `number`, counted from 0; one without pieces is left out."""
        size = sum(map(len, pieces))
        if number != self._next:
            self._places[number] = (self._waiting.seek(0, 2), size)
            self._waiting.writelines(pieces)
            return
        self._write(pieces, size)
        while self._next in self._places:
            offset, size = self._places.pop(self._next)
            self._waiting.seek(offset)
            self._write(self._stored(size), size)

    def _write(self, pieces: Iterable[bytes], size: int) -> None:
        if size:
            self._records.write(pieces, size)
        self._next += 1

    def _stored(self, size: int) -> Iterable[bytes]:
        while size > 0:
            chunk = self._waiting.read(min(size, _CHUNK_BYTES))
            size -= len(chunk)
            yield chunk


def read_records(path: str | os.PathLike[str]) -> Iterator[bytes | str]:
    """Yields each record, or in its place what is wrong with it; a damaged length hides all that follows.

    TensorFlow's own reader stops at the first damaged record.
    """
    path = record_path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        while (offset := file.tell()) < size:
            header = file.read(_HEADER_BYTES)
            if _masked(google_crc32c.value(header[:8])) != header[8:]:
                yield f"its length is damaged, and hides what follows byte {offset} of {size}"
                return
            (length,) = struct.unpack("<Q", header[:8])
            if offset + _HEADER_BYTES + length + _CRC_BYTES > size:
                yield f"it is cut short, at byte {size}"
                return
            data = file.read(length)
            whole = _masked(google_crc32c.value(data)) == file.read(_CRC_BYTES)
            yield data if whole else "its checksum is wrong"


def _masked(crc: int) -> bytes:
    """The checksum as the format stores it, rotated and shifted, so that data may hold checksums."""
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def encode_sequence_example(
    context: Mapping[str, Value], lists: Mapping[str, Sequence[bytes]]
) -> list[bytes]:
    """What `SerializeToString(deterministic=True)` gives, in pieces.

    Args:
        context: key → its value, or several; whole numbers become int64, others float32.
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
    values = [value] if isinstance(value, int) else value
    strings = [each for each in values if isinstance(each, bytes)]
    if strings:
        return _field(_BYTES_LIST, [piece for each in strings for piece in _field(1, [each])])
    numbers = [each for each in values if isinstance(each, int)]
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
