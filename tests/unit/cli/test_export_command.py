"""kdant export: usage, what it hands on, and what it prints of an export."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kdant_cli.export import export

from kdant_tf.serving import export as exporting
from kdant_tf.serving.export import Exported, Parity

TENSOR = {"clips": {"dtype": "uint8", "shape": [None, 8, None, None, 3]}}
CONFIG = {
    "format": "savedmodel",
    "precision": "float32",
    "classes": ["clap", "golf"],
    "anticipates": True,
    "offset_s": 0.5,
    "signatures": {"serving_default": {"inputs": TENSOR, "outputs": {"probabilities": {}}}},
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the library's export_run is called with; it answers as if it had exported."""
    kept: dict[str, Any] = {"config": dict(CONFIG), "no_warm_up": None}

    def export_run(run: Any, out: Path, **settings: Any) -> Exported:
        kept.update(settings, run=run, out=out)
        tried = {"clips": 2, "source": "drawn clips", "difference": 2e-7, **kept.get("parity", {})}
        parity = Parity(latency_ms={"serving_default": 12.34}, **tried)
        return Exported(
            folder=out / "1",
            config=kept["config"],
            bytes=1_500_000,
            parity=parity,
            no_warm_up=kept["no_warm_up"],
        )

    monkeypatch.setattr(exporting, "export_run", export_run)
    return kept


def run(*args: object) -> Result:
    return CliRunner().invoke(export, [str(arg) for arg in args])


def test_options_are_handed_on(given: dict[str, Any], tiny_run: Path, tmp_path: Path) -> None:
    other = ("--with", tiny_run, "--fusion-weights", "1,1.5", "--stem", "kinetics")
    result = run(tiny_run, "--out", tmp_path, "--version", 3, *other, "--fold-batch-norm", "--batching")
    assert result.exit_code == 0, result.stderr
    assert given["run"].folder == given["other"].folder == tiny_run
    assert (given["out"], given["version"], given["weights"]) == (tmp_path, 3, (1.0, 1.5))
    assert (given["stem"], given["records"]) == ("kinetics", None)
    assert given["fold_batch_norm"] is given["batching"] is True
    assert "--enable_batching" in " ".join(result.stdout.replace("│", " ").split())


def test_a_table_says_what_was_written(given: dict[str, Any], tiny_run: Path, tmp_path: Path) -> None:
    printed = " ".join(run(tiny_run, "--out", tmp_path).stdout.replace("│", " ").split())
    for words in (
        "1.5 MB",
        "clips: uint8 (?, 8, ?, ?, 3) → probabilities; 12.3 ms a clip",
        "0.5 s from the first frame of a clip",
        "clap, golf",
        "by at most 2e-07 in a probability; tried: 2 drawn clips",
        "a request of each signature",
    ):
        assert words in printed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anticipates": False}, "none: it names what it sees"),
        ({"offset_s": None}, "the run knows no frame rate"),
    ],
)
def test_what_is_said_of_the_offset(
    given: dict[str, Any], tiny_run: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    given["config"].update(changes)
    assert words in " ".join(run(tiny_run, "--out", tmp_path).stdout.replace("│", " ").split())


def test_json_is_one_object(given: dict[str, Any], tiny_run: Path, tmp_path: Path) -> None:
    given["no_warm_up"] = "none was written"
    printed = json.loads(run(tiny_run, "--out", tmp_path, "--json").stdout)
    assert printed["folder"] == str(tmp_path / "1")
    assert printed["classes"] == ["clap", "golf"]
    assert printed["parity"]["latency_ms"] == {"serving_default": 12.34}
    assert (printed["bytes"], printed["no_warm_up"]) == (1_500_000, "none was written")


@pytest.mark.parametrize(
    "options",
    [
        ("--fusion-weights", "1,1"),
        ("--with", ".", "--fusion-weights", "1"),
        ("--version", "0"),
        ("--out", "s3://a"),
    ],
    ids=" ".join,
)
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run(tmp_path, "--out", tmp_path, *options).exit_code == 2


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    result = run(tmp_path, "--out", tmp_path / "served")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is no run folder" in result.stderr
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize("option", ["--fold-batch-norm", "--batching"])
def test_what_a_savedmodel_alone_has(
    given: dict[str, Any], tiny_run: Path, tmp_path: Path, option: str
) -> None:
    result = run(tiny_run, "--out", tmp_path, "--format", "onnx", option)
    assert result.exit_code == 2
    assert f"{option} is for --format savedmodel. Received: --format onnx." in " ".join(result.stderr.split())
    assert run(tiny_run, "--out", tmp_path, "--format", "onnx").exit_code == 0
    assert given["format"] == "onnx"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--format", "onnx", "--precision", "bfloat16"),
            "bfloat16 is for the format savedmodel or openvino",
        ),
        (("--format", "onnx", "--precision", "int8"), "--calibration RECORDS go together"),
        (("--calibration", "records"), "--calibration RECORDS go together. Received: --precision float32"),
    ],
)
def test_precisions_that_do_not_fit(
    given: dict[str, Any], tiny_run: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = run(tiny_run, "--out", tmp_path, *options)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_what_a_precision_costs_is_printed(given: dict[str, Any], tiny_run: Path, tmp_path: Path) -> None:
    costs = {"logit_difference": 0.25, "same_top1": 0.95, "accuracy": 0.7, "run_accuracy": 0.725}
    given["parity"] = {"clips": 80, "source": "clips of records", "difference": 0.06, **costs}
    options = ("--format", "onnx", "--precision", "int8", "--calibration", "records")
    printed = " ".join(run(tiny_run, "--out", tmp_path, *options).stdout.replace("│", " ").split())
    assert given["precision"] == "int8"
    for words in (
        "by at most 0.06 in a probability, 0.2 in a logit; tried: 80 clips of records, 95.0 % named alike",
        "70.0 % rightly against 72.5 %",
    ):
        assert words in printed


def test_a_network_that_was_put_in_the_runs_place_is_told(
    given: dict[str, Any], tiny_run: Path, swapped_run: Path, tmp_path: Path
) -> None:
    assert "Warning" not in run(tiny_run, "--out", tmp_path).stderr
    result = run(tiny_run, "--out", tmp_path, "--with", swapped_run)
    assert result.exit_code == 0, result.stderr
    assert f"Warning: run {swapped_run} has another model.keras" in result.stderr
