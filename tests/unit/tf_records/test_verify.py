"""Verification: everything that is damaged is found and named, and what is whole is left alone."""

import dataclasses
import errno
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from tf_records.errors import RecordError
from tf_records.files import hash_file
from tf_records.manifest import Damage, Manifest, load_manifest
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.synthetic import SyntheticSpec, read_synthetic
from tf_records.tfrecord import read_records
from tf_records.verify import find_damage
from tf_records.writer import build_records

TRAIN, TEST = "train-00000-of-00002.tfrecord", "test-00000-of-00002.tfrecord"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten records of pictures of 16 pixels in four shards."""
    folder = tmp_path_factory.mktemp("verify")
    annotations = read_synthetic(folder / "videos", SyntheticSpec(train=4, unlabeled=2, test=4))
    clip = ClipSpec(clip_frames=2, offset_frames=2)
    build_records(annotations, folder / "records", BuildOptions(clip=clip, short_side=16, shards=2))
    return folder / "records"


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "records"))


def damage_of(folder: Path) -> list[Damage]:
    manifest = load_manifest(folder)
    return list(find_damage(folder, manifest.shards, manifest))


def described_again(folder: Path) -> Manifest:
    """The manifest with the size and sha256 that the shards have now."""
    manifest = load_manifest(folder)

    def seen(shard):
        content = (folder / shard.file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return dataclasses.replace(shard, bytes=len(content), sha256=digest)

    splits = {
        name: dataclasses.replace(split, shards=tuple(seen(shard) for shard in split.shards))
        for name, split in manifest.splits.items()
    }
    return dataclasses.replace(manifest, splits=splits)


def describe_again(folder: Path) -> None:
    """Writes the manifest that a builder of these very shards would have written."""
    (folder / "manifest.json").write_text(described_again(folder).to_json())


def change_records(path: Path, change: Callable[[tf.train.SequenceExample], None]) -> None:
    """Rewrites a shard with each record changed, checksums included."""
    examples = [
        tf.train.SequenceExample.FromString(data)
        for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            change(example)
            writer.write(example.SerializeToString(deterministic=True))
    describe_again(path.parent)


def flip(path: Path, place: int, bits: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bits]))


def test_whole_records_have_no_damage_and_every_shard_is_told(whole: Path) -> None:
    manifest = load_manifest(whole)
    told = []
    assert list(find_damage(whole, manifest.shards, manifest, told.append)) == []
    assert told == list(manifest.shards)
    assert len(told) == 4


def test_any_flipped_byte_in_a_shard_or_the_manifest_is_noticed(folder: Path) -> None:
    """2,000 of them, each alone; the first damage found is enough."""
    manifest = load_manifest(folder)
    draw = random.Random(0)
    for number in range(2000):
        # Every other one in the manifest, which is much smaller than the shards.
        shard = draw.choice(manifest.shards)
        path = folder / ("manifest.json" if number % 2 else shard.file)
        place, bits = draw.randrange(path.stat().st_size), draw.randrange(1, 256)
        flip(path, place, bits)
        if number % 2:
            with pytest.raises(RecordError, match=r"manifest\.json cannot be read"):
                load_manifest(folder)
        else:
            assert next(find_damage(folder, [shard], manifest)).shard == path.name, (place, bits)
        flip(path, place, bits)
    assert damage_of(folder) == []


def test_the_records_own_checksums_notice_what_the_manifest_does_not_know(folder: Path) -> None:
    """As above, with a manifest that describes the damaged file."""
    draw = random.Random(1)
    for _ in range(50):
        path = folder / draw.choice([TRAIN, TEST])
        place, bits = draw.randrange(path.stat().st_size), draw.randrange(1, 256)
        flip(path, place, bits)
        manifest = described_again(folder)
        (shard,) = (shard for shard in manifest.shards if shard.file == path.name)
        damages = list(find_damage(folder, [shard], manifest))
        assert damages
        assert all(damage.record is not None for damage in damages)
        flip(path, place, bits)


def test_all_damaged_shards_and_records_are_named(folder: Path) -> None:
    (folder / TRAIN).unlink()
    path = folder / TEST
    lengths = [len(data) for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    for start in (0, 16 + lengths[0]):
        flip(path, start + 500, 1)
    other = folder / TEST.replace("test-00000", "test-00001")
    other.write_bytes(other.read_bytes()[:-5])
    found = [(damage.shard, damage.record, damage.reason.split(" (")[0]) for damage in damage_of(folder)]
    size = other.stat().st_size
    assert found == [
        (TRAIN, None, "is missing"),
        (TEST, None, "is not what the manifest describes"),
        (TEST, 0, "its checksum is wrong"),
        (TEST, 1, "its checksum is wrong"),
        (other.name, None, f"has {size} bytes, the manifest says {size + 5}"),
        (other.name, 1, f"it is cut short, at byte {size}"),
    ]


def test_a_shard_that_the_disk_no_longer_gives_is_named_and_the_others_are_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> str:
        if path.name == TRAIN:
            raise OSError(errno.EIO, "Input/output error")
        return hash_file(path)

    def read_each(path: Path):
        if path.name == TRAIN:
            raise OSError(errno.EIO, "Input/output error")
        return read_records(path)

    monkeypatch.setattr("tf_records.manifest.hash_file", read)
    monkeypatch.setattr("tf_records.verify.read_records", read_each)
    flip(folder / TEST, 500, 1)
    found = [(damage.shard, damage.record) for damage in damage_of(folder)]
    assert found == [(TRAIN, None), (TEST, None), (TEST, 0)]
    assert damage_of(folder)[0].reason == "cannot be read: Input/output error"


def test_a_damaged_length_hides_the_rest_of_its_shard(folder: Path) -> None:
    flip(folder / TEST, 2, 1)
    reasons = [damage.reason for damage in damage_of(folder) if damage.record is not None]
    size = (folder / TEST).stat().st_size
    assert reasons == [f"its length is damaged, and hides what follows byte 0 of {size}"]


def test_a_shard_with_other_records_than_the_manifest_counts_is_named(folder: Path) -> None:
    path = folder / TEST
    first = next(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(first)
    describe_again(folder)
    assert [str(damage) for damage in damage_of(folder)] == [f"{TEST}: has 1 records, the manifest says 2"]


def label_otherwise(example: tf.train.SequenceExample, manifest: Manifest) -> None:
    index = (example.context.feature["clip/label/index"].int64_list.value[0] + 1) % len(manifest.classes)
    example.context.feature["clip/label/index"].int64_list.value[:] = [index]
    example.context.feature["clip/label/string"].bytes_list.value[:] = [manifest.classes[index].encode()]


def test_labels_that_the_manifest_counts_otherwise_are_named(folder: Path) -> None:
    manifest = load_manifest(folder)
    change_records(folder / TEST, lambda example: label_otherwise(example, manifest))
    (damage,) = damage_of(folder)
    assert (damage.shard, damage.record) == (TEST, None)
    assert ", the manifest says" in damage.reason


def frames(example: tf.train.SequenceExample, view: str = "observed"):
    return example.feature_lists.feature_list[f"{view}/image/encoded"].feature


def picture(height: int, width: int, channels: int = 3) -> bytes:
    return tf.io.encode_jpeg(tf.zeros((height, width, channels), tf.uint8)).numpy()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.context.feature.pop("clip/id"), "clip/id should be one value in a bytes_list"),
        (lambda e: e.context.feature["clip/video"].bytes_list.value.append(b"x"), "clip/video should be one"),
        (lambda e: e.context.feature["image/frame_rate"].int64_list.value.append(3), "image/frame_rate"),
        (lambda e: e.context.feature["clip/label/index"].int64_list.value.__setitem__(0, 4), "none of the 4"),
        (lambda e: e.context.feature["clip/label/index"].int64_list.value.__setitem__(0, -2), "none of the"),
        (lambda e: e.context.feature["clip/label/index"].int64_list.value.__setitem__(0, -1), "means ''"),
        (lambda e: e.context.feature["clip/label/string"].bytes_list.value.__setitem__(0, b"\xff"), "means"),
        (
            lambda e: e.feature_lists.feature_list.pop("future/image/encoded"),
            "0. frames in its future rgb segment",
        ),
        (lambda e: frames(e)[0].bytes_list.value.append(b"x"), "frame 0 of observed/.* no whole JPEG"),
        (
            lambda e: frames(e)[1].bytes_list.value.__setitem__(0, b"x"),
            "frame 1 of observed/.* no whole JPEG",
        ),
        (lambda e: frames(e)[1].bytes_list.value.__setitem__(0, picture(16, 16)[:-1]), "is no whole JPEG"),
        (
            lambda e: frames(e)[1].bytes_list.value.__setitem__(0, picture(16, 17)),
            r"is 16x17x3, the record promises 16x22x3",
        ),
        (lambda e: frames(e)[1].bytes_list.value.__setitem__(0, picture(16, 16, 1)), "is 16x16x1"),
    ],
)
def test_a_record_that_breaks_a_promise_is_named_though_all_checksums_are_right(
    folder: Path, change: Callable[[tf.train.SequenceExample], None], words: str
) -> None:
    change_records(folder / TEST, change)
    found = damage_of(folder)
    assert [(damage.shard, damage.record) for damage in found] == [(TEST, 0), (TEST, 1)]
    with pytest.raises(RecordError, match=words):
        raise RecordError(found[0].reason)


def test_pictures_of_another_size_than_the_manifest_promises_are_named(
    folder: Path, edit_manifest: Callable[..., None]
) -> None:
    edit_manifest(folder, short_side=32)
    assert len(damage_of(folder)) == 10
    assert all("the manifest's short side is 32" in damage.reason for damage in damage_of(folder))


def test_a_record_that_is_no_example_is_named(folder: Path) -> None:
    with tf.io.TFRecordWriter(str(folder / TEST)) as writer:
        writer.write(b"\xff" * 40)
        writer.write(b"")
    describe_again(folder)
    reasons = [damage.reason for damage in damage_of(folder)]
    assert reasons == [
        "it is no tf.train.SequenceExample",
        "clip/id should be one value in a bytes_list",
    ]
