"""`kdant benchmark`: what it tells of runs, exports and servers. How fast they are is no test's business."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from kdant_cli.benchmark import print_times
from kdant_cli.main import main
from model_server import GrpcServer, RestServer, ServedModel

from kdant_tf.serving import benchmark as benchmarking
from kdant_tf.serving.benchmark import CallTimes, ThreadTimes, _share, draw_clips
from kdant_tf.serving.model import AnticipationModel, load_model
from tf_records.schema import ClipSpec

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


def test_a_run_and_its_export_in_one_go(exported: Path, finished_run: Path):
    printed = benchmark_json(finished_run, exported, "--constants", "--threads", 8)
    rows = {(row["model"], row["signature"], row["batch_size"]): row for row in printed["rows"]}
    constants = f"{exported} as constants"
    assert set(rows) == {
        (str(finished_run), "serving_default", 2),
        *((str(exported), signature, 2) for signature in SIGNATURES),
        (constants, "serving_default", 2),
    }
    for (model, signature, size), row in rows.items():
        assert 0 < row["minimum_s"] <= row["p50_s"] <= row["p90_s"] <= row["p99_s"]
        assert row["clips_per_second"] <= size / row["minimum_s"]
        parts = {"preprocess", "compute", *(["decode"] if signature == "encoded" else [])}
        assert set(row["shares"]) == parts
        assert (row["ratio"] is not None) == (model != str(finished_run) and signature == "serving_default")
    # Eight threads at a time get the answers that one gets.
    assert [result["model"] for result in printed["threads"]] == [str(finished_run), str(exported), constants]
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


def test_tables(capsys: pytest.CaptureFixture[str]):
    seconds = {"model": "served", "batch_size": 4, "seconds": (0.1, 0.2)}
    rows = [
        CallTimes(signature="encoded", shares={"decode": 0.25, "compute": 0.75}, ratio=None, **seconds),
        CallTimes(signature="features", shares={}, ratio=1.5, **seconds),
    ]
    threads = ThreadTimes(model="served", threads=8, alone=2.0, together=3.0, largest_difference=0.0)
    print_times(rows, [threads], "frames of 48 x 40", as_json=False)
    printed = capsys.readouterr().out
    for cell in ("encoded", "100.0", "200.0", "26.7", "1.50", "25.0 %", "75.0 %", "3.0", "frames of 48 x 40"):
        assert cell in printed


def test_what_a_frozen_export_answers_is_what_it_answered(exported: Path):
    models = [
        benchmarking.open_local(exported),
        benchmarking.open_local(exported, constants=True),
    ]
    clips = draw_clips(models[0].model, 2, 40, 48)
    expected = load_model(exported).probabilities(clips)
    for model in models:
        np.testing.assert_allclose(model.model.probabilities(clips), expected, atol=1e-6)
        for call in model.make_calls(clips).values():
            np.testing.assert_allclose(call.whole(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        ("--batch-sizes", "0"),
        ("--batch-sizes", "a"),
        ("--frame", "320"),
        ("--frame", "0x10"),
        ("--server", "a:1", "--constants"),
    ],
    ids=" ".join,
)
def test_wrong_usage(exported: Path, options: tuple[str, ...]):
    assert benchmark(exported, *options).exit_code == 2
    assert benchmark(exported, exported).exit_code == 2


def test_a_folder_without_a_model(tmp_path: Path):
    result = benchmark(tmp_path, *SMALL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds neither" in result.stderr
    assert "Model folder" in benchmark(tmp_path / "no", *SMALL).stderr
    (tmp_path / "saved_model.pb").touch()
    assert "has no config.json" in benchmark(tmp_path, *SMALL).stderr


@given(st.lists(st.floats(0, 2), min_size=1, max_size=3), st.floats(0.1, 1.5))
def test_shares_are_parts_of_a_whole(ends: list[float], whole: float):
    shares = _share({str(number): end for number, end in enumerate(ends)}, whole, "rest")
    assert min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1)


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=40), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_are_those_of_numpy(seconds: list[float], percent: int):
    row = CallTimes(
        model="",
        signature="",
        batch_size=1,
        seconds=tuple(sorted(seconds)),
        shares={},
        ratio=None,
    )
    assert row.percentile_s(percent) == np.percentile(seconds, percent, method="inverted_cdf")


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("flow", 2), ("rgb,flow", 5)])
def test_clips_are_drawn_for_every_modality(modality: str, channels: int):
    model = AnticipationModel(
        name="",
        classes=("a", "b"),
        clip=ClipSpec(clip_frames=4),
        modality=modality,
        short_side=32,
        fps=None,
        anticipates=True,
        infer=lambda clips: clips,
    )
    clips = draw_clips(model, 2, 33, 50)
    assert (clips.shape, clips.dtype) == ((2, 4, 33, 50, channels), np.uint8)
    np.testing.assert_array_equal(clips, draw_clips(model, 2, 33, 50))
    assert np.any(clips[0] != clips[1])
