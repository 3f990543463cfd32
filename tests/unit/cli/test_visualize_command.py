"""kdant visualize on a network of one convolution: what is drawn and listed, and what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.evaluate import evaluate
from kdant_cli.visualize import visualize

from kdant_tf.runs import load_run, record_evaluation
from kdant_tf.visualization import PICTURES
from tf_records.schema import ClipSpec


def run(*args: object) -> Result:
    return CliRunner().invoke(visualize, [str(arg) for arg in args])


@pytest.fixture
def command(tiny_run: Path, record_folder: Path, tmp_path: Path) -> tuple[Path, ...]:
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    return folder, "--records", record_folder, "--out", tmp_path / "out"


@pytest.mark.slow
def test_all_that_can_be_drawn_is_drawn_and_the_rest_is_said(command):
    result = run(*command, "--samples", 1, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    kinds = [file["picture"] for file in printed["files"]]
    left_out = {each["picture"]: each["reason"] for each in printed["left_out"]}
    assert [kind for kind in PICTURES if kind in kinds or kind in left_out] == list(PICTURES)
    assert set(left_out) == {"earliness", "curves"}
    assert "Evaluate with --observe or --tau first" in left_out["earliness"]
    assert result.stderr.count("Left out") == 2
    assert {Path(file["path"]) for file in printed["files"]} == set(command[-1].iterdir())


@pytest.mark.slow
def test_the_table_names_each_file_and_what_is_there_is_kept_unless_told_otherwise(command):
    only = (*command, "--pictures", "confusion,reliability")
    result = run(*only)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"2 pictures in {command[-1]}" in result.stdout.replace("\n", "")
    assert "confusion_run.png" in result.stdout
    again = run(*only)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "is not empty" in again.stderr
    assert run(*only, "--overwrite").exit_code == 0


def test_wrong_usage_draws_nothing(command):
    for options, words in (
        (("--pictures", "heat"), "should be of heat-maps"),
        (("--ids", "a", "--samples", 2), "Choose one"),
        (("--targets", 5), "1<=x<=4"),
        (("--class", "fall", "--pictures", "heat-maps"), "--class goes with --pictures grad-cam"),
        (("--projection", "umap"), "'pca', 'tsne'"),
    ):
        result = run(*command, *options)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert words in " ".join(result.stderr.split())
    assert not command[-1].exists()


def test_what_was_asked_for_and_cannot_be_drawn_is_one_line(command):
    for options, words in (
        (("--pictures", "curves"), "No run has a metrics.csv"),
        (("--ids", "nothing"), "no sample with the id 'nothing'"),
    ):
        result = run(*command, *options, "--overwrite")
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_records_of_another_offset_have_to_be_insisted_on(command, edit_manifest, tmp_path):
    """Also where they were evaluated before: what is kept of them is not drawn unasked."""
    folder, _, records, *_ = command
    dataclasses.replace(load_run(folder), role="student", teacher="teacher").save()
    other = shutil.copytree(records, tmp_path / "other")
    edit_manifest(other, clip=ClipSpec(clip_frames=8, offset_frames=20))
    options = ("--records", other, "--out", tmp_path / "out", "--pictures", "confusion,earliness")
    evaluated = CliRunner().invoke(
        evaluate, [str(folder), "--records", str(other), "--insist", "--pictures", "--json"]
    )
    assert evaluated.exit_code == 0, evaluated.stderr
    refused = run(folder, *options)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "their clips have offset 20, the run's offset 16. Build records that fit" in refused.stderr
    assert not (tmp_path / "out").exists()
    options = (*options[:-1], "confusion")
    drawn = run(folder, *options, "--insist")
    assert drawn.exit_code == 0, drawn.stderr
    words = "their clips have offset 20, the run's offset 16"
    assert drawn.stderr == f"{folder} is not as it was trained: {words}.\n"
    printed = json.loads(run(folder, *options, "--insist", "--json", "--overwrite").stdout)
    assert printed["differences"] == {str(folder): [words]}


def test_a_curve_of_other_records_or_another_split_is_not_drawn_for_these(command, tmp_path):
    folder = command[0]
    points = [{"tau": tau_s, "value": 0.5, "low": 0.25, "high": 0.75} for tau_s in (0.5, 1.0)]
    for name in ("tau, val", "tau, records 1a2b3c4d"):
        record_evaluation(load_run(folder), name, {"split": "test", "top1": points})
    refused = run(*command, "--pictures", "earliness")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "on these records, yet" in refused.stderr
    record_evaluation(load_run(folder), "tau", {"split": "test", "top1": points})
    assert run(*command, "--pictures", "earliness", "--overwrite").exit_code == 0


@pytest.mark.slow
def test_grad_cam_looks_for_the_class_asked_for(command):
    only = (*command, "--pictures", "grad-cam", "--samples", 2, "--overwrite")
    pictures = []
    for options in ((), ("--class", "fall"), ("--class", "grow")):
        result = run(*only, *options)
        assert result.exit_code == 0, result.stderr
        pictures.append((command[-1] / "grad_cam.png").read_bytes())
    assert len(set(pictures)) == 3
    refused = run(*only, "--class", "groww")
    assert refused.exit_code == 1
    assert "has no class 'groww'. Did you mean 'grow'?" in refused.stderr
