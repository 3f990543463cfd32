"""A damaged shard stops training and evaluation by name, or is left out where that is asked for."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

from tf_records.manifest import load_manifest
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.synthetic import OFFSET_FRAMES, read_synthetic
from tf_records.writer import build_records

TRAIN, TEST = "train-00001-of-00004.tfrecord", "test-00000-of-00004.tfrecord"
SMALL = ("--model", "network_for_damage:build", "--crop", "32", "--batch-size", "4", "--seed", "1")
NETWORK = """
import keras
from keras import layers

def build(num_classes, input_shape):
    clip = layers.Input(input_shape)
    maps = layers.Conv3D(4, 8, strides=8, name="maps")(clip)
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(maps))
    return keras.Model(clip, {"logits": logits, "maps": maps})
"""


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that takes no time, as a module of the current folder."""
    (tmp_path / "network_for_damage.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards a split: five training records each, two test records."""
    out = tmp_path_factory.mktemp("damage") / "records"
    clip = ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES)
    build_records(read_synthetic(videos), out, BuildOptions(clip=clip, short_side=36, shards=4))
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy in which one training and one test shard have a changed byte."""
    copy = Path(shutil.copytree(whole, tmp_path / "records"))
    for name in (TRAIN, TEST):
        damage(copy / name)
    return copy


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def train(folder: Path, out: Path, *more: object) -> Result:
    return kdant("train-teacher", "--records", folder, "--out", out, *SMALL, *more)


def test_inspect_names_every_damaged_shard_and_record(folder: Path, whole: Path) -> None:
    result = kdant("inspect", folder, "--verify")
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(f"{TRAIN}: is not what the manifest describes (sha256")
    assert lines[1] == f"{TRAIN}, record 0: its checksum is wrong"
    assert lines[-1].startswith(f"Error: 2 of 8 shards in {folder} are damaged: {TRAIN}, {TEST}.")
    printed = kdant("inspect", folder, "--verify", "--json")
    assert printed.exit_code == 1
    found = [(damage["shard"], damage["record"]) for damage in json.loads(printed.stdout)["damaged"]]
    assert found == [(TRAIN, None), (TRAIN, 0), (TEST, None), (TEST, 0)]
    intact = kdant("inspect", whole, "--verify", "--json")
    assert (intact.exit_code, json.loads(intact.stdout)["damaged"]) == (0, [])


def test_inspect_and_build_agree_on_names_and_numbers(whole: Path, videos: Path, tmp_path: Path) -> None:
    built = kdant(
        *("build-records", "--source", "synthetic", "--input", videos, "--out", tmp_path / "r"),
        *("--clip-frames", 8, "--offset-frames", OFFSET_FRAMES, "--short-side", 36, "--shards", 4, "--json"),
    )
    shown = kdant("inspect", whole, "--json")
    fields, known = json.loads(built.stdout), json.loads(shown.stdout)
    assert {name: fields[name] for name in known} == known
    train = known["splits"]["train"]
    assert (train["samples"], train["labeled"], train["unlabeled"], train["shards"]) == (20, 16, 4, 4)
    assert train["classes"] == dict.fromkeys(known["classes"], 4)
    assert train["seconds"] == pytest.approx(sum(shard.seconds for shard in shards(whole, "train")))
    assert train["bytes"] == sum(path.stat().st_size for path in whole.glob("train-*"))


def shards(folder: Path, split: str):
    return load_manifest(folder).splits[split].shards


@pytest.mark.parametrize("option", ["--samples", "--seed"])
def test_options_of_the_contact_sheet_need_one(whole: Path, option: str) -> None:
    result = kdant("inspect", whole, option, 3)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{option} is for --contact-sheet" in result.stderr


def test_inspect_prints_splits_and_classes(whole: Path) -> None:
    result = kdant("inspect", whole)
    assert result.exit_code == 0
    assert "4 classes" in result.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines()]
    seconds = [f"{sum(shard.seconds for shard in shards(whole, split)):.1f}" for split in ("train", "test")]
    for row in (["samples", "20", "8"], ["unlabelled", "4", "0"], ["shrink", "4", "2"]):
        assert row in rows
    assert ["seconds of video", *seconds] in rows


@pytest.mark.parametrize("options", [(), ("--label-fraction", "0.5")], ids=["batches", "labels"])
def test_training_on_a_damaged_shard_names_it(folder: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = train(folder, tmp_path / "run", "--epochs", 1, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Error: Shard {folder / TRAIN} is damaged: is not what the manifest describes")
    assert last.endswith("or leave it out of a training: --skip-damaged.")


def test_damaged_shards_are_left_out_on_request_and_said_to_be(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(folder, run, "--epochs", 1, "--skip-damaged", "--json")
    assert result.exit_code == 0, result.stderr
    expected = "Left out 1 of 4 training shards, 5 of 20 records, because they are damaged: " + TRAIN
    assert expected in result.stderr.splitlines()
    assert json.loads(result.stdout)["left_out"] == [TRAIN]
    assert json.loads((run / "config.json").read_text())["left_out"] == [TRAIN]

    other = train(folder, run, "--epochs", 2, "--resume")
    assert other.exit_code == 1
    assert f"left_out ('{TRAIN}',) → ()" in other.stderr
    resumed = train(folder, run, "--epochs", 2, "--resume", "--skip-damaged")
    assert resumed.exit_code == 0, resumed.stderr

    evaluated = kdant("evaluate", run, "--records", folder)
    assert evaluated.exit_code == 1
    last = evaluated.stderr.splitlines()[-1]
    assert last.startswith(f"Error: Shard {folder / TEST} is damaged: ")
    assert "--skip-damaged" not in last


def test_frame_features_of_the_kept_shards_are_not_taken_for_those_of_all(
    folder: Path, whole: Path, tmp_path: Path, tiny_backbone: str
) -> None:
    options = ("--model", "frame-mlp", "--backbone", tiny_backbone, "--init", "random", "--epochs", 1)
    assert train(folder, tmp_path / "without", *options, "--skip-damaged").exit_code == 0
    shutil.copy(whole / TRAIN, folder)
    assert train(folder, tmp_path / "with", *options).exit_code == 0
    made = [load_manifest(path).splits["train"].records for path in (folder / "frame-features").iterdir()]
    assert sorted(made) == [15, 20]


def test_a_missing_shard_can_be_left_out_too_and_does_not_hinder_evaluation(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    (folder / TRAIN).unlink()
    result = train(folder, tmp_path / "run", "--epochs", 1)
    assert result.exit_code == 1
    assert f"Shard {folder / TRAIN} is missing. " in result.stderr
    assert "--skip-damaged" in result.stderr
    assert train(folder, tmp_path / "run", "--epochs", 1, "--skip-damaged").exit_code == 0
    shutil.copy(whole / TEST, folder)
    evaluated = kdant("evaluate", tmp_path / "run", "--records", folder, "--json")
    assert evaluated.exit_code == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["samples"] == 8


def test_where_every_shard_is_damaged_there_is_nothing_to_train_on(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("train-*"):
        if path.name != TRAIN:
            damage(path)
    result = train(folder, tmp_path / "run", "--skip-damaged")
    assert result.exit_code == 1
    assert "All 4 training shards in" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_changed_byte_in_the_manifest_stops_every_reader(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "manifest.json").read_bytes())
    content[-1] = ord("\r")  # What reading as text would take for the line break that was there.
    (folder / "manifest.json").write_bytes(content)
    for result in (
        kdant("inspect", folder),
        kdant("inspect", folder, "--verify"),
        train(folder, tmp_path / "run"),
    ):
        assert (result.exit_code, result.stdout) == (1, "")
        assert "manifest.json cannot be read" in result.stderr
