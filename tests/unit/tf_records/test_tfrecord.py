"""TFRecord files without TensorFlow: what it reads of them, and what is said of damaged ones."""

import io
from pathlib import Path

import pytest
import tensorflow as tf

from tf_records.tfrecord import OrderedRecords, RecordFile, encode_sequence_example, read_records


def write(path: Path, records: list[bytes]) -> Path:
    with path.open("wb") as file:
        written = RecordFile(file)
        for record in records:
            written.write([record[:3], record[3:]], len(record))
    assert (written.records, written.bytes) == (len(records), path.stat().st_size)
    return path


def test_tensorflow_reads_what_was_written_and_so_do_we(tmp_path: Path) -> None:
    records = [b"one", b"", b"three" * 1000]
    path = write(tmp_path / "r.tfrecord", records)
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == records
    assert list(read_records(str(path))) == list(read_records(path)) == records


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_records_are_written_by_their_number(tmp_path: Path, order: list[int]) -> None:
    file = io.BytesIO()
    with OrderedRecords(RecordFile(file), tmp_path) as ordered:
        for number in order:
            ordered.add(number, [] if number == 1 else [f"record {number}".encode()])
    (tmp_path / "r").write_bytes(file.getvalue())
    assert list(read_records(tmp_path / "r")) == [b"record 0", b"record 2"]


def test_a_damaged_record_is_told_and_the_next_one_read(tmp_path: Path) -> None:
    path = write(tmp_path / "r", [b"first", b"second", b"third"])
    content = bytearray(path.read_bytes())
    content[12] ^= 1
    path.write_bytes(content)
    assert list(read_records(path)) == ["its checksum is wrong", b"second", b"third"]
    path.write_bytes(content[:-1])
    assert list(read_records(path))[-1] == f"it is cut short, at byte {len(content) - 1}"


def test_examples_are_those_that_protobuf_makes() -> None:
    context = {"number": -1, "share": 0.5, "word": b"wave", "many": [1, 300, 2**40]}
    encoded = b"".join(encode_sequence_example(context, {"frames": [b"a", b"bc"]}))
    example = tf.train.SequenceExample.FromString(encoded)
    assert example.SerializeToString(deterministic=True) == encoded
    assert example.context.feature["many"].int64_list.value == [1, 300, 2**40]
    assert example.context.feature["number"].int64_list.value == [-1]
