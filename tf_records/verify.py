"""Checks every byte of a record folder against its manifest."""

import hashlib

import tensorflow as tf

from tf_records.errors import RecordError
from tf_records.reader import Records


def verify_records(records: Records) -> None:
    """Compares each shard's sha256 and count of records with the manifest.

    Raises:
        RecordError: names the first shard that differs.
    """
    for split in records.manifest.splits.values():
        for shard in split.shards:
            path = records.folder / shard.file
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != shard.sha256:
                raise RecordError(
                    f"Shard {path} is not what the manifest describes (sha256 {digest[:12]}…, expected "
                    f"{shard.sha256[:12]}…). Rebuild the records with --overwrite."
                )
            count = sum(1 for _ in tf.data.TFRecordDataset(str(path)))
            if count != shard.records:
                raise RecordError(f"Shard {path} has {count} records, the manifest says {shard.records}.")
