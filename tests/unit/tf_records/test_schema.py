"""The manifest and the ClipSpec: what is accepted, and what a bad one says."""

import json
from pathlib import Path

import pytest

from tf_records.errors import RecordError
from tf_records.files import seal
from tf_records.manifest import Manifest, ShardInfo, SplitInfo, load_manifest
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec


def manifest() -> Manifest:
    shard = ShardInfo(
        file="train-00000-of-00001.tfrecord",
        records=3,
        bytes=99,
        sha256="ab",
        classes={"wave": 2},
        seconds=4.5,
    )
    split = SplitInfo.of([shard], shortened_offset=1)
    return Manifest(
        dataset="csv",
        clip=ClipSpec(),
        classes=("bow", "wave"),
        splits={"train": split},
        options={},
        fps=25.0,
        short_side=64,
        jpeg_quality=95,
        plan_sha256="0" * 64,
    )


def sealed_with(**changes: object) -> str:
    """The manifest's text with other fields, and a checksum that fits them."""
    fields = {**json.loads(manifest().to_json()), **changes}
    del fields["sha256"]
    return seal(json.dumps(fields, indent=1) + "\n")


@pytest.mark.parametrize("name", ["clip_frames", "offset_frames"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_clip_needs_positive_lengths(name: str, value: int) -> None:
    with pytest.raises(RecordError, match=f"`{name}` should be at least 1. Received: {value}"):
        ClipSpec(**{name: value})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_an_anticipation_time_is_a_number_of_seconds(value: float) -> None:
    with pytest.raises(RecordError, match=f"`anticipation_s` should be .*Received: {value}"):
        ClipSpec(anticipation_s=value)


def test_a_clip_has_one_distance() -> None:
    assert (ClipSpec().offset_frames, ClipSpec().anticipation_s) == (15, None)
    assert ClipSpec(anticipation_s=1.0).offset_frames is None
    with pytest.raises(RecordError, match=r"Only one of .* Received: 15 and 1\.0"):
        ClipSpec(offset_frames=15, anticipation_s=1.0)


@pytest.mark.parametrize(
    ("clip", "fps", "offset"),
    [
        (ClipSpec(clip_frames=8, offset_frames=15), 30, 15),
        (ClipSpec(clip_frames=32, anticipation_s=1), 59.94, 92),
        (ClipSpec(clip_frames=32, anticipation_s=1), 29.97, 62),
        (ClipSpec(clip_frames=16, anticipation_s=1), 16, 32),
        (ClipSpec(clip_frames=16, anticipation_s=0), 25, 16),
    ],
)
def test_the_offset_in_frames_follows_the_clock(clip: ClipSpec, fps: float, offset: int) -> None:
    assert clip.offset_at(fps) == offset


@pytest.mark.parametrize(
    "fields",
    [
        {"clip_frames": 8, "offset_frames": 16},
        {"clip_frames": 8, "offset_frames": 16, "anticipation_s": None},
    ],
)
def test_clips_saved_before_there_was_an_anticipation_time_are_read(fields: dict) -> None:
    text = sealed_with(clip=fields)
    assert Manifest.from_json(text).clip == ClipSpec(clip_frames=8, offset_frames=16)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"short_side": 15}, "short_side"),
        ({"jpeg_quality": 0}, "jpeg_quality"),
        ({"jpeg_quality": 101}, "jpeg_quality"),
        ({"shards": 0}, "shards"),
        ({"fps": 0.0}, "fps"),
        ({"fps": 1001.0}, "fps"),
        ({"fps": float("nan")}, "fps"),
    ],
)
def test_build_options_out_of_range_are_refused(options: dict[str, float], name: str) -> None:
    with pytest.raises(RecordError, match=f"`{name}` should be .*Received: {options[name]}"):
        BuildOptions(**options)


def test_a_split_counts_labelled_and_unlabelled_records() -> None:
    assert manifest().splits["train"].records == 3


def test_the_summary_counts_shards_and_bytes() -> None:
    assert manifest().summary() == {
        "dataset": "csv",
        "clip": {"clip_frames": 8, "offset_frames": 15, "anticipation_s": None},
        "fps": 25.0,
        "short_side": 64,
        "splits": {
            "train": {
                "samples": 3,
                "labeled": 2,
                "unlabeled": 1,
                "shards": 1,
                "seconds": 4.5,
                "bytes": 99,
                "classes": {"wave": 2},
            }
        },
        "classes": ["bow", "wave"],
        "modality": "rgb",
        "flow": None,
        "features": None,
        "longest_anticipation_s": None,
        "skipped": [],
        "damaged_frames": {},
        "guessed_fps": {},
        "open_ended": [],
    }


def test_a_missing_folder_and_one_without_a_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none does not exist\. Build it first: kdant build-records"):
        load_manifest(tmp_path / "none")
    with pytest.raises(RecordError, match=r"has no manifest\.json, so it is no finished record folder"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format_version": 2}', "[" * 100000, "\udcff"]
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecordError, match=r"manifest\.json cannot be read: .*Rebuild it with --overwrite"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("splits", []),
        ("splits", {"train": 3}),
        ("clip", {"frames": 8}),
        ("clip", {"clip_frames": 0}),
        ("clip", None),
        ("skipped", [1]),
        ("skipped", None),
        ("classes", 7),
        ("colour", "red"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_named(tmp_path: Path, field: str, value: object) -> None:
    (tmp_path / "manifest.json").write_text(sealed_with(**{field: value}))
    with pytest.raises(RecordError, match=r"manifest\.json cannot be read"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("version", [1, 5])
def test_a_manifest_of_another_format_version_says_both(tmp_path: Path, version: int) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format_version": version, "clip": {}}))
    with pytest.raises(
        RecordError, match=f"format version {version}, this kdant reads 2, 3 and 4. Rebuild it"
    ):
        load_manifest(tmp_path)


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    text = manifest().to_json().replace('"records": 3', '"records": 4')
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RecordError, match=r"manifest\.json cannot be read: .*checksum.*Rebuild it"):
        load_manifest(tmp_path)


def test_a_manifest_that_was_written_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifest().to_json())
    assert load_manifest(tmp_path) == manifest()


def test_a_manifest_of_before_is_read_and_keeps_its_version(tmp_path: Path) -> None:
    """Its times count from the first frame of each video; nothing was said of damage."""
    fields = json.loads(manifest().to_json())
    for name in ("sha256", "damaged_frames", "guessed_fps", "open_ended"):
        del fields[name]
    fields["format_version"] = 2
    (tmp_path / "manifest.json").write_text(seal(json.dumps(fields, indent=1) + "\n"))
    loaded = load_manifest(tmp_path)
    assert (loaded.format_version, loaded.damaged_frames) == (2, {})
    assert json.loads(loaded.to_json())["format_version"] == 2
