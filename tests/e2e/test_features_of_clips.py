"""Features of I3D's stem, from the command line: extract, train heads, evaluate, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main
from test_bad_input import refuse

from kdant_tf.models.i3d_stem import build_head
from kdant_tf.models.networks import load_network
from kdant_tf.runs import load_run
from tf_records.manifest import load_manifest
from tf_records.reader import decode_clip, evaluation_batches, parse
from tf_records.records import Records
from tf_records.schema import OBSERVED

SMALL = ("--width", "0.0625", "--crop", "32", "--batch-size", "8", "--epochs", "1")
STUDENT = ("--epochs", "1", "--batch-size", "8", "--feature-weight", "0.1", "--label-fraction", "0.5")

OWN_NETWORK = """
import keras
from keras import layers


def build(num_classes, input_shape):
    assert input_shape == (2, 2, 2, 30), input_shape
    maps = layers.Input(input_shape)
    x = layers.Dense(8, activation="relu")(maps)
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(maps, {"logits": logits, "maps": x})
"""


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kdant_json(*args: object) -> dict:
    result = kdant(*args, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def features(record_folder: Path, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole frames of 64 pixels, maps of 4x6, up to 3 clips a segment, of the stem of `finished_run`."""
    out = tmp_path_factory.mktemp("stem") / "features"
    summary = kdant_json(
        "extract-features", record_folder, "--init", finished_run, "--out", out, "--windows", 3
    )
    assert summary["splits"]["train"]["labeled"] == 16
    assert summary["features"]["shape"] == [2, 4, 6, 30]
    assert summary["features"]["endpoint"] == "MaxPool3d_4a_3x3"
    return out


@pytest.fixture(scope="module")
def teacher(features: Path, finished_run: Path) -> Path:
    """A head with random weights, as `kdant train-teacher` would have left it."""
    out = Path(shutil.copytree(finished_run, features.parent / "teacher"))
    run = dataclasses.replace(load_run(out), features=Records.open(features).manifest.features)
    run.save()
    keras.utils.set_random_seed(0)
    shape = (8, 32, 32, 3)
    build_head(run.config, run.classes, shape, modality="rgb", load_weights=False).save(run.model_path)
    return out


@pytest.fixture(scope="module")
def student(features: Path, teacher: Path) -> Path:
    out = features.parent / "student"
    printed = kdant_json("distill", "--records", features, "--teacher", teacher, "--out", out, *STUDENT)
    assert np.isfinite(printed["final_loss"])
    return out


def test_a_head_learns_and_is_evaluated(features: Path, teacher: Path, student: Path) -> None:
    printed = kdant_json("evaluate", student, "--records", features)
    assert (printed["view"], printed["samples"]) == ("observed", 8)
    for run in (teacher, student):
        assert load_network(load_run(run)).name == "head"
        assert load_run(run).features == Records.open(features).manifest.features


def test_inspect_says_what_the_features_are(features: Path) -> None:
    shown = kdant("inspect", features, "--verify")
    assert shown.exit_code == 0, shown.stderr
    text = " ".join(shown.stdout.replace("│", " ").split())
    assert "MaxPool3d_4a_3x3 of I3D" in text
    assert "2x4x6x30" in text
    assert "at most 3 a segment" in text
    assert kdant_json("inspect", features)["features"]["windows"] == 3


def test_a_finished_head_is_restored_from_its_checkpoint(
    features: Path, teacher: Path, student: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(student, tmp_path / "student"))
    (run / "model.keras").unlink()
    kdant_json("distill", "--records", features, "--teacher", teacher, "--out", run, *STUDENT, "--resume")
    before, after = (load_network(load_run(folder)) for folder in (student, run))
    for old, new in zip(before.weights, after.weights, strict=True):
        np.testing.assert_array_equal(old, new, err_msg=old.path)


def test_the_logits_through_features_are_those_through_images(
    record_folder: Path, finished_run: Path, tmp_path: Path
) -> None:
    """With --crop N the stem sees what evaluation on frames sees; float16 is all that differs."""
    out = tmp_path / "cropped"
    kdant_json(
        "extract-features", record_folder, "--init", finished_run, "--out", out, "--windows", 3, "--crop", 32
    )
    run = load_run(finished_run)
    head = build_head(run.config, run.classes, (8, 32, 32, 3), modality="rgb", load_weights=False)
    network = load_network(run)
    by_path = {variable.path: variable for variable in network.weights}
    for variable in head.weights:
        variable.assign(by_path[variable.path])
    for view in ("observed", "future"):
        options = {"split": "test", "view": view, "batch_size": 8, "crop": 32, "windows": 3}
        images = list(evaluation_batches(Records.open(record_folder), **options).as_numpy_iterator())
        maps = list(evaluation_batches(Records.open(out), **options).as_numpy_iterator())
        assert len(images) == len(maps)
        for image_batch, map_batch in zip(images, maps, strict=True):
            np.testing.assert_array_equal(image_batch["index"], map_batch["index"])
            expected = network(image_batch["clip"])["logits"].numpy()
            found = head(map_batch["clip"])["logits"].numpy()
            assert np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()


