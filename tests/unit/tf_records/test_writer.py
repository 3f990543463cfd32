"""Record folders: the same bytes however they are made, and nothing half done."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from video_frames import stored_frames

from tf_records.errors import KdantError, RecordError
from tf_records.manifest import load_manifest
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.csv_manifest import read_csv
from tf_records.sources.jhmdb import read_jhmdb
from tf_records.sources.sample import Annotations
from tf_records.sources.synthetic import read_synthetic
from tf_records.writer import ShardResult, build_records

pytestmark = pytest.mark.slow

OPTIONS = BuildOptions(clip=ClipSpec(clip_frames=8, offset_frames=16), short_side=16, shards=2)
NAMES = {f"{split}-0000{i}-of-00002.tfrecord" for split in ("train", "test") for i in range(2)} | {
    "manifest.json"
}
CONTEXT = {
    "clip/id": tf.io.FixedLenFeature((), tf.string),
    "clip/video": tf.io.FixedLenFeature((), tf.string),
    "clip/offset_frames": tf.io.FixedLenFeature((), tf.int64),
    "clip/label/index": tf.io.FixedLenFeature((), tf.int64),
    "clip/label/string": tf.io.FixedLenFeature((), tf.string),
    "observed/start_s": tf.io.FixedLenFeature((), tf.float32),
    "future/start_s": tf.io.FixedLenFeature((), tf.float32),
    "image/frame_rate": tf.io.FixedLenFeature((), tf.float32),
    "image/height": tf.io.FixedLenFeature((), tf.int64),
    "image/width": tf.io.FixedLenFeature((), tf.int64),
    "image/channels": tf.io.FixedLenFeature((), tf.int64),
}
LISTS = {
    "observed/image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
    "future/image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
}


class Killed(BaseException):
    """What a build under test is interrupted by."""


def serialized(folder: Path, split: str) -> list[bytes]:
    files = [str(folder / shard.file) for shard in load_manifest(folder).splits[split].shards]
    return list(tf.data.TFRecordDataset(files).as_numpy_iterator())


def parsed(folder: Path, split: str) -> list[dict]:
    """Records as any reader that knows the keys sees them."""
    rows = []
    for record in serialized(folder, split):
        context, lists = tf.io.parse_single_sequence_example(record, CONTEXT, LISTS)
        rows.append({key: value.numpy() for key, value in {**context, **lists}.items()})
    return rows


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def build_until_first_shard(annotations: Annotations, out: Path) -> None:
    def interrupt(result: ShardResult) -> None:
        raise Killed

    with pytest.raises(Killed):
        build_records(annotations, out, OPTIONS, on_shard=interrupt)


@pytest.fixture(scope="module")
def few(videos: Path) -> Annotations:
    """Six training videos, two of them unlabelled, and four for testing."""
    samples = read_synthetic(videos).samples
    train = [sample for sample in samples if sample.split == "train"]
    test = [sample for sample in samples if sample.split == "test"]
    return dataclasses.replace(read_synthetic(videos), samples=(*train[:4], *train[-2:], *test[:4]))


@pytest.fixture(scope="module")
def built(few: Annotations, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("writer") / "records"
    build_records(few, out, OPTIONS)
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A finished record folder that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_a_finished_folder_holds_shards_and_manifest_and_nothing_else(built: Path) -> None:
    assert {path.name for path in built.iterdir()} == NAMES


def test_the_manifest_counts_what_was_written(built: Path, few: Annotations) -> None:
    manifest = load_manifest(built)
    assert (manifest.splits["train"].labeled, manifest.splits["train"].unlabeled) == (4, 2)
    assert (manifest.splits["test"].labeled, manifest.splits["test"].unlabeled) == (4, 0)
    assert (manifest.fps, manifest.short_side, manifest.dataset) == (20.0, 16, "synthetic")
    assert manifest.classes == few.classes
    assert [len(serialized(built, split)) for split in ("train", "test")] == [6, 4]


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_manifest_knows_the_classes_and_the_seconds_of_the_records(built: Path, split: str) -> None:
    manifest = load_manifest(built)
    rows = parsed(built, split)
    labels = Counter(row["clip/label/string"].decode() for row in rows)
    counted = manifest.splits[split].count_classes(manifest.classes)
    assert counted == {name: labels[name] for name in manifest.classes if labels[name]}
    assert list(counted) == [name for name in manifest.classes if labels[name]]
    frames = sum(len(row[key]) for row in rows for key in LISTS)
    assert manifest.splits[split].seconds == pytest.approx(frames / 20)


@pytest.mark.parametrize("split", ["train", "test"])
def test_records_hold_the_documented_keys_and_no_others(built: Path, split: str) -> None:
    for record in serialized(built, split):
        example = tf.train.SequenceExample.FromString(record)
        assert set(example.context.feature) == set(CONTEXT)
        assert set(example.feature_lists.feature_list) == set(LISTS)


def test_labels_are_positions_in_the_classes_and_minus_one_where_there_is_none(
    built: Path, few: Annotations
) -> None:
    labels = {sample.id: sample.label for sample in few.samples}
    for row in parsed(built, "train") + parsed(built, "test"):
        label = labels[row["clip/id"].decode()]
        assert row["clip/label/string"].decode() == (label or "")
        assert row["clip/label/index"] == (-1 if label is None else few.classes.index(label))
    assert sum(row["clip/label/index"] == -1 for row in parsed(built, "train")) == 2


def test_frames_are_resized_once_to_the_short_side(built: Path) -> None:
    for row in parsed(built, "test"):
        assert (row["image/height"], row["image/width"], row["image/channels"]) == (16, 22, 3)
        assert tf.io.decode_jpeg(row["future/image/encoded"][0]).shape == (16, 22, 3)


def test_training_records_of_a_csv_keep_the_offset_between_their_segments(record_folder: Path) -> None:
    manifest = load_manifest(record_folder)
    rows = parsed(record_folder, "train")
    assert len(rows) == 20
    unmarked = [row for row in rows if row["clip/offset_frames"] == manifest.clip.offset_frames]
    assert len(unmarked) == len(rows) - manifest.splits["train"].shortened_offset == 20
    for row in unmarked:
        apart_s = row["future/start_s"] - row["observed/start_s"]
        assert apart_s == pytest.approx(16 / row["image/frame_rate"], abs=1e-5)
        assert len(row["observed/image/encoded"]) == len(row["future/image/encoded"]) == 16


def test_test_records_of_a_csv_observe_one_clip_that_ends_before_the_action(record_folder: Path) -> None:
    for row in parsed(record_folder, "test"):
        assert row["future/start_s"] == pytest.approx(1.2)
        assert len(row["future/image/encoded"]) == 16
        assert len(row["observed/image/encoded"]) == 8
        assert row["observed/start_s"] + 8 / row["image/frame_rate"] <= row["future/start_s"] + 1e-5


@pytest.mark.parametrize("split", ["train", "test"])
def test_recorded_frames_are_the_videos_frames_at_the_recorded_times(
    record_folder: Path, videos: Path, split: str
) -> None:
    """Each recorded picture is nearest to the frame of the video that its start and place name."""
    for row in parsed(record_folder, split)[:3]:
        stored = np.stack(list(stored_frames(videos / row["clip/video"].decode()))).astype(np.float32)
        for view in ("observed", "future"):
            first = round(float(row[f"{view}/start_s"] * row["image/frame_rate"]))
            for number, encoded in enumerate(row[f"{view}/image/encoded"], start=first):
                picture = tf.io.decode_jpeg(encoded).numpy().astype(np.float32)
                assert np.abs(stored - picture).mean(axis=(1, 2, 3)).argmin() == number


def test_jhmdb_test_records_observe_a_fifth_and_training_records_keep_the_offset(
    jhmdb: Path, tmp_path: Path
) -> None:
    annotations = read_jhmdb(jhmdb, classes=("golf",))
    test = [sample for sample in annotations.samples if sample.split == "test"][:4]
    train = [sample for sample in annotations.samples if sample.split == "train"][:4]
    few = dataclasses.replace(annotations, samples=(*train, *test))
    manifest = build_records(few, tmp_path / "out", BuildOptions(short_side=16))
    stored = {s.video: sum(1 for _ in stored_frames(s.path)) for s in few.samples}
    for row in parsed(tmp_path / "out", "test"):
        frames = stored[row["clip/video"].decode()]
        assert len(row["observed/image/encoded"]) == -(-frames // 5)
        assert len(row["future/image/encoded"]) == frames
        assert row["observed/start_s"] == row["future/start_s"] == 0
    shortened = 0
    for row in parsed(tmp_path / "out", "train"):
        offset = min(15, stored[row["clip/video"].decode()] - 8)
        shortened += offset < 15
        assert row["clip/offset_frames"] == offset
        assert row["future/start_s"] - row["observed/start_s"] == pytest.approx(offset / 30, abs=1e-5)
        frames = stored[row["clip/video"].decode()] - offset
        assert len(row["observed/image/encoded"]) == len(row["future/image/encoded"]) == frames
        # Same picture on both sides: observed frame `offset` is the future's first.
        if frames > offset:
            assert row["observed/image/encoded"][offset] == row["future/image/encoded"][0]
    assert manifest.splits["train"].shortened_offset == shortened


def test_two_workers_write_the_same_bytes(built: Path, few: Annotations, tmp_path: Path) -> None:
    build_records(few, tmp_path / "two", OPTIONS, workers=2)
    assert content(tmp_path / "two") == content(built)


def test_a_killed_build_resumes_to_the_same_bytes(built: Path, few: Annotations, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    build_until_first_shard(few, out)
    assert not (out / "manifest.json").exists()
    finished = out / "train-00000-of-00002.tfrecord"
    before = finished.stat().st_mtime_ns
    said: list[str] = []
    build_records(few, out, OPTIONS, resume=True, report=said.append)
    assert said == []
    assert content(out) == content(built)
    assert finished.stat().st_mtime_ns == before


def test_resuming_a_finished_build_writes_the_damaged_shards_again_and_no_others(
    built: Path, copy: Path, few: Annotations
) -> None:
    damaged, absent, *whole = sorted(copy.glob("*.tfrecord"))
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    absent.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in whole}
    written: list[ShardResult] = []
    build_records(few, copy, OPTIONS, resume=True, on_shard=written.append)
    assert sorted(result.shard.file for result in written) == [damaged.name, absent.name]
    assert content(copy) == content(built)
    assert {path.name for path in copy.iterdir()} == NAMES
    assert {path.name: path.stat().st_mtime_ns for path in whole} == before


def test_a_damaged_shard_of_a_video_that_has_changed_since_is_not_taken_for_the_old_one(
    copy: Path, few: Annotations
) -> None:
    (copy / "test-00000-of-00002.tfrecord").unlink()
    other = next(sample for sample in few.samples if sample.split == "train").path
    changed = tuple(
        dataclasses.replace(sample, path=other) if sample.split == "test" else sample
        for sample in few.samples
    )
    with pytest.raises(RecordError, match=r"test-00000.* comes out otherwise than before.*--overwrite"):
        build_records(dataclasses.replace(few, samples=changed), copy, OPTIONS, resume=True)


def test_a_build_killed_inside_a_shard_leaves_nothing_behind_when_resumed(
    built: Path, few: Annotations, tmp_path: Path
) -> None:
    """A process that is killed has no time to remove the file it was writing."""
    out = tmp_path / "killed"
    build_until_first_shard(few, out)
    (out / ".tmp-99999-train-00001-of-00002.tfrecord").write_bytes(b"half a shard")
    build_records(few, out, OPTIONS, resume=True)
    assert content(out) == content(built)


def test_a_shard_damaged_after_the_kill_is_written_anew(
    built: Path, few: Annotations, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    build_until_first_shard(few, out)
    (out / "train-00000-of-00002.tfrecord").write_bytes(b"half a shard")
    build_records(few, out, OPTIONS, resume=True)
    assert content(out) == content(built)


@pytest.mark.parametrize(
    "changes", [{"short_side": 24}, {"jpeg_quality": 80}, {"shards": 3}, {"clip": ClipSpec(offset_frames=12)}]
)
def test_a_killed_build_resumed_with_other_settings_keeps_no_shard_of_the_first(
    few: Annotations, tmp_path: Path, changes: dict
) -> None:
    """And says so."""
    options = dataclasses.replace(OPTIONS, **changes)
    build_until_first_shard(few, tmp_path / "killed")
    build_records(few, tmp_path / "fresh", options)
    said: list[str] = []
    build_records(few, tmp_path / "killed", options, resume=True, report=said.append)
    assert content(tmp_path / "killed") == content(tmp_path / "fresh")
    assert len(said) == 1
    assert said[0].startswith(f"1 finished shards in {tmp_path / 'killed'} are of another build")


def test_resuming_a_finished_build_changes_nothing(copy: Path, few: Annotations) -> None:
    before = content(copy)
    manifest = build_records(few, copy, OPTIONS, resume=True)
    assert manifest == load_manifest(copy)
    assert content(copy) == before


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"short_side": 24}, "short_side"),
        ({"jpeg_quality": 80}, "jpeg_quality"),
        ({"shards": 1}, "shards"),
        ({"clip": ClipSpec(clip_frames=4)}, "clip"),
    ],
)
def test_a_finished_build_is_not_resumed_with_other_settings(
    copy: Path, few: Annotations, changes: dict, word: str
) -> None:
    before = content(copy)
    with pytest.raises(RecordError, match=f"holds a finished data set with other {word}.*--overwrite"):
        build_records(few, copy, dataclasses.replace(OPTIONS, **changes), resume=True)
    assert content(copy) == before


def test_a_finished_build_of_an_older_version_is_not_resumed(copy: Path, few: Annotations) -> None:
    older = dataclasses.replace(load_manifest(copy), format_version=2)
    (copy / "manifest.json").write_text(older.to_json())
    before = content(copy)
    with pytest.raises(
        RecordError, match=r"of format version 2, .* does not go on with.*--overwrite in place"
    ):
        build_records(few, copy, OPTIONS, resume=True)
    assert content(copy) == before


def test_a_finished_build_is_not_resumed_with_more_samples(copy: Path, few: Annotations) -> None:
    """A row added to the CSV: the finished folder does not hold what is asked for now."""
    fewer = dataclasses.replace(few, samples=few.samples[1:])
    with pytest.raises(RecordError, match="holds a finished data set with other"):
        build_records(fewer, copy, OPTIONS, resume=True)


def test_an_occupied_folder_is_refused_and_kept(few: Annotations, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(KdantError, match="is not empty"):
        build_records(few, tmp_path, OPTIONS)
    assert content(tmp_path) == {"thesis.tex": b"mine"}


def test_overwriting_replaces_the_records_and_keeps_other_files(copy: Path, few: Annotations) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "backup.tfrecord").write_text("mine")
    few_tests = dataclasses.replace(few, samples=tuple(s for s in few.samples if s.split == "test"))
    build_records(few_tests, copy, dataclasses.replace(OPTIONS, shards=1), overwrite=True)
    names = {"notes.txt", "backup.tfrecord", "test-00000-of-00001.tfrecord", "manifest.json"}
    assert set(content(copy)) == names


@pytest.fixture
def broken(videos: Path, tmp_path: Path) -> Path:
    """A CSV of two good videos, one of them unlabelled, and one that opens but ends too early."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("00000.mp4", "00001.mp4"):
        shutil.copy(videos / name, folder / name)
    whole = folder / "whole.mkv"

    with av.open(str(videos / "00002.mp4")) as source, av.open(str(whole), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = whole.read_bytes()
    (folder / "cut.mkv").write_bytes(data[: len(data) // 2])
    whole.unlink()
    rows = "00000.mp4,1.2,2.0,rise,train\ncut.mkv,1.2,2.0,rise,train\n00001.mp4,1.2,2.0,,train\n"
    (folder / "mine.csv").write_text("video,start_s,end_s,label,split\n" + rows)
    return folder / "mine.csv"


def test_a_video_that_cannot_be_decoded_is_skipped_and_named(broken: Path, tmp_path: Path) -> None:
    manifest = build_records(read_csv(broken), tmp_path / "out", OPTIONS)
    assert (manifest.splits["train"].labeled, manifest.splits["train"].unlabeled) == (1, 1)
    (skipped,) = manifest.skipped
    assert skipped.video == "cut.mkv"
    assert skipped.reason.startswith("cut.mkv is cut short")
    assert load_manifest(tmp_path / "out") == manifest
    videos = {row["clip/video"].decode() for row in parsed(tmp_path / "out", "train")}
    assert videos == {"00000.mp4", "00001.mp4"}


def test_no_usable_video_is_an_error_and_leaves_no_records(broken: Path, tmp_path: Path) -> None:
    broken.write_text("video,start_s,end_s,label,split\ncut.mkv,1.2,2.0,rise,train\n")
    with pytest.raises(RecordError, match=r"No video could be used.*cut\.mkv is cut short"):
        build_records(read_csv(broken), tmp_path / "out", OPTIONS)
    assert content(tmp_path / "out") == {}


def test_a_recorded_frame_has_the_quality_asked_for(few: Annotations, tmp_path: Path) -> None:
    one = dataclasses.replace(few, samples=few.samples[:1])
    sizes = []
    for quality in (30, 100):
        options = dataclasses.replace(OPTIONS, jpeg_quality=quality)
        build_records(one, tmp_path / str(quality), options)
        (row,) = parsed(tmp_path / str(quality), "train")
        sizes.append(sum(map(len, row["observed/image/encoded"])))
    assert sizes[0] < sizes[1]


def test_the_manifest_is_plain_json(built: Path) -> None:
    fields = json.loads((built / "manifest.json").read_text())
    assert fields["format_version"] == 3
    assert fields["clip"] == {"clip_frames": 8, "offset_frames": 16, "anticipation_s": None}
    assert [shard["records"] for shard in fields["splits"]["train"]["shards"]] == [3, 3]
    shard = fields["splits"]["test"]["shards"][0]
    assert shard["bytes"] == (built / shard["file"]).stat().st_size


def test_frames_of_a_portrait_video_keep_their_shape(tmp_path: Path) -> None:

    with av.open(str(tmp_path / "tall.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 32, 64, "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 64)))))
        container.mux(stream.encode())
    (tmp_path / "mine.csv").write_text("video,start_s,end_s,label,split\ntall.mp4,1,1.5,wave,\n")
    build_records(read_csv(tmp_path / "mine.csv"), tmp_path / "out", OPTIONS)
    (row,) = parsed(tmp_path / "out", "train")
    assert (row["image/height"], row["image/width"]) == (32, 16)
