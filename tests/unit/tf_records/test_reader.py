"""From a record folder to batches: the same on every run, and a sentence for every damage."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_records import augment
from tf_records.encode import Segments, to_example
from tf_records.errors import RecordError
from tf_records.manifest import Manifest, ShardInfo, SplitInfo
from tf_records.plan import FrameRange, Pair
from tf_records.reader import _shuffle, evaluation_batches, training_batches, training_epochs
from tf_records.records import Records, iterate_batches, naming_damage
from tf_records.schema import EITHER, FUTURE, OBSERVED, ClipSpec
from tf_records.sources.sample import Sample

CLIP = 4
CROP = 28
LATER = 10


def jpeg(picture: np.ndarray) -> bytes:
    return tf.io.encode_jpeg(picture, quality=100).numpy()


def flat(number: int) -> bytes:
    """A grey picture that tells its number: grey 4 times as bright."""
    return jpeg(np.full((32, 40, 3), 4 * number, np.uint8))


def write_folder(folder: Path, windows: list[tuple[int, int]], frames: list[bytes], shards: int = 1) -> Path:
    """Training and test records of one video, with observed and future segments of the given lengths.

    Observed segments start at frame 0, future ones at frame LATER.
    """
    folder.mkdir()
    splits = {}
    for split in ("train", "test"):
        infos = []
        for shard in range(shards):
            path = folder / f"{split}-{shard:05d}-of-{shards:05d}.tfrecord"
            numbers = range(len(windows))[shard::shards]
            with tf.io.TFRecordWriter(str(path)) as writer:
                for number in numbers:
                    observed, future = windows[number]
                    pair = Pair(
                        observed=FrameRange(0, observed),
                        future=FrameRange(LATER, LATER + future),
                        offset_frames=LATER,
                        shortened=False,
                        repeated=min(observed, future) < CLIP,
                    )
                    sample = Sample(id=f"r{number}", video="v", path="v", split=split, label="ab"[number % 2])
                    segments = Segments(
                        pair=pair,
                        frames={n: {"rgb": (frame,)} for n, frame in enumerate(frames)},
                        fps=25.0,
                        height=32,
                        width=40,
                    )
                    writer.write(b"".join(to_example(sample, segments, ("a", "b"))))
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            infos.append(
                ShardInfo(
                    file=path.name,
                    records=len(numbers),
                    bytes=len(data),
                    sha256=digest,
                    classes=dict(sorted(Counter("ab"[number % 2] for number in numbers).items())),
                    seconds=sum(sum(windows[number]) for number in numbers) / 25,
                )
            )
        splits[split] = SplitInfo.of(infos)
    manifest = Manifest(
        dataset="made",
        clip=ClipSpec(clip_frames=CLIP, offset_frames=LATER),
        classes=("a", "b"),
        splits=splits,
        options={},
        fps=25.0,
        short_side=32,
        jpeg_quality=100,
        plan_sha256="0" * 64,
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Eight records of grey pictures that tell their frame number."""
    folder = tmp_path_factory.mktemp("reader") / "numbered"
    return Records.open(write_folder(folder, [(9, 9)] * 8, [flat(n) for n in range(20)]))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Twelve records of one still, lopsided picture: clips differ by crop and flip alone."""
    picture = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("reader") / "still"
    return Records.open(write_folder(folder, [(9, 9)] * 12, [jpeg(picture)] * 20))


@pytest.fixture
def copy(record_folder: Path, tmp_path: Path) -> Path:
    """A record folder that a test may spoil."""
    return Path(shutil.copytree(record_folder, tmp_path / "copy"))


def batches(records: Records, **changes: object) -> list[dict[str, np.ndarray]]:
    arguments = {"views": (OBSERVED, FUTURE), "batch_size": 4, "crop": CROP, "seed": 0, "epoch": 0}
    return list(training_batches(records, **{**arguments, **changes}).as_numpy_iterator())


def clips(records: Records, view: str, **changes: object) -> np.ndarray:
    return np.concatenate([batch[view] for batch in batches(records, **changes)])


def numbers(clip: np.ndarray) -> np.ndarray:
    """Frame numbers `(B, T)` of clips of `flat` pictures."""
    return np.round((clip.mean(axis=(2, 3, 4)) + 1) * 127.5 / 4).astype(int)


def same(first: list[dict[str, np.ndarray]], second: list[dict[str, np.ndarray]]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a
    )


def test_batches_have_the_promised_shapes_types_and_range(record_folder: Path) -> None:
    got = batches(Records.open(record_folder), crop=56)
    assert len(got) == 5
    for batch in got:
        assert set(batch) == {OBSERVED, FUTURE, "index", "label"}
        for view in (OBSERVED, FUTURE):
            assert (batch[view].shape, batch[view].dtype) == ((4, 8, 56, 56, 3), np.float32)
            assert -1 <= batch[view].min() < -0.5 < 0.5 < batch[view].max() <= 1
        assert (batch["label"].shape, batch["label"].dtype) == ((4,), np.int32)
    labels = np.concatenate([batch["label"] for batch in got])
    assert sorted(labels.tolist()) == [-1] * 4 + sorted([0, 1, 2, 3] * 4)


@pytest.mark.slow
@pytest.mark.parametrize("labeled_only", [False, True])
def test_an_epoch_goes_on_after_the_batches_that_are_skipped(record_folder: Path, labeled_only: bool) -> None:
    records, options = Records.open(record_folder), {"epoch": 3, "labeled_only": labeled_only}
    whole = batches(records, **options)
    for done in (1, len(whole) - 1, len(whole)):
        assert same(batches(records, skip_batches=done, **options), whole[done:])


def test_skipped_batches_are_not_decoded(tmp_path: Path) -> None:
    records = Records.open(write_folder(tmp_path / "junk", [(9, 9)] * 12, [b"no JPEG"] * 20))
    with pytest.raises(tf.errors.InvalidArgumentError):
        batches(records, skip_batches=2)
    assert batches(records, skip_batches=3) == []


@pytest.mark.slow
@pytest.mark.parametrize("skip_batches", [0, 1])
def test_shares_of_a_batch_make_up_the_batch(record_folder: Path, skip_batches: int) -> None:
    records = Records.open(record_folder)
    options = {"batch_size": 6, "skip_batches": skip_batches}  # of 20 records, so that some are dropped
    whole = batches(records, **options)
    parts = [batches(records, **options, share=(part, 3)) for part in range(3)]
    assert len(whole) == 3 - skip_batches
    joined = [
        {name: np.concatenate([batch[name] for batch in of_a_batch]) for name in of_a_batch[0]}
        for of_a_batch in zip(*parts, strict=True)
    ]
    assert same(joined, whole)


def test_an_incomplete_batch_is_dropped(still: Records) -> None:
    assert len(batches(still, batch_size=5)) == 2


def test_the_static_shape_is_known(still: Records) -> None:
    spec = training_batches(still, views=(OBSERVED,), batch_size=4, crop=CROP, seed=0, epoch=0).element_spec
    assert spec[OBSERVED].shape == (4, CLIP, CROP, CROP, 3)


@pytest.mark.slow
def test_an_epoch_is_a_function_of_seed_and_epoch(record_folder: Path) -> None:
    records = Records.open(record_folder)
    first = batches(records, crop=56, seed=1, epoch=2)
    assert same(first, batches(records, crop=56, seed=1, epoch=2))
    assert not same(first, batches(records, crop=56, seed=1, epoch=3))
    assert not same(first, batches(records, crop=56, seed=2, epoch=2))


def test_a_dataset_read_twice_is_the_same_epoch(still: Records) -> None:
    dataset = training_batches(still, views=(OBSERVED,), batch_size=4, crop=CROP, seed=0, epoch=0)
    assert same(list(dataset.as_numpy_iterator()), list(dataset.as_numpy_iterator()))


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_every_record_comes_once_an_epoch_in_another_order(tmp_path: Path, epoch: int) -> None:
    folder = write_folder(tmp_path / "many", [(CLIP, CLIP)] * 12, [flat(n) for n in range(20)], shards=5)
    orders = [
        np.concatenate(
            [batch["label"] for batch in batches(Records.open(folder), epoch=e, labels=np.arange(12))]
        )
        for e in (epoch, epoch + 1)
    ]
    assert [sorted(order.tolist()) for order in orders] == [list(range(12))] * 2
    assert not np.array_equal(*orders)


def test_both_clips_of_a_pair_share_crop_and_flip(still: Records) -> None:
    seen = set()
    for epoch in range(3):
        for batch in batches(still, epoch=epoch):
            np.testing.assert_array_equal(batch[OBSERVED], batch[FUTURE])
            seen |= {clip.tobytes() for clip in batch[OBSERVED][:, 0]}
    assert len(seen) > 20


def test_both_clips_of_a_pair_start_the_offset_apart(numbered: Records) -> None:
    starts = set()
    for epoch in range(4):
        for batch in batches(numbered, epoch=epoch):
            observed, future = numbers(batch[OBSERVED]), numbers(batch[FUTURE])
            np.testing.assert_array_equal(future, observed + LATER)
            np.testing.assert_array_equal(np.diff(observed, axis=1), 1)
            assert observed.max() < 9
            starts |= set(observed[:, 0].tolist())
    assert starts == set(range(6))


def test_training_crops_are_those_of_the_drawn_decision(still: Records) -> None:
    """Record numbers, given as labels, name the decision that the clip must have been cut by."""
    record = next(iter(tf.data.TFRecordDataset(still.paths("train"))))
    encoded = tf.train.SequenceExample.FromString(record.numpy()).feature_lists.feature_list
    first = encoded["observed/image/encoded"].feature[0].bytes_list.value[0]
    picture = tf.io.decode_jpeg(first, dct_method="INTEGER_ACCURATE")[None]
    for batch in batches(still, seed=5, epoch=3, labels=np.arange(12)):
        for clip, number in zip(batch[OBSERVED], batch["label"], strict=True):
            decision = augment.draw_decision(5, 3, tf.constant(number, tf.int64))
            expected = augment.crop_randomly(picture, decision, CROP).numpy()
            np.testing.assert_array_equal(clip, np.repeat(expected, CLIP, axis=0))


@pytest.fixture
def global_seed() -> Iterator[Callable[[int | None], None]]:
    """Sets TensorFlow's global seed, and none at the end."""
    yield tf.random.set_seed
    tf.random.set_seed(None)


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_records_are_shuffled_as_tensorflow_does(seed: int | None, global_seed) -> None:
    global_seed(seed)
    numbers = tf.data.Dataset.range(100)
    expected = list(numbers.shuffle(16, seed=3, reshuffle_each_iteration=False).as_numpy_iterator())
    seeds = np.array(tf.compat.v1.get_seed(3), np.int64)
    traced = tf.function(lambda given: _shuffle(numbers, 16, given), autograph=False)
    for dataset in (_shuffle(numbers, 16, seeds), traced(seeds)):
        assert list(dataset.as_numpy_iterator()) == expected != list(range(100))


