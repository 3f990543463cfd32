"""Records of flow: the same bytes however they are made, no look ahead, and what a reader makes of them."""

import dataclasses
import io
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from video_frames import stored_frames

from tf_records import encode
from tf_records.encode import FrameEncoder, Segments, read_samples, to_example
from tf_records.errors import RecordError
from tf_records.flow import compute_flow, describe_flow
from tf_records.manifest import load_manifest
from tf_records.plan import BuildOptions
from tf_records.reader import evaluation_batches, training_batches
from tf_records.records import Records
from tf_records.schema import EITHER, FUTURE, OBSERVED, ClipSpec, FlowInfo
from tf_records.sources.csv_manifest import read_csv
from tf_records.sources.jhmdb import read_jhmdb
from tf_records.sources.sample import Annotations, Sample
from tf_records.video import open_video
from tf_records.writer import build_records

RGB = BuildOptions(clip=ClipSpec(clip_frames=8, offset_frames=16), short_side=32, shards=2)
FLOW = dataclasses.replace(RGB, modality="flow", flow=describe_flow("dis"))
BOTH = dataclasses.replace(FLOW, modality="rgb,flow")
IMAGES = {"observed/image/encoded", "future/image/encoded"}
FLOWS = {f"{view}/flow/{way}/encoded" for view in ("observed", "future") for way in "uv"}
CROP = 28


@pytest.fixture(scope="module")
def few(videos: Path) -> Annotations:
    """Four training videos and two for testing."""
    annotations = read_csv(videos / "annotations.csv")
    test = [sample for sample in annotations.samples if sample.split == "test"]
    return dataclasses.replace(annotations, samples=(*annotations.samples[:4], *test[:2]))


