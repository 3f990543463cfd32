"""Records of features: the same records, with what a network makes of each frame in its place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_reader import CLIP, CROP, LATER, flat, jpeg, write_folder

from tf_records import augment, schema
from tf_records.errors import RecordError
from tf_records.features import write_feature_records
from tf_records.manifest import Manifest
from tf_records.reader import evaluation_batches, training_batches
from tf_records.records import Records
from tf_records.schema import EITHER, FUTURE, OBSERVED, FeatureInfo
from tf_records.verify import find_damage

BATCH = 6
INFO = FeatureInfo(shape=(2,), source="mean and number")
WINDOWS = [(9, 9), (4, 12), (3, 3), (9, 4), (12, 9), (5, 5), (9, 9)]


def describe(frames: tf.Tensor) -> tf.Tensor:
    """The mean, and the number that `flat` wrote into the picture."""
    mean = tf.reduce_mean(frames, axis=(1, 2, 3))
    return tf.stack([mean, tf.round((mean + 1) * 127.5 / 4)], axis=1)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Three shards of records whose segments overlap where they are longer than LATER frames."""
    frames = [flat(number) for number in range(24)]
    return Records.open(write_folder(tmp_path / "records", WINDOWS, frames, shards=3))


def write(
    records: Records, compute: Callable[[tf.Tensor], tf.Tensor] = describe, **changes: object
) -> Records:
    arguments = {"info": INFO, "crop": CROP, "batch_frames": BATCH, **changes}
    out = records.folder / "frame-features" / "key"
    manifest = write_feature_records(records, out, compute, **arguments)
    opened = Records.open(out)
    assert opened.manifest == manifest
    return opened


def examples(records: Records, split: str = "train") -> list[tf.train.SequenceExample]:
    dataset = tf.data.TFRecordDataset(records.paths(split)).as_numpy_iterator()
    return [tf.train.SequenceExample.FromString(serialized) for serialized in dataset]


def frames_of(example: tf.train.SequenceExample, key: str) -> list[bytes]:
    return [feature.bytes_list.value[0] for feature in example.feature_lists.feature_list[key].feature]


def test_features_are_those_of_the_centrally_cropped_frames_as_float16(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [jpeg(rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)) for _ in range(24)]
    records = Records.open(write_folder(tmp_path / "records", WINDOWS[:3], pictures))
    weights = tf.constant(rng.standard_normal((CROP * CROP * 3, 6)).astype(np.float32))

    def compute(frames: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.reshape(frames, (BATCH, -1)) @ weights, (BATCH, 2, 3))

    made = write(records, compute, info=FeatureInfo(shape=(2, 3), source="projection"))
    for image_record, feature_record in zip(examples(records), examples(made), strict=True):
        assert feature_record.context.feature["feature/shape"].int64_list.value == [2, 3]
        for view in (OBSERVED, FUTURE):
            jpegs = frames_of(image_record, schema.VIEW_IMAGES[view])
            stored = frames_of(feature_record, schema.VIEW_FEATURES[view])
            assert len(stored) == len(jpegs)
            for encoded, raw in zip(jpegs, stored, strict=True):
                frame = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")[None]
                cut = tf.reshape(augment.crop_centrally(frame, CROP), (1, -1))
                expected = (cut @ weights).numpy()[0]
                np.testing.assert_allclose(np.frombuffer(raw, np.float16), expected, rtol=2e-3, atol=2e-2)


def test_everything_but_the_frames_stays(records: Records) -> None:
    made = write(records)
    for before, after in zip(examples(records), examples(made), strict=True):
        context = dict(after.context.feature)
        assert context.pop("feature/shape").int64_list.value == [2]
        assert context == dict(before.context.feature)
        assert set(after.feature_lists.feature_list) == {"observed/feature/raw", "future/feature/raw"}
    np.testing.assert_array_equal(made.labels_and_videos("train")[0], records.labels_and_videos("train")[0])


def test_a_frame_is_computed_once_a_record_in_batches_of_one_size(records: Records) -> None:
    batches, traced = [], []

    def compute(frames: tf.Tensor) -> tf.Tensor:
        traced.append(frames.shape)
        described = describe(frames)
        tf.py_function(
            lambda numbers: batches.append(numbers.numpy().astype(int).tolist()), [described[:, 1]], []
        )
        return described

    write(records, compute)
    assert traced == [(BATCH, CROP, CROP, 3)]
    expected = []
    # Records lie in the shards in turn.
    for observed, future in [WINDOWS[n] for shard in range(3) for n in range(shard, 7, 3)]:
        frames = list(dict.fromkeys([*range(observed), *range(LATER, LATER + future)]))
        for first in range(0, len(frames), BATCH):
            batch = frames[first : first + BATCH]
            expected.append(batch + batch[-1:] * (BATCH - len(batch)))
    assert batches == expected
    assert sum(len(set(batch)) for batch in batches) < sum(observed + future for observed, future in WINDOWS)


