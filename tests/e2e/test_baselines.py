"""The baselines and a network of one's own go the whole way that I3D goes, as a user types it."""

import functools
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main

SMALL = ("--crop", 32, "--batch-size", 8, "--epochs", 1, "--devices", "cpu")
OWN = """
import keras
from keras import layers


@keras.saving.register_keras_serializable("own")
class Half(layers.Layer):
    def call(self, x):
        return x / 2


def build(num_classes, input_shape):
    clip = layers.Input(input_shape)
    x = layers.Conv3D(6, (1, 7, 7), (2, 4, 4), padding="same", activation="relu", name="conv")(Half()(clip))
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "map": x})
"""
KINDS = {
    "tsn": ("--model", "tsn", "--tsn-backbone", "Tiny", "--segments", 2),
    "frame-mlp": ("--model", "frame-mlp", "--backbone", "Tiny", "--init", "random"),
    "own": ("--model", "own_network_for_e2e:build"),
}


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kdant_json(*args: object) -> dict:
    result = kdant(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refuse(*args: object) -> str:
    """Runs kdant, checks that it refuses properly, and returns the message."""
    result = kdant(*args)
    assert result.exit_code == 1, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (message,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    assert result.stderr.endswith(f"{message}\n")
    return message


def settings_of(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())["config"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, record_folder: Path, tiny_backbone: str) -> Path:
    """A folder with records, and a module of one's own, from which kdant is called."""
    folder = tmp_path_factory.mktemp("baselines")
    shutil.copytree(record_folder, folder / "records")
    (folder / "own_network_for_e2e.py").write_text(OWN)
    return folder


@pytest.fixture(autouse=True)
def inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name can be resolved, and Keras' cache is empty."""

    def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    get_file = functools.partial(keras.utils.get_file, cache_dir=str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    monkeypatch.setattr(socket, "getaddrinfo", fail)


def type_in_a_shell(folder: Path, *args: object) -> dict:
    """Runs the installed command in a process of its own, which has not the current folder on its path."""
    script = "import sys; sys.path.remove(''); from kdant_cli.main import main; main(prog_name='kdant')"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args), "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(home: Path) -> dict[str, Path]:
    """A teacher of each kind, by its name; the tiny backbone is known in this process alone."""
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for kind, options in KINDS.items():
            training = ("train-teacher", "--records", "records", "--out", kind, *options, *SMALL)
            printed = type_in_a_shell(home, *training) if kind == "own" else kdant_json(*training)
            assert printed["run"] == kind
            assert printed["epochs"] == 1
            assert np.isfinite(printed["final_loss"])
            runs[kind] = home / kind
    return runs


def test_config_json_says_what_was_asked_for(trained: dict[str, Path]) -> None:
    tsn, frame_mlp, own = (settings_of(run) for run in trained.values())
    assert (tsn["model"], tsn["backbone"], tsn["segments"], tsn["init"]) == ("tsn", "Tiny", 2, None)
    assert (frame_mlp["model"], frame_mlp["init"]) == ("frame-mlp", "random")
    assert (own["model"], own["projection"]) == ("own_network_for_e2e:build", False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_any_kind_is_evaluated_and_served_alike(
    trained: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    from kdant_tf.models.networks import load_network
    from kdant_tf.runs import load_run
    from tf_records.reader import evaluation_batches
    from tf_records.records import Records
    from tf_records.schema import FUTURE_IMAGES

    printed = kdant_json("evaluate", trained[kind], "--records", "records")
    assert (printed["samples"], printed["view"], printed["top5"]) == (8, "future", 1.0)
    result = kdant("export", trained[kind], "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    batches = evaluation_batches(
        Records.open("records"), split="test", view="future", batch_size=1, crop=32, windows=1
    )
    logits = load_network(load_run(trained[kind]))(next(iter(batches))["clip"])["logits"]
    (shard,) = Path("records").glob("test-*.tfrecord")
    first = next(iter(tf.data.TFRecordDataset(str(shard))))
    frames = (
        tf.train.SequenceExample.FromString(first.numpy()).feature_lists.feature_list[FUTURE_IMAGES].feature
    )
    middle = (len(frames) - 8) // 2
    clip = [
        tf.io.decode_jpeg(frame.bytes_list.value[0], dct_method="INTEGER_ACCURATE")
        for frame in frames[middle : middle + 8]
    ]
    served = serve(clips=tf.stack(clip)[None])["probabilities"]
    np.testing.assert_allclose(served, tf.nn.softmax(logits), atol=1e-5)


def test_a_student_takes_over_the_teachers_model_and_learns_its_features(trained: dict[str, Path]) -> None:
    distill = (
        "distill",
        "--records",
        "records",
        "--teacher",
        trained["tsn"],
        *SMALL,
        "--feature-weight",
        0.01,
    )
    assert np.isfinite(kdant_json(*distill, "--out", "student")["final_loss"])
    student = settings_of(Path("student"))
    assert (student["model"], student["backbone"], student["segments"]) == ("tsn", "Tiny", 2)
    assert kdant_json("evaluate", "student", "--records", "records")["view"] == "observed"
    assert not Path("student/projection.keras").exists()


def test_a_student_of_another_model_needs_a_projection_and_says_so(trained: dict[str, Path]) -> None:
    distill = ("distill", "--records", "records", "--teacher", trained["tsn"], "--out", "projected", *SMALL)
    other = (
        "--model",
        "own_network_for_e2e:build",
        "--feature-loss",
        "unidirectional",
        "--feature-weight",
        0.01,
    )
    assert "6 and 8" in refuse(*distill, *other)
    assert "position by position" in refuse(*distill, *other, "--projection", "--feature-loss", "direct")
    assert np.isfinite(kdant_json(*distill, *other, "--projection")["final_loss"])
    assert settings_of(Path("projected"))["projection"] is True
    assert Path("projected/projection.keras").is_file()


def test_a_run_is_where_another_begins(trained: dict[str, Path]) -> None:
    """At a rate of nearly nothing it stays where it began."""
    options = ("--model", "own_network_for_e2e:build", "--init", trained["own"], "--learning-rate", 1e-12)
    kdant_json("train-teacher", "--records", "records", "--out", "further", *options, *SMALL, "--seed", 3)
    before, after = (
        keras.saving.load_model(run / "model.keras").get_weights()
        for run in (trained["own"], Path("further"))
    )
    for left, right in zip(before, after, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-7)


def test_kinetics_offline_is_refused_in_one_line_and_leaves_the_run_that_was_there(
    trained: dict[str, Path], offline: None, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained["own"], tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    training = (
        "train-teacher",
        "--records",
        "records",
        "--out",
        run,
        "--init",
        "kinetics",
        "--overwrite",
        *SMALL,
    )
    message = refuse(*training)
    assert "rgb_imagenet weights could not be downloaded" in message
    assert "--init" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "Use --width 1" in refuse(*training, "--width", 0.0625)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_frame_mlp_whose_backbone_cannot_be_downloaded_is_refused(offline: None, tmp_path: Path) -> None:
    options = ("--model", "frame-mlp", "--backbone", "MobileNetV2", *SMALL)
    message = refuse("train-teacher", "--records", "records", "--out", tmp_path / "run", *options)
    assert "ImageNet weights of MobileNetV2 could not be downloaded" in message
    assert "--init random" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--model", "resnet"),
            "should be one of i3d, tsn, frame-mlp, features3d, or MODULE:FUNCTION",
        ),
        (("--model", "absent_module:build"), "cannot be imported"),
        (("--model", "own_network_for_e2e:absent"), "has no attribute 'absent'"),
        (("--model", "own_network_for_e2e:Half"), "failed: TypeError: "),
        (("--model", "tsn", "--init", "kinetics"), "`init` should be one of random, imagenet"),
        (("--init", "imagenet"), "`init` should be one of random, kinetics"),
        ((*KINDS["own"], "--init", "absent"), "a path that exists"),
        ((*KINDS["own"], "--init", "records"), "should have one checkpoint"),
        (("--model", "tsn", "--backbone", "VGG16"), "`backbone` should be one of ResNet50"),
        (("--model", "tsn", "--segments", 9), "at most the 8 frames"),
        (("--segments", 0), "`segments` should be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    training = ("train-teacher", "--records", "records", "--out", tmp_path / "run", *SMALL)
    assert words in refuse(*training, *options)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("options", [("--segments", "two"), ("--projection",), ("--feature-loss", "none")])
def test_options_that_a_teacher_does_not_have_are_wrong_usage(options: tuple[str, ...]) -> None:
    assert kdant("train-teacher", "--records", "records", "--out", "none", *options).exit_code == 2
