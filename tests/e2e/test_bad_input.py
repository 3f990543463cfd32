"""Bad input gets one sentence on stderr, exit code 1, nothing on stdout and nothing half-written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from kdant_cli.main import main

from tf_records.manifest import load_manifest

HEADER = "video,start_s,end_s,label,split"


def refuse(*args: object) -> str:
    """Runs kdant, checks that it refuses properly, and returns the message."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 1, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr
    return lines[-1]


def refuse_csv(tmp_path: Path, videos: Path, *rows: str, header: str = HEADER) -> str:
    folder = tmp_path / "csv"
    folder.mkdir()
    for name in ("00000.mp4", "00001.mp4"):
        shutil.copy(videos / name, folder)
    (folder / "rows.csv").write_text("\n".join((header, *rows)) + "\n")
    out = tmp_path / "records"
    message = refuse("build-records", "--source", "csv", "--input", folder / "rows.csv", "--out", out)
    assert not out.exists()
    return message


def test_a_missing_input_folder(tmp_path: Path) -> None:
    out = tmp_path / "records"
    for source in ("jhmdb", "csv"):
        message = refuse("build-records", "--source", source, "--input", tmp_path / "no", "--out", out)
        assert str(tmp_path / "no") in message
    assert not out.exists()


def test_an_empty_input_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refuse(
        "build-records", "--source", "jhmdb", "--input", tmp_path / "empty", "--out", tmp_path / "r"
    )
    assert "splits" in message


def test_a_missing_column(tmp_path: Path, videos: Path) -> None:
    message = refuse_csv(tmp_path, videos, "00000.mp4,0,a,train", header="video,start_s,label,split")
    assert "rows.csv:1" in message
    assert "lacks the column end_s" in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("00000.mp4,-1,1,a,train", "negative"),
        ("00000.mp4,1.5,1,a,train", "later than start_s"),
        ("00000.mp4,1,9,a,train", "past the end"),
        ("00000.mp4,one,2,a,train", "number of seconds"),
        ("00009.mp4,0,1,a,train", "does not exist"),
        ("00000.mp4,0,1,b,test", "no training row"),
        ("00000.mp4,0,1,,test", "needs a label"),
        ("00000.mp4,0,1,a,dev", "train, val, test"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, videos: Path, row: str, words: str) -> None:
    message = refuse_csv(tmp_path, videos, "00001.mp4,0,1,a,train", row)
    assert "rows.csv:3" in message
    assert words in message


def test_a_file_whose_name_is_not_utf8_is_named(tmp_path: Path, videos: Path) -> None:
    shutil.copy(videos / "00000.mp4", tmp_path)
    shutil.copy(videos / "00000.mp4", os.fsencode(tmp_path) + b"/a\xff.mp4")
    (tmp_path / "rows.csv").write_text(f"{HEADER}\n*.mp4,1,2,a,train\n")
    rows, out = tmp_path / "rows.csv", tmp_path / "records"
    message = refuse("build-records", "--source", "csv", "--input", rows, "--out", out)
    assert "rows.csv:2: the name of 'a\\udcff.mp4' is not UTF-8. Rename the file." in message


def test_a_truncated_video_fails_a_strict_build_and_is_named(tmp_path: Path, videos: Path) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    shutil.copy(videos / "00000.mp4", folder)
    (folder / "cut.mp4").write_bytes((videos / "00001.mp4").read_bytes()[:3000])
    rows = (HEADER, "00000.mp4,1,2,a,train", "cut.mp4,1,2,b,train")
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    args = ["build-records", "--source", "csv", "--input", str(folder / "rows.csv"), "--out"]
    lenient = CliRunner().invoke(main, [*args, str(tmp_path / "lenient")])
    assert lenient.exit_code == 0
    assert "Skipped cut.mp4" in lenient.stderr
    strict = CliRunner().invoke(main, [*args, str(tmp_path / "strict"), "--strict"])
    assert strict.exit_code == 1
    assert "Skipped cut.mp4" in strict.stderr
    assert "cut.mp4" in (tmp_path / "strict" / "manifest.json").read_text()


def test_only_undecodable_videos_leave_no_records(tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"this is no video" * 100)
    (tmp_path / "rows.csv").write_text(f"{HEADER}\njunk.mp4,0,1,a,train\n")
    out = tmp_path / "records"
    message = refuse("build-records", "--source", "csv", "--input", tmp_path / "rows.csv", "--out", out)
    assert "No video could be used" in message
    assert not list(out.iterdir())