@pytest.mark.slow
def test_a_pipeline_is_traced_once_for_all_epochs(numbered: Records, global_seed, monkeypatch) -> None:
    traced = []
    draw_decision = augment.draw_decision
    monkeypatch.setattr(
        augment, "draw_decision", lambda *arguments: traced.append(arguments) or draw_decision(*arguments)
    )
    settings = {"views": (OBSERVED, FUTURE), "batch_size": 2, "crop": CROP, "seed": 3}
    global_seed(0)
    epochs = training_epochs(numbered, **settings)
    read = {
        arguments: list(epochs(*arguments).as_numpy_iterator())
        for arguments in ((0,), (1,), (1, 0), (4, 2, 3))
    }
    assert len(traced) == 1
    for arguments, found in read.items():
        named = dict(zip(("epoch", "draw", "skip_batches"), arguments, strict=False))
        assert same(found, batches(numbered, **settings | named))
    assert not same(read[0,], read[1,])
    assert len(read[4, 2, 3]) == 1


@pytest.mark.slow
def test_frames_stay_in_eight_bits_where_they_are_only_cut(still: Records) -> None:
    for before, after in zip(batches(still), batches(still, eight_bits=True), strict=True):
        for view in (OBSERVED, FUTURE):
            assert after[view].dtype == np.uint8
            np.testing.assert_array_equal(augment.scale(after[view]), before[view])
    scaled = {"crop": 24}
    coloured = {"augmentation": augment.Augmentation(brightness=0.5)}
    for options in (scaled, coloured):
        assert same(batches(still, eight_bits=True, **options), batches(still, **options))


