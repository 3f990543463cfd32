"""Records of features of whole clips: which clips, what stays, and what a killed extraction leaves."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_frame_features import examples, frames_of
from test_reader import CLIP, LATER, flat, jpeg, write_folder

from tf_records import schema
from tf_records.errors import RecordError
from tf_records.features import write_clip_features
from tf_records.manifest import Manifest, load_manifest
from tf_records.reader import evaluation_batches, training_batches
from tf_records.records import Records
from tf_records.schema import EITHER, FUTURE, OBSERVED, PER_CLIP, FeatureInfo
from tf_records.verify import find_damage

pytestmark = pytest.mark.slow

BATCH = 3
SHARDS = 2
INFO = FeatureInfo(
    shape=(None, None, None, 3),
    source="pooled",
    per=PER_CLIP,
    endpoint="pool",
    width=1.0,
    weights_sha256="0" * 64,
    windows=3,
    records_sha256="1" * 64,
)
WINDOWS = [(9, 9), (4, 12), (3, 3), (9, 5), (6, 9), (5, 5), (9, 9)]


def pool(clips: tf.Tensor) -> tf.Tensor:
    """The mean of each 8 x 8 pixels: maps that tell where they were cut and of which frames."""
    return tf.nn.avg_pool3d(clips, (1, 8, 8), (1, 8, 8), "VALID")


def fail(clips: tf.Tensor) -> tf.Tensor:
    raise AssertionError("computed again")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Two shards a split of grey pictures that tell their frame number, 32 x 40."""
    frames = [flat(number) for number in range(24)]
    return Records.open(write_folder(tmp_path / "records", WINDOWS, frames, shards=SHARDS))


def write(
    records: Records,
    compute: Callable[[tf.Tensor], tf.Tensor] = pool,
    name: str = "features",
    **changes: object,
) -> Records:
    info = dataclasses.replace(
        INFO, **{key: changes.pop(key) for key in ("windows", "crop") if key in changes}
    )
    out = records.folder.parent / name
    out.mkdir(exist_ok=True)
    manifest = write_clip_features(records, out, compute, info, **{"batch_size": BATCH, **changes})
    opened = Records.open(out)
    assert opened.manifest == manifest
    return opened


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def numbers(maps: np.ndarray) -> np.ndarray:
    """Frame numbers of maps `(…, T, H, W, C)` of grey pictures."""
    return np.round((maps.astype(np.float64).mean(axis=(-3, -2, -1)) + 1) * 127.5 / 4).astype(int)


def stored(example: tf.train.SequenceExample, view: str) -> list[np.ndarray]:
    shape = example.context.feature["feature/shape"].int64_list.value
    raw = frames_of(example, schema.VIEW_FEATURES[view])
    return [np.frombuffer(one, np.float16).reshape(shape) for one in raw]


