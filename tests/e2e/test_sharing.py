"""A run is packed as one file, and another person evaluates it and goes on from it."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

import kdant_tf as kdant
from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.weights import initialize
from tf_records.errors import RunError


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def packed(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDANT_CACHE", str(out / "cache"))
        result = run("export", finished_run, "--format", "run-archive", "--out", out, "--json")
        assert result.exit_code == 0, result.stderr
        yield json.loads(result.stdout)


def test_an_archive_holds_a_run_without_this_machines_paths(packed: dict, finished_run: Path) -> None:
    path = Path(packed["path"])
    assert path.name == f"{finished_run.name}.zip"
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == sorted(packed["files"])
        texts = [archive.read(name).decode() for name in packed["files"] if name.endswith((".json", ".md"))]
    assert {"config.json", "model.keras", "labels.txt", "model_card.md"} <= set(packed["files"])
    assert not [text for text in texts if str(finished_run.parent) in text]
    again = run("export", finished_run, "--format", "run-archive", "--out", path)
    assert again.exit_code == 1
    assert again.stderr == f"Error: {path} exists already. Choose another --out, or remove it.\n"


def test_the_archive_evaluates_as_the_run_does(packed: dict, finished_run: Path, record_folder: Path) -> None:
    results = [
        run("evaluate", which, "--records", record_folder, "--json")
        for which in (finished_run, f"{packed['path']}#sha256={packed['sha256']}")
    ]
    assert [result.exit_code for result in results] == [0, 0], results[1].stderr
    own, shared = (json.loads(result.stdout) for result in results)
    assert own["top1"] == shared["top1"]
    assert own["negative_log_likelihood"] == shared["negative_log_likelihood"]


def test_training_goes_on_from_an_archive(packed: dict, finished_run: Path) -> None:
    shared, own = kdant.load_run(packed["path"]), kdant.load_run(finished_run)
    assert (shared.classes, shared.config, shared.clip) == (own.classes, own.config, own.clip)
    fresh = build_i3d(len(own.classes), (8, 32, 32, 3), width=0.0625)
    initialize(fresh, packed["path"], modality="rgb", classes=own.classes)
    for variable, expected in zip(fresh.weights, own.model.weights, strict=True):
        np.testing.assert_array_equal(variable, expected)


def test_another_archive_than_the_one_asked_for_is_refused(packed: dict, record_folder: Path) -> None:
    result = run("evaluate", f"{packed['path']}#sha256={'0' * 64}", "--records", record_folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is another file than the one asked for: its sha256 is " in result.stderr
    assert result.stderr.count("\n") == 1
    with pytest.raises(RunError, match="is another file"):
        kdant.load_run(f"{packed['path']}#sha256={'0' * 64}")


def test_options_of_other_formats_are_refused(finished_run: Path, tmp_path: Path) -> None:
    result = run("export", finished_run, "--format", "run-archive", "--out", tmp_path, "--version", 2)
    assert result.exit_code == 2
    assert "--version is not for --format run-archive." in result.stderr