@pytest.mark.slow
@pytest.mark.parametrize("views", [(OBSERVED, FUTURE), (EITHER,)])
def test_training_sees_the_frames_that_it_would_see_in_the_images(
    records: Records, views: tuple[str, ...]
) -> None:
    made = write(records)
    arguments = {"views": views, "batch_size": 2, "crop": CROP, "seed": 3, "labels": np.arange(7)}
    for epoch in range(2):
        images = list(training_batches(records, epoch=epoch, **arguments).as_numpy_iterator())
        features = list(training_batches(made, epoch=epoch, **arguments).as_numpy_iterator())
        assert len(images) == len(features) == 3
        for image_batch, feature_batch in zip(images, features, strict=True):
            np.testing.assert_array_equal(image_batch["label"], feature_batch["label"])
            for view in views:
                assert (feature_batch[view].shape, feature_batch[view].dtype) == ((2, CLIP, 2), np.float32)
                numbers = np.round((image_batch[view].mean(axis=(2, 3, 4)) + 1) * 127.5 / 4)
                np.testing.assert_array_equal(feature_batch[view][..., 1], numbers)


@pytest.mark.slow
def test_evaluation_sees_the_windows_that_it_would_see_in_the_images(records: Records) -> None:
    made = write(records, split="test")
    assert set(made.manifest.splits) == {"test"}
    arguments = {"split": "test", "view": FUTURE, "batch_size": 4, "crop": CROP, "windows": 3}
    images = list(evaluation_batches(records, **arguments).as_numpy_iterator())
    features = list(evaluation_batches(made, **arguments).as_numpy_iterator())
    for image_batch, feature_batch in zip(images, features, strict=True):
        np.testing.assert_array_equal(image_batch["index"], feature_batch["index"])
        numbers = np.round((image_batch["clip"].mean(axis=(2, 3, 4)) + 1) * 127.5 / 4)
        np.testing.assert_array_equal(feature_batch["clip"][..., 1], numbers)


def test_the_static_shape_of_feature_batches_is_known(records: Records) -> None:
    made = write(records)
    dataset = training_batches(made, views=(OBSERVED,), batch_size=2, crop=CROP, seed=0, epoch=0)
    assert dataset.element_spec[OBSERVED].shape == (2, CLIP, 2)


def test_the_manifest_says_what_the_features_are_and_describes_every_byte(records: Records) -> None:
    made = write(records)
    assert not list(find_damage(made.folder, made.manifest.shards, made.manifest))
    manifest = made.manifest
    assert manifest.features == INFO
    assert Manifest.from_json(manifest.to_json()) == manifest
    before = records.manifest.splits["train"]
    after = manifest.splits["train"]
    assert [shard.file for shard in after.shards] == [shard.file for shard in before.shards]
    assert [shard.records for shard in after.shards] == [3, 2, 2]
    assert (after.labeled, manifest.classes, manifest.clip) == (
        7,
        records.manifest.classes,
        records.manifest.clip,
    )


def fail(frames: tf.Tensor) -> tf.Tensor:
    raise AssertionError("computed again")


def test_finished_features_are_kept(records: Records) -> None:
    made = write(records)
    before = {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    assert write(records, fail).manifest == made.manifest
    assert {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


def test_progress_is_told_after_every_record(records: Records) -> None:
    told: list[tuple[int, int]] = []
    write(records, on_record=lambda done, total: told.append((done, total)))
    assert told == [(done, 7) for done in range(1, 8)]


def test_an_interrupted_folder_is_absent_and_the_next_call_makes_it_whole(records: Records) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(records, on_record=interrupt)
    assert list((records.folder / "frame-features").iterdir()) == []
    made = write(records)
    assert not list(find_damage(made.folder, made.manifest.shards, made.manifest))


def test_of_two_at_once_the_first_to_finish_counts(records: Records) -> None:
    folder = records.folder / "frame-features"

    def finish_first(done: int, total: int) -> None:
        if done == total:
            options = {"info": INFO, "crop": CROP, "batch_frames": BATCH}
            write_feature_records(records, folder / "other", describe, **options)
            (folder / "other").rename(folder / "key")

    made = write(records, on_record=finish_first)
    assert not list(find_damage(made.folder, made.manifest.shards, made.manifest))
    assert [path.name for path in folder.iterdir()] == ["key"]


def test_a_split_that_is_not_there_is_refused_and_nothing_made(records: Records) -> None:
    with pytest.raises(RecordError, match="no records in split 'val'"):
        write(records, split="val")
    assert list((records.folder / "frame-features").iterdir()) == []


def test_a_damaged_record_is_named_and_nothing_made(records: Records) -> None:
    path = records.folder / "train-00001-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[500] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"train-00001-of-00003\.tfrecord is damaged"):
        write(records)
    assert list((records.folder / "frame-features").iterdir()) == []


def test_a_picture_that_is_no_jpeg_is_named_and_nothing_made(tmp_path: Path) -> None:
    frames = [*(flat(n) for n in range(10)), *(b"no picture" for _ in range(10))]
    records = Records.open(write_folder(tmp_path / "junk", [(CLIP, CLIP)] * 2, frames))
    with pytest.raises(RecordError, match=r"is damaged: record 0: frame 0 of future/.* is no whole JPEG"):
        write(records)
    assert list((records.folder / "frame-features").iterdir()) == []


def test_a_shard_of_features_cut_short_is_to_be_deleted_not_built(records: Records) -> None:
    made = write(records)
    shard = made.folder / "train-00000-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(RecordError, match=rf"{shard.name} has .* Delete {made.folder}") as error:
        Records.open(made.folder)
    assert "build-records" not in str(error.value)
