"""Features of an image network, from the command line: extract, train a head on them, evaluate, export."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main
from test_bad_input import refuse

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.predictions import load_predictions
from kdant_tf.models.networks import build_network, load_network
from kdant_tf.runs import PREDICTIONS_NAME, load_run, manifest_sha256, read_evaluation
from tf_records.records import Records

HEAD = ("--model", "features3d", "--width", 0.0625, "--crop", 64, "--batch-size", 8, "--epochs", 1)
STEM = ("--model", "mobilenet_v2", "--init", "random")


def kdant_json(*args: object) -> dict:
    result: Result = CliRunner().invoke(main, [*map(str, args), "--json"])
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def features(record_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps of whole frames, 64 pixels high, by random weights."""
    out = tmp_path_factory.mktemp("images") / "features"
    summary = kdant_json(
        "extract-features", record_folder, *STEM, "--endpoint", "block_6_expand_relu", "--out", out
    )
    assert summary["features"]["shape"] == [8, 8, 11, 192]
    assert (summary["features"]["network"], summary["features"]["stride"]) == ("mobilenet_v2", 8)
    return out


@pytest.fixture(scope="module")
def teacher(features: Path, finished_run: Path) -> Path:
    """A network with random weights, as `kdant train-teacher` would have left it; the student is trained."""
    out = Path(shutil.copytree(finished_run, features.parent / "teacher"))
    config = TrainConfig(model="features3d", width=0.0625, crop=64, batch_size=8, epochs=1)
    about = Records.open(features).manifest.features
    run = dataclasses.replace(load_run(out), config=config, features=about)
    run.save()
    keras.utils.set_random_seed(0)
    build_network(config, len(run.classes), (8, 8, 8, 192)).save(run.model_path)
    return out


def test_a_student_learns_from_maps_and_is_exported_with_the_stem(
    record_folder: Path, features: Path, teacher: Path
) -> None:
    student = features.parent / "student"
    args = ("--epochs", 1, "--batch-size", 8, "--feature-weight", 0.1)
    printed = kdant_json("distill", "--records", features, "--teacher", teacher, "--out", student, *args)
    assert np.isfinite(printed["final_loss"])
    assert load_run(student).config.model == "features3d"
    assert kdant_json("evaluate", student, "--records", features)["samples"] == 8
    exported = kdant_json("export", student, "--out", features.parent / "served", "--records", record_folder)
    assert exported["parity"]["clips"] == 4
    assert exported["parity"]["difference"] <= 1e-5


@pytest.mark.parametrize("crop", [None, 64])
def test_a_run_on_features_says_the_same_of_the_frames_that_they_were_made_of(
    record_folder: Path,
    features: Path,
    teacher: Path,
    tmp_path: Path,
    edit_manifest: Callable[..., None],
    crop: int | None,
) -> None:
    run = dataclasses.replace(load_run(teacher), folder=Path(shutil.copytree(teacher, tmp_path / "run")))
    seen = features
    if crop is not None:
        seen = tmp_path / "features"
        cut = ("--endpoint", "block_6_expand_relu", "--crop", crop)
        kdant_json("extract-features", record_folder, *STEM, *cut, "--out", seen)
    network = load_network(run)
    kernel = network.get_layer("Logits").kernel
    kernel.assign(1e4 * kernel)  # So that its answers depend on what it sees.
    network.save(run.model_path)
    config = dataclasses.replace(run.config, windows=1)
    sha256 = manifest_sha256(seen)
    about = Records.open(seen).manifest.features
    dataclasses.replace(run, config=config, features=about, records_sha256=sha256).save()
    for records in (seen, record_folder):
        kdant_json("evaluate", run.folder, "--records", records, "--view", "observed")
    frames = f"observed, records {manifest_sha256(record_folder)[:8]}"
    assert list(read_evaluation(run.folder)) == ["observed", frames]
    of_features, of_frames = (
        load_predictions(run.folder / PREDICTIONS_NAME, f"{name}/test") for name in ("observed", frames)
    )
    np.testing.assert_array_equal(of_frames.ids, of_features.ids)
    np.testing.assert_allclose(of_frames.probabilities, of_features.probabilities, atol=1e-5)
    assert np.ptp(of_frames.probabilities, axis=0).max() > 1e-3  # They depend on the clips.
    videos = Path(shutil.copytree(record_folder, tmp_path / "videos"))
    edit_manifest(videos, options={**Records.open(videos).manifest.options, "observed_fraction": 0.2})
    points = kdant_json("evaluate", run.folder, "--records", videos, "--observe", "0.25,1")["share"]
    assert [point["share"] for point in points] == [0.25, 1]


def test_what_does_not_fit_is_said_before_anything_is_made(
    record_folder: Path, features: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    training = ("train-teacher", "--records", features, *out, "--crop", 64)
    assert "`model` should be features3d" in refuse(*training, "--model", "i3d")
    assert "`model` should be features3d" in refuse(*training, "--model", "tsn")
    large = ("train-teacher", "--records", features, *out, *HEAD, "--crop", 80)
    assert "`crop` should be at most 64" in refuse(*large)
    frames = ("train-teacher", "--records", record_folder, *out, *HEAD)
    assert "which learns from features" in refuse(*frames)
    extracting = ("extract-features", record_folder, *STEM, *out)
    assert "want --endpoint LAYER" in refuse(*extracting)
    message = refuse(*extracting, "--endpoint", "out_relu", "--crop", 40)
    assert "wants a multiple of 32 pixels. Received: 40. Give --crop 32." in message
    assert not (tmp_path / "out").exists()
