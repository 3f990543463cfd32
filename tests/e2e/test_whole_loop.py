"""The five commands on rendered videos, as a user types them, and what each leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main
from tiny_network import OPTION as TINY

SMALL = ("--width", "0.0625", "--crop", "32", "--batch-size", "8")
FAST_STATISTICS = "batch_norm_momentum = 0.5\nfeature_weight = 1.0\n"


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kdant_json(*args: object) -> dict:
    result = kdant(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def records(tmp_path_factory, videos: Path) -> Path:
    out = tmp_path_factory.mktemp("loop") / "records"
    options = ("--offset-frames", 16, "--short-side", 64, "--shards", 2)
    summary = kdant_json(
        "build-records", "--source", "csv", "--input", videos / "annotations.csv", "--out", out, *options
    )
    assert summary["splits"]["train"]["labeled"] == 16
    assert summary["splits"]["train"]["unlabeled"] == 4
    assert summary["splits"]["train"]["shards"] == 2
    assert summary["splits"]["test"]["labeled"] == 8
    assert summary["classes"] == ["fall", "grow", "rise", "shrink"]
    assert summary["skipped"] == []
    return out


@pytest.fixture(scope="module")
def small(records: Path) -> tuple[str, ...]:
    """Options of a network whose moving statistics arrive within the few steps of a test."""
    config = records.parent / "fast.toml"
    config.write_text(FAST_STATISTICS)
    return (*SMALL, "--config", str(config))


@pytest.fixture(scope="module")
def teacher(records: Path, small: tuple[str, ...]) -> Path:
    out = records.parent / "teacher"
    printed = kdant_json("train-teacher", "--records", records, "--out", out, "--epochs", 1, *small)
    assert printed["run"] == str(out)
    assert printed["epochs"] == 1
    assert np.isfinite(printed["final_loss"])
    assert printed["clips_per_second"] > 0
    return out


@pytest.fixture(scope="module")
def student(records: Path, teacher: Path) -> Path:
    out = records.parent / "student"
    options = ("--epochs", 1, "--batch-size", 8, "--label-fraction", 0.5, "--feature-weight", 0.1)
    printed = kdant_json("distill", "--records", records, "--teacher", teacher, "--out", out, *options)
    assert np.isfinite(printed["final_loss"])
    return out


@pytest.fixture(scope="module")
def serve(records: Path, student: Path) -> Callable[..., dict[str, tf.Tensor]]:
    """What a server answers with, of the student's export."""
    result = kdant("export", student, "--out", records.parent / "served")
    assert result.exit_code == 0, result.stderr
    return tf.saved_model.load(str(records.parent / "served" / "1")).signatures["serving_default"]


def test_a_run_folder_holds_what_the_design_promises(teacher: Path) -> None:
    names = {path.name for path in teacher.iterdir()}
    assert {"config.json", "model.keras", "checkpoints", "metrics.csv", "curves.png", "tensorboard"} <= names
    assert not [name for name in names if name.startswith(".tmp")]
    assert len((teacher / "metrics.csv").read_text().splitlines()) == 2
    config = json.loads((teacher / "config.json").read_text())
    assert config["config"]["width"] == 0.0625
    assert config["versions"]["tensorflow"] == tf.__version__
    assert list((teacher / "tensorboard").glob("events.*"))


def test_a_student_takes_over_the_teachers_width_and_crop(student: Path) -> None:
    config = json.loads((student / "config.json").read_text())["config"]
    assert (config["width"], config["crop"], config["feature_loss"]) == (0.0625, 32, "bidirectional")


@pytest.mark.parametrize(("network", "view"), [("teacher", "future"), ("student", "observed")])
def test_evaluate_shows_each_network_its_own_view(request, records: Path, network: str, view: str) -> None:
    run = request.getfixturevalue(network)
    printed = kdant_json("evaluate", run, "--records", records)
    low, high = printed["top1_interval"]
    assert 0 <= low <= printed["top1"] <= high <= 1
    assert sum(map(sum, printed["confusion"])) == printed["samples"] == printed["videos"]
    assert printed["view"] == view
    assert printed["samples"] == 8
    assert 0 <= printed["top1"] <= printed["top5"] == 1.0
    assert json.loads((run / "evaluation.json").read_text())[view]["top1"] == printed["top1"]