def test_a_head_is_exported_with_its_stem(
    record_folder: Path, features: Path, student: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "served")
    printed = kdant_json("export", student, *out, "--records", record_folder, "--fold-batch-norm")
    assert printed["parity"]["clips"] == 4
    loaded = tf.saved_model.load(printed["folder"])
    frames = Records.open(record_folder)
    serialized = next(iter(tf.data.TFRecordDataset(frames.paths("test"))))
    _, segments = parse(frames, serialized, (OBSERVED,))
    clips = decode_clip(frames, segments[OBSERVED], 0)[None]
    answer = loaded.signatures["serving_default"](clips=clips)["probabilities"].numpy()
    options = {"split": "test", "view": OBSERVED, "batch_size": 1, "crop": 32, "windows": 3}
    first = next(iter(evaluation_batches(Records.open(features), **options)))
    expected = tf.nn.softmax(load_network(load_run(student))(first["clip"])["logits"]).numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    # Whole frames of any size are scaled to what the stem has seen, but in one request they have one size.
    encoded = loaded.signatures["encoded"]
    jpegs = [
        tf.io.encode_jpeg(frame).numpy() for frame in tf.cast(tf.image.resize(clips[0], (90, 60)), "uint8")
    ]
    assert encoded(frames=tf.constant([jpegs]))["probabilities"].shape == (1, 4)
    jpegs[3] = tf.io.encode_jpeg(np.zeros((64, 64, 3), np.uint8)).numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"have one shape.* for frame 3 of clip 0"):
        encoded(frames=tf.constant([jpegs]))


def test_a_head_whose_stem_is_elsewhere(features: Path, teacher: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(teacher, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    stem = config["features"]["source"]
    for change, options, message in (
        ({"source": "moved"}, (), "kdant export also takes the place where they lie, as --stem INIT"),
        ({"weights_sha256": "0" * 64}, ("--stem", stem), "features of another stem"),
    ):
        changed = {**config, "features": {**config["features"], **change}}
        (run / "config.json").write_text(json.dumps(changed))
        assert message in refuse("export", run, "--out", tmp_path / "served", *options)
    assert not (tmp_path / "served").exists()
    (run / "config.json").write_text(json.dumps(config))
    out = ("--out", tmp_path / "served")
    assert "Give the records of frames" in refuse("export", run, *out, "--records", features)


def test_build_records_with_features_leaves_no_frames(
    videos: Path, finished_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "direct"
    build = ("build-records", "--source", "csv", "--input", videos / "annotations.csv", "--limit", 2)
    args = (*build, "--short-side", 64, "--out", out, "--features", finished_run)
    summary = kdant_json(*args)
    assert summary["features"]["shape"] == [2, 4, 6, 30]
    names = {path.name for path in out.iterdir()}
    assert names == {"manifest.json", "train-00000-of-00001.tfrecord", "test-00000-of-00001.tfrecord"}
    assert kdant("inspect", out, "--verify").exit_code == 0
    assert kdant_json(*args, "--resume") == {**summary, "frames_decoded": 0}
    assert "finished data set with other options" in refuse(*args, "--resume", "--limit", 3)


def test_a_network_of_ones_own_sees_the_maps(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_of_maps.py").write_text(OWN_NETWORK)
    args = ("--records", features, "--model", "own_of_maps:build", *SMALL)
    kdant_json("train-teacher", "--out", "own", *args)
    assert kdant_json("evaluate", "own", "--records", features)["samples"] == 8


def test_networks_that_do_not_fit_the_features(features: Path, tmp_path: Path) -> None:
    training = ("train-teacher", "--records", features, "--out", tmp_path / "run", *SMALL)
    assert "`width` should be that of the features' I3D, 0.0625" in refuse(*training, "--width", 0.125)
    assert "`crop` should be at most 64" in refuse(*training, "--crop", 80)
    assert "`model` should be i3d" in refuse(*training, "--model", "tsn")
    (tmp_path / "early.toml").write_text('endpoint = "Mixed_3c"\n')
    assert "after the features" in refuse(*training, "--config", tmp_path / "early.toml")
    assert not (tmp_path / "run").exists()


def test_frames_for_a_head_and_features_for_a_network_of_frames(
    record_folder: Path, features: Path, finished_run: Path, teacher: Path, tmp_path: Path
) -> None:
    assert "sees frames" in refuse("evaluate", finished_run, "--records", features)
    maps = ("--pictures", "heat-maps", "--out", tmp_path / "pictures")
    message = refuse("visualize", teacher, "--records", record_folder, *maps)
    assert "sees the middle of larger maps of features" in message
    run = ("--records", record_folder, "--out", tmp_path / "run", *SMALL)
    assert "sees features" in refuse("distill", "--teacher", teacher, *run)
    assert "it is of another network" in refuse("train-teacher", "--init", teacher, *run)


def test_features_of_another_stem(features: Path, teacher: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(features, tmp_path / "other"))
    manifest = load_manifest(other)
    replaced = dataclasses.replace(manifest.features, weights_sha256="0" * 64)
    (other / "manifest.json").write_text(dataclasses.replace(manifest, features=replaced).to_json())
    assert "other weights. Use features of the same stem" in refuse("evaluate", teacher, "--records", other)


def test_what_no_features_can_be_made_of(
    record_folder: Path, features: Path, teacher: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    assert "has features already" in refuse("extract-features", features, "--init", "random", *out)
    replacing = ("--init", "random", "--out", record_folder.parent, "--overwrite")
    assert "should lie apart" in refuse("extract-features", record_folder, *replacing)
    assert "should hold a whole I3D" in refuse("extract-features", record_folder, "--init", teacher, *out)
    assert "a path that exists" in refuse("extract-features", record_folder, "--init", "nothing", *out)
    assert not (tmp_path / "out").exists()
