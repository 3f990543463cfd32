"""build-records from EPIC-KITCHENS, THUMOS14 and CSV layouts, on videos whose frames tell their number."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main
from PIL import Image

from tf_records.manifest import load_manifest
from tf_records.reader import training_batches
from tf_records.records import Records

BITS = 9
SIDE = 48
EPIC_HEADER = "uid,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun,noun_class\n"
EPIC_ROWS = (
    "1,P01,P01_01,00:00:03.00,00:00:03.90,0,door,8\n"
    "2,P01,P01_01,00:00:01.00,00:00:01.50,1,door,8\n"
    "3,P26,P26_01,00:00:03.00,00:00:04.50,0,door,8\n"
    "4,P26,P26_02,00:00:03.00,00:00:04.50,0,door,8\n"
)


def draw(number: int) -> np.ndarray:
    """A frame of bars, white for each bit of its number that is set."""
    bars = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.repeat(np.repeat(np.array(bars, np.uint8)[None, :, None], SIDE, 0), 16, 1).repeat(3, 2)


def number_of(jpeg: bytes) -> int:
    frame = tf.io.decode_jpeg(jpeg).numpy()
    columns = ((np.arange(BITS) + 0.5) * frame.shape[1] / BITS).astype(int)
    return sum(
        (int(frame[frame.shape[0] // 2, column, 0]) > 127) << bit for bit, column in enumerate(columns)
    )


def encode(path: Path, frames: int, rate: Fraction) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = SIDE, 16 * BITS, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw(number), format="rgb24")))
        container.mux(stream.encode())


def extract(folder: Path, frames: int) -> None:
    folder.mkdir(parents=True)
    for number in range(frames):
        Image.fromarray(draw(number)).save(folder / f"frame_{number + 1:010d}.jpg", quality=95)


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def build(*args: object) -> dict:
    result = kdant("build-records", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def rows_of(folder: Path, split: str) -> dict[str, dict]:
    """Id → numbers of the observed and of the future frames, and the context."""
    files = [str(folder / shard.file) for shard in load_manifest(folder).splits[split].shards]
    rows = {}
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        example = tf.train.SequenceExample.FromString(record)
        row = {
            view: [number_of(f.bytes_list.value[0]) for f in lists.feature]
            for view in ("observed", "future")
            for lists in [example.feature_lists.feature_list[f"{view}/image/encoded"]]
        }
        context = example.context.feature
        row["offset"] = context["clip/offset_frames"].int64_list.value[0]
        row["fps"] = context["image/frame_rate"].float_list.value[0]
        row["label"] = context["clip/label/index"].int64_list.value[0]
        row["video"] = context["clip/video"].bytes_list.value[0].decode()
        rows[context["clip/id"].bytes_list.value[0].decode()] = row
    return rows


@pytest.fixture(scope="module")
def epic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """P01_01 as a file of 30 frames a second, P26_01 as frames at 60 of a video of 59.94, P26_02 absent."""
    root = tmp_path_factory.mktemp("epic")
    (root / "EPIC_train_action_labels.csv").write_text(EPIC_HEADER + EPIC_ROWS)
    (root / "EPIC_verb_classes.csv").write_text("verb_id,class_key\n0,open\n1,close\n2,wash\n")
    info = "P01_01,12.0,29.97\nP26_01,6.0,59.9400599\nP26_02,6.0,59.9400599\n"
    (root / "EPIC_video_info.csv").write_text("video,duration,fps\n" + info)
    encode(root / "P01" / "P01_01.MP4", 360, Fraction(30))
    extract(root / "P26" / "P26_01", 360)
    return root


@pytest.fixture(scope="module")
def epic_records(epic: Path) -> Path:
    out = epic / "records"
    mining = ("--unlabeled-per-label", 3, "--vicinity-s", 4)
    summary = build("--source", "epic55", "--input", epic, "--out", out, "--short-side", SIDE, *mining)
    assert summary["classes"] == ["open", "close", "wash"]
    assert {name: (s["labeled"], s["unlabeled"]) for name, s in summary["splits"].items()} == {
        "train": (2, 6),
        "test": (1, 0),
    }
    return out


def test_an_observed_clip_of_epic_kitchens_ends_a_second_before_the_action(epic_records: Path) -> None:
    row = rows_of(epic_records, "train")["P01_01/1"]
    assert row["observed"] == list(range(28, 60))
    assert row["future"] == list(range(90, 122))
    assert (row["offset"], row["fps"], row["label"]) == (62, 30.0, 0)


def test_an_action_too_early_for_tau_is_kept_with_a_shorter_offset(epic_records: Path) -> None:
    row = rows_of(epic_records, "train")["P01_01/2"]
    assert row["observed"] == list(range(32))
    assert row["future"] == list(range(30, 62))
    assert (row["offset"], row["label"]) == (30, 1)
    assert load_manifest(epic_records).splits["train"].shortened_offset == 1


def test_extracted_frames_are_read_at_the_rate_their_number_tells(epic_records: Path) -> None:
    (row,) = rows_of(epic_records, "test").values()
    assert row["observed"] == list(range(88, 120))
    assert row["future"] == list(range(180, 270))
    assert (row["offset"], row["fps"]) == (92, 60.0)


def test_the_manifest_tells_the_protocol_what_was_mined_and_what_is_absent(epic_records: Path) -> None:
    manifest = load_manifest(epic_records)
    assert (manifest.clip.clip_frames, manifest.clip.anticipation_s, manifest.fps) == (32, 1.0, None)
    assert manifest.absent == {"videos": ["P26_02"]}
    mined = {"per_label": 3.0, "vicinity_s": 4.0, "seed": 0, "asked": 6, "drawn": 6}
    assert manifest.options == {"target": "verb", "unlabeled_mining": mined}
    shown = kdant("inspect", epic_records)
    assert "32 frames, 1 s from one to the other, mixed fps" in " ".join(shown.stdout.split())


def test_mined_pairs_are_unlabelled_and_lie_clear_of_the_actions(epic_records: Path) -> None:
    mined = {name: row for name, row in rows_of(epic_records, "train").items() if row["label"] == -1}
    assert len(mined) == 6
    for name, row in mined.items():
        assert name.startswith("P01_01@")
        observed, future = row["observed"], row["future"]
        assert (len(observed), len(future), row["offset"]) == (32, 32, 62)
        assert future[0] - observed[0] == 62
        taken = {*range(30, 45), *range(90, 117)}
        assert taken.isdisjoint(range(observed[0], future[-1] + 1))


def test_the_same_command_writes_the_same_bytes_and_the_reader_takes_them(
    epic: Path, epic_records: Path
) -> None:
    out = epic / "again"
    mining = ("--unlabeled-per-label", 3, "--vicinity-s", 4)
    common = ("--source", "epic55", "--input", epic, "--short-side", SIDE)
    build(*common, *mining, "--out", out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in epic_records.iterdir()
    }
    options = {"views": ("observed", "future"), "batch_size": 4, "crop": 32, "seed": 0, "epoch": 0}
    batch = next(iter(training_batches(Records.open(out, clip_frames=32), **options)))
    assert batch["observed"].shape == batch["future"].shape == (4, 32, 32, 32, 3)


def test_other_targets_clocks_and_a_quick_look(epic: Path, tmp_path: Path) -> None:
    options = ("--target", "action", "--fps", 10, "--clip-frames", 5, "--limit", 1, "--label-fraction", 0)
    out = tmp_path / "records"
    summary = build("--source", "epic55", "--input", epic, "--out", out, "--short-side", SIDE, *options)
    assert summary["classes"] == ["open door", "close door"]
    train = summary["splits"]["train"]
    assert (train["labeled"], train["unlabeled"], train["shards"], train["classes"]) == (0, 1, 1, {})
    (row,) = rows_of(out, "test").values()
    # Every sixth frame of 60 a second; 5 of them end at tick 20, the action starts at tick 30.
    assert row["observed"] == [90, 96, 102, 108, 114]
    assert row["future"] == list(range(180, 270, 6))
    assert (load_manifest(out).fps, row["offset"]) == (10.0, 15)


def test_a_build_of_a_video_shorter_than_its_annotations_skips_it(epic: Path, tmp_path: Path) -> None:
    encode(tmp_path / "P01" / "P01_01.mp4", 60, Fraction(30))
    for path in epic.glob("*.csv"):
        (tmp_path / path.name).write_text(path.read_text())
    common = ("--source", "epic55", "--input", tmp_path, "--short-side", SIDE)
    (skipped,) = build(*common, "--out", tmp_path / "records")["skipped"]
    assert skipped["reason"].startswith("P01_01 lasts 2.00 s, but an action is said to start at 3.00 s")


@pytest.fixture(scope="module")
def thumos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("thumos")
    lists = {
        "Diving_val.txt": "video_validation_0000001  3.0 4.0\nvideo_validation_0000001  1.5 2.5\n",
        "Diving_test.txt": "video_test_0000002  3.0 6.0\n",
        "Ambiguous_val.txt": "video_validation_0000001  5.0 6.0\n",
    }
    (root / "annotation").mkdir()
    for name, text in lists.items():
        (root / "annotation" / name).write_text(text)
    encode(root / "validation" / "video_validation_0000001.mp4", 200, Fraction(25))
    encode(root / "test" / "video_test_0000002.mp4", 180, Fraction(30000, 1001))
    return root


def test_a_clip_of_thumos_is_a_second_that_ends_a_second_before_the_action(
    thumos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "records"
    source = ("--source", "thumos14", "--input", thumos, "--short-side", SIDE)
    result = kdant("build-records", *source, "--out", out, "--strict")
    assert result.exit_code == 0, result.stderr
    assert (
        "Skipped video_validation_0000001: annotation/Diving_val.txt:2: Diving starts at 1.5 s"
        in result.stderr
    )
    (train,) = rows_of(out, "train").values()
    assert train["observed"] == [tick * 25 // 16 for tick in range(16, 32)]
    assert train["future"] == [tick * 25 // 16 for tick in range(48, 64)]
    (test,) = rows_of(out, "test").values()
    shown_at = [int((tick / 16 + 6e-4) * 30000 / 1001) for tick in range(96)]
    assert test["observed"] == shown_at[16:32]
    assert test["future"] == shown_at[48:96]
    assert (train["offset"], train["fps"], load_manifest(out).fps) == (32, 16.0, 16.0)
    assert len(load_manifest(out).skipped) == 1


def test_a_video_that_fails_is_named_before_the_actions_that_start_too_early(
    thumos: Path, tmp_path: Path
) -> None:
    for path in (*thumos.glob("annotation/*.txt"), *thumos.glob("*/video_*.mp4")):
        copy = tmp_path / path.relative_to(thumos)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes()[: 5000 if "validation" in path.name else None])
    source = ("--source", "thumos14", "--input", tmp_path, "--short-side", SIDE, "--strict")
    result = kdant("build-records", *source, "--out", tmp_path / "records")
    assert result.exit_code == 1
    skipped = [line for line in result.stderr.splitlines() if line.startswith("Skipped")]
    assert skipped[0].startswith(
        "Skipped video_validation_0000001: video_validation_0000001 cannot be opened"
    )
    assert "Error: 1 inputs were skipped, and --strict was given." in result.stderr


def test_csv_rows_with_a_clock_and_a_distance_of_their_own(thumos: Path, tmp_path: Path) -> None:
    path = thumos / "mine.csv"
    path.write_text("video,start_s,end_s,label,fps,offset_s\nvalidation/*.mp4,4,6,dive,5,0.6\n")
    build("--source", "csv", "--input", path, "--out", tmp_path / "records", "--short-side", SIDE)
    (row,) = rows_of(tmp_path / "records", "train").values()
    assert row["future"] == list(range(100, 150, 5))
    assert row["observed"] == list(range(85, 135, 5))
    assert (row["offset"], row["fps"], row["video"]) == (3, 5.0, "validation/video_validation_0000001.mp4")


def test_pairs_are_mined_from_the_videos_of_a_csv(thumos: Path, tmp_path: Path) -> None:
    path = thumos / "few.csv"
    path.write_text("video,start_s,end_s,label\nvalidation/video_validation_0000001.mp4,3,5,dive\n")
    common = ("--source", "csv", "--input", path, "--short-side", SIDE, "--unlabeled-per-label", 4)
    build(*common, "--out", tmp_path / "records")
    mined = [row for row in rows_of(tmp_path / "records", "train").values() if row["label"] == -1]
    assert len(mined) == 4
    for row in mined:
        assert row["future"][0] - row["observed"][0] == 15
        assert len(row["observed"]) == len(row["future"]) == 8
        assert set(range(75, 125)).isdisjoint(range(row["observed"][0], row["future"][-1] + 1))


def test_the_real_epic_annotations_are_counted_without_any_video(epic55: Path) -> None:
    mining = ("--unlabeled-per-label", 26391 / 23191)
    splits = build("--source", "epic55", "--input", epic55, "--dry-run", *mining)["splits"]
    counts = {name: (split["labeled"], split["unlabeled"]) for name, split in splits.items()}
    assert counts == {"train": (23191, 26391), "test": (5281, 0)}