@pytest.mark.slow
def test_both_clips_of_a_pair_share_their_colours_and_the_rest_stays(still: Records) -> None:
    jitter = {"augmentation": augment.Augmentation(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)}
    plain, drawn = (batches(still, labels=np.arange(12), **options) for options in ({}, jitter))
    for before, after in zip(plain, drawn, strict=True):
        np.testing.assert_array_equal(after[OBSERVED], after[FUTURE])
        for clip, changed, number in zip(before[OBSERVED], after[OBSERVED], before["label"], strict=True):
            decision = augment.draw_decision(0, 0, tf.constant(number, tf.int64), **jitter)
            expected = augment.change_colours(tf.constant(clip), decision.colours).numpy()
            np.testing.assert_allclose(changed, expected, atol=2e-6)
            assert np.abs(changed - clip).max() > 0.01
    assert same(drawn, batches(still, labels=np.arange(12), **jitter))


@pytest.mark.slow
@pytest.mark.parametrize("length", [4, 9, 14, 24])
def test_an_observed_clip_of_a_drawn_share_ends_within_it_and_the_future_one_is_later(
    length: int, tmp_path: Path
) -> None:
    """Of 4 and 9 frames a segment, some between the two are not in the record."""
    folder = write_folder(tmp_path / "videos", [(length, length)] * 60, [flat(n) for n in range(LATER + 24)])
    records, starts = Records.open(folder), set()
    drawing = augment.Augmentation(observed_share=True)
    for epoch in range(2):
        for batch in batches(records, epoch=epoch, labels=np.arange(60), augmentation=drawing):
            observed, future = numbers(batch[OBSERVED]), numbers(batch[FUTURE])
            for clip, later, number in zip(observed, future, batch["label"], strict=True):
                decision = augment.draw_decision(0, epoch, tf.constant(number, tf.int64), drawing)
                tenths = int(decision.tenths)
                seen = -(-tenths * (LATER + length) // 10)
                starts.add((tenths, clip[0]))
                assert clip.tolist() == [(clip[0] + n) % seen for n in range(CLIP)]
                first = min(clip[0] + LATER, LATER + length - CLIP)
                assert later.tolist() == list(range(first, first + CLIP))
    assert {tenths for tenths, _ in starts} == set(range(1, 11))
    held = {*range(length - CLIP + 1), *range(LATER, LATER + length - CLIP + 1)}
    assert {start for _, start in starts} <= (held if length < LATER else set(range(LATER + length)))
    # At either end of the video.
    assert min(start for _, start in starts) == 0
    assert max(start for _, start in starts) >= LATER


def test_starts_within_a_share_are_equally_likely(still: Records) -> None:
    """Of 6 starts before and 6 after the frame that lies between two segments of 9."""
    segments = [tf.constant([str(n) for n in range(first, first + 9)]) for first in (0, 10)]
    counts: Counter[int] = Counter()
    for n in range(120):
        decision = augment.Decision(*[tf.constant(n / 120)] * 3, tf.constant(False), tenths=tf.constant(10))
        clip, start = augment.clip_of_share(decision, *segments, tf.constant(10), 4)
        assert clip.numpy().astype(int).tolist() == list(range(int(start), int(start) + 4))
        counts[int(start)] += 1
    assert set(counts) == {*range(6), *range(10, 16)}
    assert set(counts.values()) <= {9, 10, 11}


def by_number(got: list[dict[str, np.ndarray]]) -> dict[int, bytes]:
    """Record number, given as label, → the pair's clips."""
    return {
        number: observed.tobytes() + future.tobytes()
        for batch in got
        for number, observed, future in zip(batch["label"], batch[OBSERVED], batch[FUTURE], strict=True)
    }


@pytest.mark.slow
def test_a_draw_comes_again_in_another_order(still: Records) -> None:
    options = {"labels": np.arange(12)}
    first, again = batches(still, epoch=1, **options), batches(still, epoch=4, draw=1, **options)
    assert by_number(first) == by_number(again)
    assert [batch["label"].tolist() for batch in first] != [batch["label"].tolist() for batch in again]
    assert by_number(batches(still, epoch=4, **options)) != by_number(again)


@pytest.mark.slow
def test_a_view_alone_gives_the_same_clips_as_in_company(numbered: Records) -> None:
    for view in (OBSERVED, FUTURE):
        np.testing.assert_array_equal(clips(numbered, view), clips(numbered, view, views=(view,)))


@pytest.mark.slow
def test_either_view_takes_clips_of_both_segments_and_never_across(numbered: Records) -> None:
    drawn = np.concatenate([numbers(clips(numbered, EITHER, views=(EITHER,), epoch=e)) for e in range(5)])
    assert drawn.shape == (40, CLIP)
    np.testing.assert_array_equal(np.diff(drawn, axis=1), 1)
    starts = set(drawn[:, 0].tolist())
    assert starts <= {*range(6), *range(LATER, LATER + 6)}
    assert len(starts) > 8
    assert 10 < np.sum(drawn[:, 0] >= LATER) < 30


def test_a_segment_shorter_than_a_clip_repeats_in_time_order(tmp_path: Path) -> None:
    frames = [flat(n) for n in range(20)]
    records = Records.open(write_folder(tmp_path / "short", [(3, 3)] * 4, frames))
    (batch,) = batches(records)
    assert numbers(batch[OBSERVED]).tolist() == [[0, 1, 2, 0]] * 4
    assert numbers(batch[FUTURE]).tolist() == [[10, 11, 12, 10]] * 4


def test_labeled_only_leaves_out_the_unlabelled(record_folder: Path) -> None:
    got = batches(Records.open(record_folder), crop=56, labeled_only=True)
    labels = np.concatenate([batch["label"] for batch in got])
    assert sorted(labels.tolist()) == sorted([0, 1, 2, 3] * 4)


@pytest.mark.slow
def test_given_labels_replace_the_recorded_ones_in_record_order(record_folder: Path) -> None:
    records = Records.open(record_folder)
    recorded = records.labels_and_videos("train")[0]
    numbers_of = [batch["label"] for batch in batches(records, crop=56, labels=np.arange(20))]
    plain = [batch["label"] for batch in batches(records, crop=56)]
    np.testing.assert_array_equal(recorded[np.concatenate(numbers_of)], np.concatenate(plain))


def test_given_labels_decide_what_labeled_only_leaves_out(record_folder: Path) -> None:
    labels = np.where(np.arange(20) < 8, np.arange(20), -1)
    got = batches(Records.open(record_folder), crop=56, labels=labels, labeled_only=True)
    assert sorted(np.concatenate([batch["label"] for batch in got]).tolist()) == list(range(8))


def test_labels_are_read_in_record_order(record_folder: Path, numbered: Records) -> None:
    records = Records.open(record_folder)
    assert records.labels_and_videos("train")[0].dtype == np.int64
    assert np.sum(records.labels_and_videos("train")[0] == -1) == 4
    assert records.labels_and_videos("test")[0].tolist() == [0, 1, 2, 3] * 2
    assert numbered.labels_and_videos("test")[0].tolist() == [0, 1] * 4


def evaluate(
    records: Records, view: str, windows: int, batch_size: int = 3, share: float = 1.0
) -> dict[str, np.ndarray]:
    dataset = evaluation_batches(
        records, split="test", view=view, batch_size=batch_size, crop=CROP, windows=windows, share=share
    )
    got = list(dataset.as_numpy_iterator())
    assert all(len(batch["label"]) == batch_size for batch in got[:-1])
    return {key: np.concatenate([batch[key] for batch in got]) for key in got[0]}


def test_evaluation_gives_evenly_spaced_windows_in_record_order(numbered: Records) -> None:
    got = evaluate(numbered, FUTURE, windows=3)
    assert got["index"].tolist() == [n for n in range(8) for _ in range(3)]
    assert numbers(got["clip"])[:, 0].tolist() == [10, 12, 15] * 8
    assert got["label"].tolist() == [0, 0, 0, 1, 1, 1] * 4
    assert (got["clip"].dtype, got["label"].dtype, got["index"].dtype) == (np.float32, np.int32, np.int64)


def test_one_window_is_the_middle_one(numbered: Records) -> None:
    got = evaluate(numbered, OBSERVED, windows=1)
    assert numbers(got["clip"]).tolist() == [[2, 3, 4, 5]] * 8


@pytest.mark.parametrize("windows", [1, 3, 10])
def test_records_of_different_lengths_stay_in_order_with_as_many_windows_as_they_have(
    tmp_path: Path, windows: int
) -> None:
    lengths = [1, 9, 4, 5, 9, 7, 3, 6, 9, 4, 8, 2]
    frames = [flat(n) for n in range(20)]
    folder = write_folder(tmp_path / "mixed", [(9, n) for n in lengths], frames)
    got = evaluate(Records.open(folder), FUTURE, windows)
    each = [min(windows, max(1, n - CLIP + 1)) for n in lengths]
    assert got["index"].tolist() == [number for number, count in enumerate(each) for _ in range(count)]
    shown = numbers(got["clip"])
    assert shown[0].tolist() == [10] * CLIP
    assert shown.min() == LATER


def test_evaluation_crops_centrally_and_never_flips(still: Records) -> None:
    record = next(iter(tf.data.TFRecordDataset(still.paths("test"))))
    lists = tf.train.SequenceExample.FromString(record.numpy()).feature_lists.feature_list
    first = lists["future/image/encoded"].feature[0].bytes_list.value[0]
    picture = tf.io.decode_jpeg(first, dct_method="INTEGER_ACCURATE").numpy()
    expected = picture[2:30, 6:34].astype(np.float32) / np.float32(127.5) - np.float32(1)
    got = evaluate(still, FUTURE, windows=2)["clip"]
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))


