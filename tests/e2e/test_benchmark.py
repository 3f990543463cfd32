"""`kdant benchmark`: what it tells of runs, exports and servers. How fast they are is no test's business."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main
from model_server import GrpcServer, RestServer, ServedModel

from kdant_tf.serving import benchmark as benchmarking

SMALL = ("--batch-sizes", "2", "--repeats", "2", "--frame", "48x40")
SIGNATURES = {"serving_default", "encoded", "features"}


def benchmark(*args: object) -> Result:
    return CliRunner().invoke(main, ["benchmark", *map(str, args)])


def benchmark_json(*args: object) -> dict:
    result = benchmark(*args, *SMALL, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """Loading and tracing take longer than all that is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarking, "open_local", functools.cache(benchmarking.open_local))
        yield


def test_a_run_and_its_export_in_one_go(exported: Path, tiny_run: Path):
    printed = benchmark_json(tiny_run, exported, "--threads", 8)
    rows = {(row["model"], row["signature"], row["batch_size"]): row for row in printed["rows"]}
    assert set(rows) == {
        (str(tiny_run), "serving_default", 2),
        *((str(exported), signature, 2) for signature in SIGNATURES),
    }
    for (model, signature, size), row in rows.items():
        assert 0 < row["minimum_s"] <= row["p50_s"] <= row["p90_s"] <= row["p99_s"]
        assert row["clips_per_second"] <= size / row["minimum_s"]
        parts = {"preprocess", "compute", *(["decode"] if signature == "encoded" else [])}
        assert set(row["shares"]) == parts
        assert (row["ratio"] is not None) == (model != str(tiny_run) and signature == "serving_default")
    # Eight threads at a time get the answers that one gets.
    assert [result["model"] for result in printed["threads"]] == [str(tiny_run), str(exported)]
    for result in printed["threads"]:
        assert result["threads"] == 8
        assert result["largest_difference"] <= 1e-6


@pytest.mark.parametrize("kind", [RestServer, GrpcServer])
def test_a_server(exported: Path, served: ServedModel, kind: type):
    server = kind(served)
    server.start()
    try:
        grpc = ["--grpc"] if kind is GrpcServer else []
        address = f"127.0.0.1:{server.port}"
        printed = benchmark_json(exported, "--server", address, *grpc, "--threads", 2)
    finally:
        server.stop()
    assert {row["signature"] for row in printed["rows"]} == SIGNATURES
    assert all(row["model"].startswith(address) for row in printed["rows"])
    shares = {row["signature"]: set(row["shares"]) for row in printed["rows"]}
    assert shares == {"serving_default": set(), "features": set(), "encoded": {"encode", "answer"}}
    assert printed["threads"][0]["largest_difference"] <= 1e-6


def test_a_folder_without_a_model(tmp_path: Path):
    result = benchmark(tmp_path, *SMALL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds neither" in result.stderr
    assert "Model folder" in benchmark(tmp_path / "no", *SMALL).stderr
    (tmp_path / "saved_model.pb").touch()
    assert "has no config.json" in benchmark(tmp_path, *SMALL).stderr


def test_a_run_in_several_precisions_is_timed_in_turns(tiny_run: Path):
    printed = benchmark_json(tiny_run, "--precision", "float32,bfloat16")
    first, second = printed["rows"]
    assert (first["model"], second["model"]) == (str(tiny_run), f"{tiny_run} (tensorflow, bfloat16)")
    assert first["ratio"] is None
    assert second["ratio"] > 0