def test_an_unwritable_output_folder(tmp_path: Path, videos: Path, record_folder: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "inside"
    source = ("--source", "synthetic", "--input", videos)
    assert "cannot be made" in refuse("build-records", *source, "--out", out)
    training = ("--records", record_folder, "--out", out, "--batch-size", 4)
    assert "cannot be made" in refuse("train-teacher", *training)


def test_a_folder_in_use_is_not_overwritten_unasked(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    source = ("--source", "synthetic", "--input", videos)
    assert "--overwrite" in refuse("build-records", *source, "--out", tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_records_of_another_clip_length(tmp_path: Path, record_folder: Path) -> None:
    config = tmp_path / "long.toml"
    config.write_text("clip_frames = 32\n")
    training = ("train-teacher", "--records", record_folder, "--out", tmp_path / "run", "--config", config)
    assert "clips of 8 frames, the run wants 32" in refuse(*training)
    assert not (tmp_path / "run").exists()


def test_records_of_another_modality(tmp_path: Path, record_folder: Path) -> None:
    training = ("train-teacher", "--records", record_folder, "--out", tmp_path / "run")
    assert "has modality 'rgb', the run wants 'flow'" in refuse(*training, "--modality", "flow")


def test_a_teacher_of_other_classes(
    tmp_path: Path, record_folder: Path, finished_run: Path, edit_manifest: Callable[..., None]
) -> None:
    records = tmp_path / "others"
    shutil.copytree(record_folder, records)
    classes = load_manifest(records).classes
    edit_manifest(records, classes=tuple(name.replace("shrink", "wobble") for name in classes))
    args = ("--records", records, "--out", tmp_path / "student")
    message = refuse("distill", "--teacher", finished_run, *args)
    assert "wobble" in message
    assert "shrink" in message
    assert not (tmp_path / "student").exists()
    assert "wobble" in refuse("evaluate", finished_run, "--records", records)


def test_records_of_another_frame_size(
    tmp_path: Path, record_folder: Path, finished_run: Path, edit_manifest: Callable[..., None]
) -> None:
    records = tmp_path / "resized"
    shutil.copytree(record_folder, records)
    edit_manifest(records, short_side=128)
    assert "short side of 64 pixels" in refuse("evaluate", finished_run, "--records", records)


def test_a_truncated_shard(tmp_path: Path, record_folder: Path) -> None:
    records = tmp_path / "cut"
    shutil.copytree(record_folder, records)
    shard = next(records.glob("train-*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert shard.name in refuse("train-teacher", "--records", records, "--out", tmp_path / "run")
    assert shard.name in refuse("inspect", records, "--verify")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_without_a_model(tmp_path: Path, record_folder: Path, finished_run: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "model.keras").unlink()
    assert "has no model.keras" in refuse("evaluate", run, "--records", record_folder)
    assert "has no model.keras" in refuse("export", run, "--out", tmp_path / "served")
    assert not (tmp_path / "served").exists()
    assert "no run folder" in refuse("evaluate", record_folder, "--records", record_folder)


def test_a_damaged_model(tmp_path: Path, record_folder: Path, finished_run: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "model.keras").write_bytes(b"junk")
    assert "model.keras cannot be read" in refuse("evaluate", run, "--records", record_folder)


def test_settings_out_of_range_or_unknown(tmp_path: Path, record_folder: Path) -> None:
    training = ("train-teacher", "--records", record_folder, "--out", tmp_path / "run")
    assert "`epochs` should be at least 1" in refuse(*training, "--epochs", 0)
    assert "jhmdb-small" in refuse(*training, "--preset", "jhmdb-smal")
    (tmp_path / "typo.toml").write_text("epoch = 3\n")
    assert "Did you mean `epochs`?" in refuse(*training, "--config", tmp_path / "typo.toml")
    assert "larger than the" in refuse(*training, "--batch-size", 4096)


def test_more_devices_than_there_are(tmp_path: Path, record_folder: Path) -> None:
    training = ("train-teacher", "--records", record_folder, "--out", tmp_path / "run", "--batch-size", 4)
    assert "more GPUs" in refuse(*training, "--devices", "gpu:9")
    assert "should be auto" in refuse(*training, "--devices", "tpu")