def test_no_folder_and_no_manifest_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none does not exist\. Build it first"):
        Records.open(tmp_path / "none")
    with pytest.raises(RecordError, match=r"has no manifest\.json"):
        Records.open(tmp_path)


def test_a_shard_cut_short_is_named_with_both_sizes(copy: Path) -> None:
    path = copy / "train-00000-of-00001.tfrecord"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordError, match=f"{path.name} has {size - 1} bytes, the manifest says {size}"):
        Records.open(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    (copy / "test-00000-of-00001.tfrecord").unlink()
    with pytest.raises(RecordError, match=r"test-00000-of-00001\.tfrecord is missing\. Rebuild"):
        Records.open(copy)


def test_another_clip_length_is_refused(record_folder: Path) -> None:
    assert Records.open(record_folder, clip_frames=8).manifest.clip.clip_frames == 8
    with pytest.raises(RecordError, match=r"clips of 8 frames, the run wants 16\. .*--clip-frames 16"):
        Records.open(record_folder, clip_frames=16)


def test_another_modality_is_refused(
    copy: Path, record_folder: Path, edit_manifest: Callable[..., None]
) -> None:
    with pytest.raises(RecordError, match="has modality 'rgb', the run wants 'flow'"):
        Records.open(record_folder, modality="flow")
    edit_manifest(copy, modality="flow")
    with pytest.raises(RecordError, match="has modality 'flow', the run wants 'rgb'"):
        Records.open(copy, modality="rgb")
    assert Records.open(copy).modality == "flow"


def test_a_split_that_is_not_there_is_refused_with_those_that_are(record_folder: Path) -> None:
    with pytest.raises(RecordError, match=r"no records in split 'val'\. It has: train, test"):
        Records.open(record_folder).split("val")


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def read_all(dataset: tf.data.Dataset, records: Records, split: str) -> int:
    return sum(1 for _ in iterate_batches(dataset, records, split))


@pytest.mark.parametrize("place", [3, 5000])
def test_a_damaged_record_is_named_while_training_and_evaluating(copy: Path, place: int) -> None:
    """In the length and in the content of a record."""
    for split in ("train", "test"):
        flip_byte(copy / f"{split}-00000-of-00001.tfrecord", place)
    records = Records.open(copy)
    training = training_batches(records, views=(OBSERVED,), batch_size=4, crop=56, seed=0, epoch=0)
    evaluation = evaluation_batches(records, split="test", view=FUTURE, batch_size=4, crop=56, windows=1)
    for split, dataset in (("train", training), ("test", evaluation)):
        with pytest.raises(
            RecordError, match=rf"{split}-00000-of-00001\.tfrecord is damaged: is not"
        ) as error:
            read_all(dataset, records, split)
        assert ("--skip-damaged" in str(error.value)) == (split == "train")
    with pytest.raises(RecordError, match="train-00000-of-00001"), naming_damage(records, "train"):
        records.labels_and_videos("train")[0]


def test_a_picture_that_is_no_jpeg_is_named(tmp_path: Path) -> None:
    frames = [*(flat(n) for n in range(10)), *(b"no picture" for _ in range(10))]
    records = Records.open(write_folder(tmp_path / "junk", [(CLIP, CLIP)] * 4, frames))
    good = evaluation_batches(records, split="test", view=OBSERVED, batch_size=4, crop=CROP, windows=1)
    bad = evaluation_batches(records, split="test", view=FUTURE, batch_size=4, crop=CROP, windows=1)
    assert read_all(good, records, "test") == 1
    with pytest.raises(RecordError, match=r"test-00000-of-00001\.tfrecord is damaged: record 0: frame 0 of"):
        read_all(bad, records, "test")


def test_other_errors_pass_through_unnamed(still: Records) -> None:
    with pytest.raises(ZeroDivisionError), naming_damage(still, "train"):
        raise ZeroDivisionError


@pytest.mark.parametrize(("share", "expected"), [(1.0, [10, 12, 15]), (0.6, [10, 11, 12]), (0.01, [10])])
def test_a_share_of_a_segment_is_its_first_entries_rounded_up(
    numbered: Records, share: float, expected: list[int]
) -> None:
    got = evaluate(numbered, FUTURE, windows=3, share=share)
    assert numbers(got["clip"])[got["index"] == 0][:, 0].tolist() == expected
    assert got["id"][0] == b"r0"
    assert got["video"][0] == b"v"