def starts(frames: int, windows: int) -> list[int]:
    """Evenly spaced first frames of clips, by the definition."""
    last = max(frames - CLIP, 0)
    if windows == 1:
        return [last // 2]
    count = min(windows, last + 1)
    return [number * last // max(count - 1, 1) for number in range(count)]


@pytest.mark.parametrize("windows", [1, 3])
def test_clips_are_evenly_spaced_and_in_training_the_same_of_both_segments(
    records: Records, windows: int
) -> None:
    made = write(records, windows=windows)
    order = [WINDOWS[n] for shard in range(SHARDS) for n in range(shard, 7, SHARDS)]
    for split in ("train", "test"):
        for example, lengths in zip(examples(made, split), order, strict=True):
            for view, first, length in zip((OBSERVED, FUTURE), (0, LATER), lengths, strict=True):
                chosen = starts(min(lengths) if split == "train" else length, windows)
                expected = [[first + (start + t) % length for t in range(CLIP)] for start in chosen]
                assert numbers(np.stack(stored(example, view))).tolist() == expected


def test_maps_are_those_of_the_whole_frame_or_of_its_central_square(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)
    records = Records.open(write_folder(tmp_path / "records", [(CLIP, CLIP)], [jpeg(picture)] * 20))
    frame = tf.io.decode_jpeg(jpeg(picture), dct_method="INTEGER_ACCURATE").numpy() / 127.5 - 1.0
    for crop, seen in ((None, frame), (28, frame[2:30, 6:34])):
        (example,) = examples(write(records, name=f"crop-{crop}", crop=crop))
        rows, columns = seen.shape[0] // 8, seen.shape[1] // 8
        blocks = seen[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8, 3).mean(axis=(1, 3))
        assert example.context.feature["feature/shape"].int64_list.value == [CLIP, rows, columns, 3]
        for one in (*stored(example, OBSERVED), *stored(example, FUTURE)):
            np.testing.assert_allclose(one, np.broadcast_to(blocks, one.shape), rtol=1e-3, atol=1e-3)


def test_everything_but_the_frames_stays(records: Records) -> None:
    made = write(records)
    for before, after in zip(examples(records), examples(made), strict=True):
        context = dict(after.context.feature)
        assert context.pop("feature/shape").int64_list.value == [CLIP, 4, 5, 3]
        assert context == dict(before.context.feature)
        assert set(after.feature_lists.feature_list) == {"observed/feature/raw", "future/feature/raw"}
    np.testing.assert_array_equal(made.labels_and_videos("train")[0], records.labels_and_videos("train")[0])
    assert not list(find_damage(made.folder, made.manifest.shards, made.manifest))
    manifest = made.manifest
    assert manifest.features == dataclasses.replace(INFO, shape=(CLIP, 4, 5, 3))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_training_draws_one_clip_and_one_square_for_both_clips(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    records = Records.open(write_folder(tmp_path / "records", [(9, 9)] * 12, [jpeg(picture)] * 20))
    made = write(records)
    (whole, *_) = stored(examples(made)[0], OBSERVED)  # 4 x 6 x 8 x 3
    side = INFO.map_side(64)
    squares = {
        whole[:, y : y + side, x : x + side].astype(np.float32).tobytes(): (y, x)
        for y in range(3)
        for x in range(5)
    }
    places = []
    for epoch in range(3):
        options = {"views": (OBSERVED, FUTURE), "batch_size": 4, "crop": 64, "seed": 0, "epoch": epoch}
        for batch in training_batches(made, **options).as_numpy_iterator():
            np.testing.assert_array_equal(batch[OBSERVED], batch[FUTURE])
            places += [squares[cut.tobytes()] for cut in batch[OBSERVED]]  # No square is mirrored.
    assert {y for y, _ in places} == {0, 1, 2}
    assert {x for _, x in places} == {0, 1, 2, 3, 4}


def test_an_epoch_goes_on_after_the_batches_that_are_skipped(records: Records) -> None:
    options = {"views": (OBSERVED, FUTURE), "batch_size": 2, "crop": 28, "seed": 1, "epoch": 2}
    made = write(records)
    whole = list(training_batches(made, **options).as_numpy_iterator())
    rest = list(training_batches(made, skip_batches=2, **options).as_numpy_iterator())
    assert len(rest) == len(whole) - 2 == 1
    np.testing.assert_equal(rest, whole[2:])


@pytest.mark.parametrize("views", [(OBSERVED, FUTURE), (EITHER,)])
def test_the_two_clips_of_a_pair_keep_their_distance(records: Records, views: tuple[str, ...]) -> None:
    made = write(records)
    drawn = set()
    for epoch in range(4):
        options = {"views": views, "batch_size": 7, "crop": 28, "seed": 1, "epoch": epoch}
        dataset = training_batches(made, labels=np.arange(7), **options)
        assert dataset.element_spec[views[0]].shape == (7, CLIP, 2, 2, 3)
        (batch,) = dataset.as_numpy_iterator()
        first = {view: numbers(batch[view])[:, 0] for view in views}
        drawn |= set(first[views[0]].tolist())
        if views != (EITHER,):
            np.testing.assert_array_equal(first[FUTURE] - first[OBSERVED], LATER)
    assert len(drawn) > 3
    assert (max(drawn) >= LATER) == (views == (EITHER,))


def test_evaluation_spreads_its_windows_over_the_stored_ones(records: Records) -> None:
    made = write(records, windows=5)
    for windows in (1, 3, 9):
        options = {"split": "test", "view": FUTURE, "batch_size": 100, "crop": 28, "windows": windows}
        (batch,) = evaluation_batches(made, **options).as_numpy_iterator()
        first = numbers(batch["clip"])[:, 0][batch["index"] == 0]
        # Of a segment of 9 frames, starts 0 1 2 3 5 are stored (0 · 5/4 … 4 · 5/4).
        expected = {1: [2], 3: [0, 2, 5], 9: [0, 1, 2, 3, 5]}[windows]
        assert (first - LATER).tolist() == expected


def test_records_may_differ_in_the_size_of_their_frames(tmp_path: Path) -> None:
    wide = write_folder(tmp_path / "wide", [(5, 5)] * 2, [jpeg(np.zeros((32, 64, 3), np.uint8))] * 20)
    high = write_folder(tmp_path / "high", [(5, 5)] * 2, [jpeg(np.zeros((48, 32, 3), np.uint8))] * 20)
    name = "train-00000-of-00001.tfrecord"
    both = (wide / name).read_bytes() + (high / name).read_bytes()
    (wide / name).write_bytes(both)
    manifest = load_manifest(wide)
    train = manifest.splits["train"]
    shard = dataclasses.replace(
        train.shards[0], records=4, bytes=len(both), sha256=hashlib.sha256(both).hexdigest()
    )
    train = dataclasses.replace(train, labeled=4, shards=(shard,))
    manifest = dataclasses.replace(manifest, splits={"train": train})
    (wide / "manifest.json").write_text(manifest.to_json())
    made = write(Records.open(wide))
    assert made.manifest.features.shape == (CLIP, None, None, 3)
    shapes = [stored(example, FUTURE)[0].shape for example in examples(made)]
    assert shapes == [(4, 4, 8, 3)] * 2 + [(4, 6, 4, 3)] * 2
    options = {"views": (OBSERVED,), "batch_size": 4, "crop": 64, "seed": 0, "epoch": 0}
    (batch,) = training_batches(made, **options).as_numpy_iterator()
    assert batch[OBSERVED].shape == (4, CLIP, 4, 4, 3)


def test_flow_goes_into_the_network_in_two_channels(records: Records) -> None:
    splits = {}
    for name, split in records.manifest.splits.items():
        shards = []
        for shard in split.shards:
            path = records.folder / shard.file
            dataset = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
            with tf.io.TFRecordWriter(str(path)) as writer:
                for serialized in dataset:
                    example = tf.train.SequenceExample.FromString(serialized)
                    lists = example.feature_lists.feature_list
                    for view, keys in schema.VIEW_KEYS["flow"].items():
                        for key in keys:
                            lists[key].CopyFrom(lists[schema.VIEW_IMAGES[view]])
                    writer.write(example.SerializeToString())
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            shards.append(dataclasses.replace(shard, bytes=len(data), sha256=digest))
        splits[name] = dataclasses.replace(split, shards=tuple(shards))
    manifest = dataclasses.replace(records.manifest, splits=splits, modality="rgb,flow")
    (records.folder / "manifest.json").write_text(manifest.to_json())
    made = write(Records.open(records.folder, modality="flow"))
    assert made.manifest.modality == made.modality == "flow"
    assert made.manifest.features.shape == (CLIP, 4, 5, 2)
    for example in examples(made):
        assert set(example.feature_lists.feature_list) == {"observed/feature/raw", "future/feature/raw"}
    (first, *_) = stored(examples(made)[0], FUTURE)
    expected = (4 * np.arange(LATER, LATER + CLIP) - 128) / 127
    np.testing.assert_allclose(first.mean(axis=(1, 2, 3)), expected, atol=1e-3)


def test_a_killed_extraction_keeps_its_shards_and_ends_like_an_undisturbed_one(records: Records) -> None:
    undisturbed = contents(write(records, name="undisturbed").folder)
    assert contents(write(records, name="again").folder) == undisturbed
    done = []

    def kill(count: int) -> None:
        done.append(count)
        if sum(done) == 12:  # 4 + 3 + 4, and the first of the last shard
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(records, on_record=kill)
    out = records.folder.parent / "features"
    assert not (out / "manifest.json").exists()
    kept = sorted(out.glob("*.tfrecord"))
    assert len(kept) == 3
    kept[1].write_bytes(b"half a shard")
    (out / f".tmp-1-{kept[0].name}").touch()
    before = {path: path.stat().st_mtime_ns for path in kept}
    done.clear()
    assert contents(write(records, on_record=done.append).folder) == undisturbed
    assert sum(done) == 14
    assert [path for path in kept if path.stat().st_mtime_ns != before[path]] == [kept[1]]


def test_shards_of_other_features_are_not_kept(records: Records) -> None:
    done = []

    def kill(count: int) -> None:
        done.append(count)
        if sum(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(records, windows=1, on_record=kill)
    assert len(list((records.folder.parent / "features").glob("*.tfrecord"))) == 1
    expected = contents(write(records, name="undisturbed").folder)
    assert contents(write(records).folder) == expected


def test_finished_features_are_kept_and_other_ones_refused(records: Records) -> None:
    made = write(records)
    before = contents(made.folder)
    assert write(records, fail).manifest == made.manifest
    with pytest.raises(RecordError, match=r"other finished features: crop None → 28; windows 3 → 2\. Choose"):
        write(records, fail, windows=2, crop=28)
    assert contents(made.folder) == before


def test_a_damaged_record_is_named_and_its_shard_not_made(records: Records) -> None:
    path = records.folder / "train-00001-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[500] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(
        RecordError, match=r"train-00001-of-00002\.tfrecord is damaged: .*Rebuild the records"
    ):
        write(records)
    out = records.folder.parent / "features"
    assert [file.name for file in out.glob("*.tfrecord")] == ["train-00000-of-00002.tfrecord"]
    assert not list(out.glob(".tmp*"))


def test_maps_beyond_float16_are_refused(records: Records) -> None:
    with pytest.raises(RecordError, match=r"train-00000-of-00002\.tfrecord are not finite in float16"):
        write(records, lambda clips: pool(clips) * 1e6)


def test_a_missing_shard_of_features_says_how_to_make_it_again(records: Records) -> None:
    made = write(records)
    shard = made.folder / "train-00000-of-00002.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(
        RecordError, match=rf"{shard.name} has .* kdant extract-features … --out {made.folder}"
    ):
        Records.open(made.folder)
