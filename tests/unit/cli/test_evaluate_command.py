"""kdant evaluate on a network of one convolution: table, JSON, curves, and what it refuses."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.evaluate import evaluate

from kdant_tf.models.inference import ENGINES, OPENVINO
from kdant_tf.runs import load_run
from tf_records.schema import PER_CLIP, ClipSpec, FeatureInfo


def run(*args: object) -> Result:
    return CliRunner().invoke(evaluate, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def command(
    tiny_run: Path, record_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    """The run and its records, as arguments."""
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("evaluate") / "run")
    return folder, "--records", record_folder


@pytest.mark.slow
def test_json_has_one_object_with_the_numbers_of_the_table(command):
    result = run(*command, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    printed = json.loads(result.stdout)
    assert sorted(printed) == [
        *("classes", "confusion", "engine", "expected_calibration_error", "many_shot_mean_top5_recall"),
        *("mean_class_accuracy", "mean_class_accuracy_interval", "mean_top5_recall"),
        *("negative_log_likelihood", "per_class", "precision", "samples", "split", "top1", "top1_interval"),
        "top5",
        *("top5_interval", "videos", "view"),
    ]
    assert (printed["view"], printed["split"], printed["samples"]) == ("future", "test", 8)
    assert printed["classes"] == ["fall", "grow", "rise", "shrink"]
    table = run(*command, "--per-class")
    assert (table.exit_code, table.stderr) == (0, "")
    low, high = printed["top1_interval"]
    assert f"{100 * printed['top1']:.1f} %  ({100 * low:.1f} to {100 * high:.1f} %)" in table.stdout
    assert "on the future segments of" in table.stdout
    for entry in printed["per_class"]:
        assert f"│ {entry['name']} " in table.stdout


@pytest.mark.slow
def test_a_student_is_added_to_itself_and_another_view_is_kept_beside(command):
    printed = json.loads(run(*command, "--with", command[0], "--view", "observed", "--json").stdout)
    alone = json.loads(run(*command, "--view", "observed", "--json").stdout)
    assert printed["top1"] == alone["top1"]
    kept = json.loads((command[0] / "evaluation.json").read_text())
    assert {"observed", "observed, fused"} <= set(kept)


def test_what_does_not_go_together_is_a_usage_error_before_anything_is_read(tmp_path):
    command = (tmp_path / "none", "--records", tmp_path)
    for options, words in (
        (("--observe", "0.5", "--tau", "1"), "--observe, --tau, --streaming go neither together"),
        (("--tau", "1", "--view", "future"), "nor with --with or --view"),
        (("--streaming", "--tau", "1"), "--observe, --tau, --streaming go neither together"),
        (("--latency-ms", "50"), "--latency-ms goes with --streaming"),
        (("--streaming", "--latency-ms", "-1"), "milliseconds, at least 0, or measured"),
        (("--pictures", "--observe", "0.5"), "--pictures goes with none of"),
        ((tmp_path / "other",), "Several RUN go with --streaming"),
        (("--with", tmp_path, "--fusion-weights", "1"), "should be 2 numbers, one a run. Received: 1"),
        (("--observe", "1.5"), "should be shares above 0 up to 1"),
        (("--tau", "-1"), "should be seconds, at least 0"),
    ):
        result = run(*command, *options)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert words in " ".join(result.stderr.split())


def test_what_a_user_can_mend_is_one_line(command, tmp_path):
    for args, words in (
        ((tmp_path / "none", *command[1:]), "does not exist"),
        ((command[0], "--records", tmp_path), "manifest.json"),
        ((*command, "--split", "val"), "no records in split 'val'"),
        ((*command, "--tau", "1"), "Build them with --longest-anticipation-s 1"),
        ((*command, "--observe", "0.5"), "whose test samples are whole videos"),
    ):
        result = run(*args)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert words in result.stderr
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_features_of_whole_clips_show_no_share_of_a_video(command, edit_manifest, tmp_path):
    run_folder, _, records = command
    shutil.copytree(records, tmp_path / "features")
    of_clips = FeatureInfo(shape=(2, 7, 7, 8), source="imagenet", per=PER_CLIP, endpoint="conv", windows=1)
    edit_manifest(tmp_path / "features", options={"observed_fraction": 0.2}, features=of_clips)
    refused = run(run_folder, "--records", tmp_path / "features", "--observe", "0.2,1")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "has features of whole clips, which show no share of a video" in refused.stderr


@pytest.mark.slow
def test_records_of_another_offset_have_to_be_insisted_on(command, edit_manifest, tmp_path):
    run_folder, _, records = command
    student = shutil.copytree(run_folder, tmp_path / "student")
    dataclasses.replace(load_run(student), role="student", teacher="teacher").save()
    shutil.copytree(records, tmp_path / "records")
    edit_manifest(tmp_path / "records", clip=ClipSpec(clip_frames=8, offset_frames=20))
    other = (student, "--records", tmp_path / "records")
    refused = run(*other)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "their clips have offset 20, the run's offset 16" in refused.stderr
    table = run(*other, "--insist")
    assert table.exit_code == 0, table.stderr
    assert "not as trained" in table.stdout
    printed = json.loads(run(*other, "--insist", "--json").stdout)
    assert printed["differences"] == ["their clips have offset 20, the run's offset 16"]


@pytest.mark.slow
def test_what_was_computed_is_printed_also_where_it_cannot_be_kept(command, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kdant_tf.evaluation.evaluate.save_predictions", refuse)
    result = run(*command, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["samples"] == 8
    assert f"computed but cannot be kept in {command[0]}: No space left on device. Make" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_every_engine_says_nearly_the_same_and_is_noted(command, engine, precision, tolerance):
    if engine == OPENVINO:
        pytest.importorskip("openvino")
    folder = command[0]
    expected = json.loads(run(*command, "--json").stdout)["negative_log_likelihood"]
    result = run(*command, "--engine", engine, "--precision", precision, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["engine"], printed["precision"]) == (engine, precision)
    assert printed["negative_log_likelihood"] == pytest.approx(expected, abs=tolerance)
    kept = json.loads((folder / "evaluation.json").read_text())["future"]
    assert (kept["engine"], kept["precision"]) == (engine, precision)
    if (engine, precision) == (ENGINES[0], "float32"):
        assert (result.stderr, "engine_difference" in kept) == ("", False)
    else:
        assert 0 <= kept["engine_difference"] <= tolerance
        assert f"run {folder}: engine {engine}, {precision}; probabilities of 2 drawn clips" in result.stderr


@pytest.mark.slow
def test_a_network_that_an_engine_gets_wrong_is_not_evaluated(command, monkeypatch):
    def make_wrong(*args, **kwargs):
        return lambda clips: {"probabilities": np.full((len(clips), 4), 0.25)}

    monkeypatch.setattr("kdant_tf.models.inference.freeze", make_wrong)
    before = (command[0] / "evaluation.json").read_bytes()
    result = run(*command, "--precision", "bfloat16")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "differs by" in result.stderr
    assert result.stderr.endswith("Leave --engine and --precision out.\n")
    assert (command[0] / "evaluation.json").read_bytes() == before
    monkeypatch.setattr("kdant_tf.models.inference.freeze", lambda *args: 1 / 0)
    result = run(*command, "--precision", "bfloat16")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "The engine tensorflow cannot compute run" in result.stderr


def test_the_extra_that_is_missing_is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run(tmp_path / "none", "--records", tmp_path, "--engine", "openvino")
    assert (result.exit_code, result.stdout) == (1, "")
    assert 'Install what it needs: pip install "kdant-tf[openvino]".' in result.stderr
