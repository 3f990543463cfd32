"""Checks every byte and every record of a record folder against its manifest."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_records import schema
from tf_records.manifest import Manifest, ShardInfo
from tf_records.record_faults import find_record_fault
from tf_records.record_file import read_records
from tf_records.remote_path import RecordPath
from tf_records.shard_files import Damage, find_file_fault


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
        for example in _read_examples(folder / shard.file):
            fault = example if isinstance(example, str) else find_record_fault(example, manifest)
            if fault is not None:
                damaged = True
                yield Damage(shard=shard.file, record=records, reason=fault)
            elif not isinstance(example, str):
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


def _read_examples(path: RecordPath) -> Iterator[tf.train.SequenceExample | str]:
    """Each record, or what is wrong with it."""
    for content in read_records(path):
        if isinstance(content, str):
            yield content
            continue
        try:
            example = tf.train.SequenceExample.FromString(content)
        except DecodeError:
            yield "it is no tf.train.SequenceExample"
        else:
            yield example


def _label(example: tf.train.SequenceExample, manifest: Manifest) -> list[str]:
    index = example.context.feature[schema.LABEL_INDEX].int64_list.value[0]
    return [] if index == schema.UNLABELED else [manifest.classes[index]]
