"""TFRecord files, written and read without TensorFlow: in any order of the records, past damaged ones."""

import hashlib
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import google_crc32c

from tf_records.remote_path import RecordPath

_MEMORY_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_HEADER_BYTES = 12
_CRC_BYTES = 4


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


def read_records(path: RecordPath) -> Iterator[bytes | str]:
    """Yields each record, or in its place what is wrong with it; a damaged length hides all that follows.

    TensorFlow's own reader stops at the first damaged record.
    """
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
