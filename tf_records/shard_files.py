"""Whether the files of a record folder are those that its manifest describes. No TensorFlow."""

import dataclasses

from tf_records.files import hash_file
from tf_records.manifest import ShardInfo
from tf_records.remote_path import RecordPath


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is wrong with a shard, or with one record of it, counted from 0."""

    shard: str
    reason: str
    record: int | None = None

    def __str__(self) -> str:
        record = "" if self.record is None else f", record {self.record}"
        return f"{self.shard}{record}: {self.reason}"


def find_size_fault(folder: RecordPath, shard: ShardInfo) -> str | None:
    """What is wrong with a shard's presence or size, or None."""
    path = folder / shard.file
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != shard.bytes:
        return f"has {size} bytes, the manifest says {shard.bytes}"
    return None


def find_file_fault(folder: RecordPath, shard: ShardInfo) -> str | None:
    """What is wrong with a shard's presence, size or bytes, or None. Reads the whole file."""
    if fault := find_size_fault(folder, shard):
        return fault
    try:
        digest = hash_file(folder / shard.file)
    except OSError as error:  # as from a failing disk
        return f"cannot be read: {error.strerror or error}"
    if digest != shard.sha256:
        return f"is not what the manifest describes (sha256 {digest[:12]}…, expected {shard.sha256[:12]}…)"
    return None
