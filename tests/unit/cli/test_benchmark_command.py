"""kdant benchmark, as far as nothing is timed: usage, tables and JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kdant_cli.benchmark import benchmark, print_times

from kdant_tf.serving.benchmark import CallTimes, ThreadTimes


def test_tables(capsys: pytest.CaptureFixture[str]):
    seconds: Any = {"model": "served", "batch_size": 4, "seconds": (0.1, 0.2)}
    rows = [
        CallTimes(signature="encoded", shares={"decode": 0.25, "compute": 0.75}, ratio=None, **seconds),
        CallTimes(signature="features", shares={}, ratio=1.5, **seconds),
    ]
    threads = ThreadTimes(model="served", threads=8, alone=2.0, together=3.0, largest_difference=0.0)
    print_times(rows, [threads], "frames of 48 x 40", as_json=False)
    printed = capsys.readouterr().out
    for cell in ("encoded", "100.0", "200.0", "26.7", "1.50", "25.0 %", "75.0 %", "3.0", "frames of 48 x 40"):
        assert cell in printed


def test_json_holds_percentiles_and_threads(capsys: pytest.CaptureFixture[str]):
    times = CallTimes(
        model="served", signature="encoded", batch_size=4, seconds=(0.1, 0.2), shares={"a": 1.0}, ratio=None
    )
    threads = ThreadTimes(model="served", threads=8, alone=2.0, together=3.0, largest_difference=0.0)
    print_times([times], [threads], "frames of 48 x 40", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["clips"] == "frames of 48 x 40"
    assert set(printed["hardware"]) >= {"cpu", "cores"}
    (row,) = printed["rows"]
    assert (row["p50_s"], row["p99_s"], row["clips_per_second"]) == (0.1, 0.2, pytest.approx(8 / 0.3))
    assert printed["threads"][0]["together"] == 3.0


@pytest.mark.parametrize(
    "options",
    [
        ("--batch-sizes", "0"),
        ("--batch-sizes", "a"),
        ("--frame", "320"),
        ("--frame", "0x10"),
        ("--threads", "1"),
        ("--server", "a:1", "--constants"),
        ("--server", "a:1", "--precision", "bfloat16"),
        ("--engine", "tensorflow,onnx"),
        ("--precision", "int8"),
    ],
    ids=" ".join,
)
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...]):
    assert CliRunner().invoke(benchmark, [str(tmp_path), *options]).exit_code == 2


def test_one_model_is_timed_once(tmp_path: Path):
    result = CliRunner().invoke(benchmark, [str(tmp_path), str(tmp_path)])
    assert result.exit_code == 2
    assert "was given twice" in result.stderr


def test_a_folder_without_a_model(tmp_path: Path):
    result = CliRunner().invoke(benchmark, [str(tmp_path)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds neither" in result.stderr


def test_a_network_that_was_put_in_the_runs_place_is_told(swapped_run: Path) -> None:
    result = CliRunner().invoke(benchmark, [str(swapped_run), "--repeats", "1", "--batch-sizes", "1"])
    assert result.exit_code == 0, result.stderr
    assert f"Warning: run {swapped_run} has another model.keras" in result.stderr
