"""Records written without TensorFlow are, byte for byte, what TensorFlow writes."""

import io
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tf_records.tfrecord import OrderedRecords, RecordFile, encode_sequence_example

KEYS = st.text(max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.binary(max_size=300),
    INT64,
    st.floats(width=32, allow_nan=False),
    st.lists(INT64, min_size=1, max_size=5),
)


def feature(value: object) -> tf.train.Feature:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    numbers = value if isinstance(value, list) else [value]
    return tf.train.Feature(int64_list=tf.train.Int64List(value=numbers))


@given(
    st.dictionaries(KEYS, VALUES, max_size=6),
    st.dictionaries(KEYS, st.lists(st.binary(max_size=200), max_size=5), max_size=3),
)
def test_an_example_has_the_bytes_that_protobuf_gives_it(context: dict, lists: dict) -> None:
    theirs = tf.train.SequenceExample(
        context=tf.train.Features(feature={key: feature(value) for key, value in context.items()}),
        feature_lists=tf.train.FeatureLists(
            feature_list={
                key: tf.train.FeatureList(feature=[feature(value) for value in values])
                for key, values in lists.items()
            }
        ),
    )
    assert b"".join(encode_sequence_example(context, lists)) == theirs.SerializeToString(deterministic=True)


@given(st.lists(st.binary(max_size=400), max_size=8), st.randoms(use_true_random=False))
def test_a_file_has_the_bytes_that_tensorflow_writes_in_whatever_order_records_come(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], random: object
) -> None:
    folder = tmp_path_factory.getbasetemp()
    with tf.io.TFRecordWriter(str(folder / "theirs")) as writer:
        for record in records:
            if record:
                writer.write(record)
    file = io.BytesIO()
    ours = RecordFile(file)
    numbers = list(range(len(records)))
    random.shuffle(numbers)
    with OrderedRecords(ours, folder) as ordered:
        for number in numbers:
            half = len(records[number]) // 2
            ordered.add(number, [records[number][:half], records[number][half:]])
    assert file.getvalue() == (folder / "theirs").read_bytes()
    assert (ours.records, ours.bytes) == (sum(map(bool, records)), len(file.getvalue()))


def test_records_that_wait_in_a_file_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do beyond the memory they are given."""
    monkeypatch.setattr("tf_records.tfrecord._MEMORY_BYTES", 100)
    monkeypatch.setattr("tf_records.tfrecord._CHUNK_BYTES", 64)
    records = [bytes([number]) * 150 for number in range(6)]
    with (tmp_path / "ours").open("wb") as file, OrderedRecords(RecordFile(file), tmp_path) as ordered:
        for number in (3, 5, 1, 2, 4, 0):
            ordered.add(number, [records[number]])
    assert list(tf.data.TFRecordDataset(str(tmp_path / "ours")).as_numpy_iterator()) == records
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]