@pytest.fixture(scope="module")
def folders(few: Annotations, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same samples in each modality."""
    out = tmp_path_factory.mktemp("modalities")
    for name, options in (("rgb", RGB), ("flow", FLOW), ("both", BOTH)):
        build_records(few, out / name, options)
    return {name: out / name for name in ("rgb", "flow", "both")}


def feature_lists(folder: Path) -> list[dict[str, list[bytes]]]:
    """Of each record: key → strings."""
    shards = [
        folder / shard.file for split in load_manifest(folder).splits.values() for shard in split.shards
    ]
    return [
        lists_of(tf.train.SequenceExample.FromString(record.numpy()))
        for record in tf.data.TFRecordDataset([str(shard) for shard in shards])
    ]


def read_segments(sample: Sample, options: BuildOptions = FLOW) -> Segments:
    with open_video(sample.path, short_side=32) as video:
        ((_, segments),) = read_samples(video, [sample], options)
    assert isinstance(segments, Segments)
    return segments


def lists_of_sample(sample: Sample, segments: Segments, classes: tuple[str, ...]) -> dict[str, list[bytes]]:
    return lists_of(tf.train.SequenceExample.FromString(b"".join(to_example(sample, segments, classes))))


def lists_of(example: tf.train.SequenceExample) -> dict[str, list[bytes]]:
    return {
        key: [feature.bytes_list.value[0] for feature in value.feature]
        for key, value in example.feature_lists.feature_list.items()
    }


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_modality_has_the_documented_keys_and_both_have_the_pictures_of_each(
    folders: dict[str, Path],
) -> None:
    rgb, flow, both = (feature_lists(folders[name]) for name in ("rgb", "flow", "both"))
    assert {frozenset(lists) for lists in rgb} == {frozenset(IMAGES)}
    assert {frozenset(lists) for lists in flow} == {frozenset(FLOWS)}
    assert both == [{**images, **flows} for images, flows in zip(rgb, flow, strict=True)]
    lengths = {(len(lists["future/image/encoded"]), len(lists["future/flow/u/encoded"])) for lists in both}
    assert all(images == flows > 0 for images, flows in lengths)


def test_the_manifest_says_what_is_stored_and_how_flow_was_computed(folders: dict[str, Path]) -> None:
    manifests = {name: load_manifest(folder) for name, folder in folders.items()}
    assert [m.modality for m in manifests.values()] == ["rgb", "flow", "rgb,flow"]
    assert manifests["rgb"].flow is None
    assert manifests["both"].flow == manifests["flow"].flow == describe_flow("dis")
    assert manifests["flow"].flow.bound == 20.0
    assert len({m.plan_sha256 for m in manifests.values()}) == 3


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(few: Annotations, folders: dict[str, Path], tmp_path: Path) -> None:
    build_records(few, tmp_path / "two", BOTH, workers=2)
    assert content(tmp_path / "two") == content(folders["both"])


@pytest.mark.parametrize("change", ["algorithm", "parameters", "opencv"])
def test_another_flow_is_another_build(few: Annotations, folders: dict[str, Path], change: str) -> None:
    """A finished folder is not resumed with it; an unfinished one goes by the digest of its shards."""
    other = describe_flow("farneback") if change == "algorithm" else describe_flow("dis")
    if change == "parameters":
        other = dataclasses.replace(other, parameters={"preset": "FAST"})
    if change == "opencv":
        other = dataclasses.replace(other, opencv="4.8.0")
    options = dataclasses.replace(FLOW, flow=other)
    with pytest.raises(RecordError, match="holds a finished data set with other flow"):
        build_records(few, folders["flow"], options, resume=True)
    with pytest.raises(RecordError, match="other modality, flow"):
        build_records(few, folders["flow"], RGB, resume=True)


@pytest.mark.parametrize(("modality", "flow"), [("flow", None), ("rgb", FLOW.flow), ("depth", None)])
def test_options_that_contradict_each_other_are_refused(modality: str, flow: object) -> None:
    with pytest.raises(RecordError, match=r"should be .* Received"):
        BuildOptions(modality=modality, flow=flow)


def flow_of(frames: Iterable[np.ndarray]) -> list[tuple[bytes, ...]]:
    """Of each frame of a video that begins with these."""
    encoder, flow = FrameEncoder(FLOW), []
    for number, frame in enumerate(frames):
        flow.append(encoder.encode(number, frame)["flow"])
        encoder.remember(number, frame)
    return flow


def test_a_segment_within_a_video_begins_with_the_flow_from_the_frame_before_it(few: Annotations) -> None:
    sample = few.samples[-1]
    segments = read_segments(sample)
    lists = lists_of_sample(sample, segments, few.classes)
    expected = flow_of(stored_frames(sample.path, short_side=32))
    assert segments.pair.observed.first > 0
    for view, window in (("observed", segments.pair.observed), ("future", segments.pair.future)):
        for place, way in enumerate("uv"):
            stored = lists[f"{view}/flow/{way}/encoded"]
            assert stored == [expected[number][place] for number in range(*window)]


@pytest.mark.parametrize("observed_frames", [1, 2, 7])
def test_a_prefix_shows_no_flow_from_beyond_it(few: Annotations, observed_frames: int) -> None:
    """The same prefix of a video that goes on otherwise has the same flow."""
    sample = dataclasses.replace(few.samples[-1], start_s=None, end_s=None)
    sample = dataclasses.replace(sample, observed_fraction=observed_frames / 40)
    lists = lists_of_sample(sample, read_segments(sample), few.classes)
    frames = flow_of(stored_frames(sample.path, short_side=32))
    alone = [frames[min(1, observed_frames - 1)], *(frames[n] for n in range(1, observed_frames))]
    assert [*zip(lists["observed/flow/u/encoded"], lists["observed/flow/v/encoded"], strict=True)] == alone
    assert lists["future/flow/u/encoded"][:2] == [frames[1][0]] * 2
    first = np.asarray(Image.open(io.BytesIO(lists["observed/flow/u/encoded"][0])))
    assert (observed_frames == 1) == bool((first == 128).all())


def test_observed_flow_of_a_real_test_video_is_that_of_its_prefix_alone(jhmdb: Path) -> None:
    annotations = read_jhmdb(jhmdb, classes=("golf",))
    sample = next(sample for sample in annotations.samples if sample.split == "test")
    segments = read_segments(sample)
    lists = lists_of_sample(sample, segments, annotations.classes)
    count = segments.pair.observed.frames
    alone = flow_of(itertools.islice(stored_frames(sample.path, short_side=32), count))
    alone[0] = alone[1]
    assert 2 < count < segments.pair.future.frames
    assert [*zip(lists["observed/flow/u/encoded"], lists["observed/flow/v/encoded"], strict=True)] == alone


def test_flow_of_a_whole_video_is_computed_for_its_first_frames_where_only_these_are_stored(
    few: Annotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = dataclasses.replace(few.samples[0], start_s=None, end_s=None)
    clip = ClipSpec(clip_frames=4, anticipation_s=0.1)
    whole = read_segments(sample)
    computed = []

    def count(before: np.ndarray, after: np.ndarray, info: FlowInfo) -> np.ndarray:
        computed.append(after)
        return compute_flow(before, after, info)

    monkeypatch.setattr(encode, "compute_flow", count)
    segments = read_segments(sample, dataclasses.replace(FLOW, clip=clip))
    windows = (segments.pair.observed, segments.pair.future)
    held = {number for window in windows for number in range(*window)}
    assert (len(held), len(computed)) == (12, 11)
    assert {n: segments.frames[n] for n in held} == {n: whole.frames[n] for n in held}


def first_batch(records: Records, views: tuple[str, ...] = (OBSERVED, FUTURE)) -> dict[str, np.ndarray]:
    dataset = training_batches(records, views=views, batch_size=4, crop=CROP, seed=3, epoch=0)
    return next(dataset.as_numpy_iterator())


@pytest.mark.slow
def test_clips_of_flow_have_two_channels_within_one(folders: dict[str, Path]) -> None:
    records = Records.open(folders["flow"])
    assert records.modality == "flow"
    batch = first_batch(records) | {EITHER: first_batch(records, (EITHER,))[EITHER]}
    (test,) = evaluation_batches(
        records, split="test", view=FUTURE, batch_size=9, crop=CROP, windows=1
    ).as_numpy_iterator()
    for clips in (batch[OBSERVED], batch[FUTURE], batch[EITHER], test["clip"]):
        assert (clips.shape[1:], clips.dtype) == ((8, CROP, CROP, 2), np.float32)
        assert 0.01 < np.abs(clips).max() <= 1


def test_evaluated_flow_is_the_stored_one(folders: dict[str, Path]) -> None:
    records = Records.open(folders["flow"])
    dataset = evaluation_batches(records, split="test", view=OBSERVED, batch_size=9, crop=CROP, windows=1)
    (clips,) = (batch["clip"] for batch in dataset.as_numpy_iterator())
    lists = feature_lists(folders["flow"])[-1]
    for place, way in enumerate("uv"):
        pictures = [
            tf.io.decode_jpeg(jpeg, dct_method="INTEGER_ACCURATE")
            for jpeg in lists[f"observed/flow/{way}/encoded"]
        ]
        cut = np.stack(pictures)[:, 2:30, 8:36, 0].astype(np.float32)
        np.testing.assert_array_equal(clips[-1, ..., place], np.clip((cut - 128) / 127, -1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_records_of_both_serve_either_as_if_it_were_alone(folders: dict[str, Path], modality: str) -> None:
    both, alone = Records.open(folders["both"], modality=modality), Records.open(folders[modality])
    for got, expected in zip(first_batch(both).values(), first_batch(alone).values(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_records_of_both_are_read_as_rgb_unless_flow_is_wanted(folders: dict[str, Path]) -> None:
    assert Records.open(folders["both"]).modality == "rgb"
    with pytest.raises(RecordError, match=r"has modality 'flow', the run wants 'rgb'.*--modality rgb"):
        Records.open(folders["flow"], modality="rgb")