def test_evaluate_prints_a_table_and_takes_another_view(records: Path, teacher: Path) -> None:
    result = kdant("evaluate", teacher, "--records", records, "--view", "observed")
    assert result.exit_code == 0, result.stderr
    assert "top-1" in result.stdout
    assert "observed" in result.stdout


def test_export_serves_uint8_clips_of_any_size(serve: Callable[..., dict[str, tf.Tensor]]) -> None:
    for height, width in ((64, 88), (90, 50)):
        clips = np.random.default_rng(0).integers(0, 255, (2, 8, height, width, 3), dtype=np.uint8)
        probabilities = serve(clips=tf.constant(clips))["probabilities"].numpy()
        assert probabilities.shape == (2, 4)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_the_exported_model_says_what_evaluation_says(
    records: Path, student: Path, serve: Callable[..., dict[str, tf.Tensor]]
) -> None:
    from kdant_tf.models.networks import load_network
    from kdant_tf.runs import load_run
    from tf_records.reader import evaluation_batches
    from tf_records.records import Records
    from tf_records.schema import OBSERVED_IMAGES

    batches = evaluation_batches(
        Records.open(records), split="test", view="observed", batch_size=1, crop=32, windows=1
    )
    expected = tf.nn.softmax(load_network(load_run(student))(next(iter(batches))["clip"])["logits"])
    first = next(iter(tf.data.TFRecordDataset(str(records / "test-00000-of-00002.tfrecord"))))
    frames = tf.train.SequenceExample.FromString(first.numpy()).feature_lists.feature_list[OBSERVED_IMAGES]
    decode = [tf.io.decode_jpeg(f.bytes_list.value[0], dct_method="INTEGER_ACCURATE") for f in frames.feature]
    served = serve(clips=tf.stack(decode)[None])["probabilities"]
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_a_resumed_training_ends_like_one_that_was_not_interrupted(
    records: Path, stopped_after_first_epoch: Callable[..., Path]
) -> None:
    whole = records.parent / "whole"
    training = ("train-teacher", "--records", records, "--epochs", 2, *TINY, *SMALL[2:])
    kdant_json(*training, "--out", whole)
    out = stopped_after_first_epoch(whole, records.parent / "resumed")
    (out / "metrics.csv").unlink()  # which the checkpoint brings
    kdant_json(*training, "--out", out, "--resume")
    assert (out / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert (out / "model.keras").is_file()


def test_resume_refuses_other_settings(records: Path, teacher: Path, small: tuple[str, ...]) -> None:
    result = kdant("train-teacher", "--records", records, "--out", teacher, "--seed", 5, *small, "--resume")
    assert result.exit_code == 1
    assert "seed 0 → 5" in result.stderr


def test_two_logical_cpu_devices_train(records: Path, tiny_run: Path) -> None:
    out = records.parent / "two-devices"
    loss = ("--feature-loss", "direct", "--feature-weight", 0.1)
    options = (*TINY, "--devices", "cpu:2", "--epochs", 1, "--batch-size", 8, *loss)
    printed = kdant_json("distill", "--records", records, "--teacher", tiny_run, "--out", out, *options)
    assert np.isfinite(printed["final_loss"])


def test_jhmdb_runs_through_with_real_video(tmp_path: Path, jhmdb: Path) -> None:
    records, run = tmp_path / "records", tmp_path / "run"
    source = ("--source", "jhmdb", "--input", jhmdb, "--classes", "golf,walk", "--short-side", "64")
    summary = kdant_json("build-records", *source, "--out", records)
    assert summary["splits"]["train"]["labeled"] == 59
    kdant_json("train-teacher", "--records", records, "--out", run, "--epochs", 1, *TINY, *SMALL[2:])
    printed = kdant_json("evaluate", run, "--records", records)
    assert printed["samples"] == summary["splits"]["test"]["labeled"]


def test_the_tiny_demo_runs_and_leaves_its_pictures(tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-c", "from kdant_cli.main import main; main(prog_name='kdant')"]
    done = subprocess.run(
        [*command, "demo", "--size", "tiny", "--out", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("teacher", "student none", "student direct", "student bidirectional", "Next:"):
        assert name in done.stdout
    for picture in ("curves.png", "heat_maps.png"):
        assert (tmp_path / "demo" / "pictures" / picture).stat().st_size > 10_000
    assert "Traceback" not in done.stderr
    assert "oneDNN" not in done.stderr
