"""kdant evaluate on records of whole videos: intervals, streams added, and shares of the video."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main
from tiny_network import build

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.predictions import load_predictions
from kdant_tf.runs import Run, load_run, manifest_sha256
from tf_records.manifest import load_manifest


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kdant_json(*args: object) -> dict:
    result = kdant(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refuse(*args: object, code: int = 1) -> str:
    result = kdant(*args)
    assert result.exit_code == code, result.output
    return result.stderr


@pytest.fixture(scope="module")
def records(tmp_path_factory, jhmdb_layout) -> Path:
    """Rendered videos in JHMDB's layout: of each class one to train on and four to test."""
    root = tmp_path_factory.mktemp("shares")
    jhmdb_layout(root / "jhmdb", split=1, train=1, test=4)
    source = ("--source", "jhmdb", "--input", root / "jhmdb", "--short-side", 64)
    kdant_json("build-records", *source, "--out", root / "records")
    return root / "records"


def untrained_run(records: Path, name: str, seed: int) -> Path:
    """A student's run folder with random weights."""
    manifest = load_manifest(records)
    run = Run(
        folder=records.parent / name,
        role="student",
        config=TrainConfig(width=0.0625, crop=32, windows=3, seed=seed),
        classes=manifest.classes,
        clip=manifest.clip,
        modality=manifest.modality,
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(records),
    )
    run.folder.mkdir()
    run.save()
    keras.utils.set_random_seed(seed)
    build(len(run.classes), (8, 32, 32, 3)).save(run.model_path)
    return run.folder


@pytest.fixture(scope="module")
def run(records: Path) -> Path:
    return untrained_run(records, "run", 1)


@pytest.fixture(scope="module")
def other(records: Path) -> Path:
    return untrained_run(records, "other", 2)


def test_the_first_fifth_is_what_a_student_sees(records: Path, run: Path) -> None:
    """JHMDB's protocol, from the observed segments and as a share of the whole video."""
    printed = kdant_json("evaluate", run, "--records", records)
    curve = kdant_json("evaluate", run, "--records", records, "--observe", "0.2,1")["share"]
    observed = load_predictions(run / "predictions.npz", "observed/test")
    share = load_predictions(run / "predictions.npz", "share 0.2/test")
    np.testing.assert_allclose(share.probabilities, observed.probabilities, rtol=1e-5)
    assert observed.ids.tolist() == share.ids.tolist()
    assert curve[0]["top1"] == printed["top1"]
    future = kdant_json("evaluate", run, "--records", records, "--view", "future")
    assert curve[1]["top1"] == future["top1"]
    kept = json.loads((run / "evaluation.json").read_text())
    assert [point["share"] for point in kept["share"]["top1"]] == [0.2, 1.0]
    assert kept["observed"]["top1"] == printed["top1"]


def test_a_range_of_shares_has_both_ends(records: Path, run: Path) -> None:
    result = kdant("evaluate", run, "--records", records, "--observe", "0.3:0.9:0.3")
    assert result.exit_code == 0, result.stderr
    for share in ("30.0 %", "60.0 %", "90.0 %"):
        assert share in result.stdout


def test_two_runs_are_added(records: Path, run: Path, other: Path) -> None:
    printed = kdant_json("evaluate", run, "--records", records, "--with", other)
    assert printed["samples"] == 8
    probabilities = []
    for folder in (run, other):
        kdant_json("evaluate", folder, "--records", records)
        probabilities.append(load_predictions(folder / "predictions.npz", "observed/test").probabilities)
    labels = load_predictions(run / "predictions.npz", "observed/test").labels
    expected = np.mean(np.argmax(probabilities[0] * probabilities[1], axis=1) == labels)
    assert printed["top1"] == expected
    kept = json.loads((run / "evaluation.json").read_text())["observed, fused"]
    assert kept["fusion"]["runs"] == [str(run), str(other)]
    assert kept["fusion"]["weights"] == [1.0, 1.0]
    alone = kdant_json("evaluate", run, "--records", records, "--with", other, "--fusion-weights", "0,1")
    assert alone["top1"] == kdant_json("evaluate", other, "--records", records)["top1"]


def test_the_table_has_intervals_and_classes(records: Path, run: Path) -> None:
    result = kdant("evaluate", run, "--records", records, "--per-class")
    assert result.exit_code == 0, result.stderr
    for words in ("top-1", " to ", "mean top-5 recall", "8 in 8 videos", "golf", "walk", "50.0 %"):
        assert words in result.stdout


def test_what_does_not_go_together_is_refused(records: Path, run: Path, other: Path) -> None:
    command = ("evaluate", run, "--records", records)
    for options in (("--with", other), ("--tau", "1"), ("--streaming",)):
        assert "go neither together" in refuse(*command, "--observe", "0.5", *options, code=2)
    assert "should be seconds" in refuse(*command, "--tau", "-1", code=2)
    assert "--longest-anticipation-s 0.5" in refuse(*command, "--tau", "0.5")
    for shares in ("0", "1.1", "0.1:1", "0.1:1:0", "a", "0.5:0.1:0.1"):
        assert "should be shares" in refuse(*command, "--observe", shares, code=2)
    for weights in ("a", "0,0", "1,-1", "nan,1"):
        options = ("--with", other, "--fusion-weights", weights)
        assert "should be a number >= 0" in refuse(*command, *options, code=2)
    assert "should be 2 numbers" in refuse(*command, "--with", other, "--fusion-weights", "1", code=2)


def test_runs_of_other_classes_are_refused(records: Path, run: Path, tiny_run: Path) -> None:
    assert "other classes" in refuse("evaluate", run, "--records", records, "--with", tiny_run)


def test_shares_need_whole_videos(record_folder: Path, tiny_run: Path) -> None:
    message = refuse("evaluate", tiny_run, "--records", record_folder, "--observe", "0.5")
    assert "whole videos" in message


def test_a_run_is_not_changed_by_evaluating_it(records: Path, run: Path) -> None:
    before = load_run(run)
    kdant_json("evaluate", run, "--records", records)
    assert dataclasses.asdict(load_run(run)) == dataclasses.asdict(before)


@pytest.fixture(scope="module")
def lead(videos: Path, tmp_path_factory) -> Path:
    """Records that keep half a second before each test action, besides the clip at 16 frames."""
    out = tmp_path_factory.mktemp("lead") / "records"
    source = ("--source", "csv", "--input", videos / "annotations.csv", "--offset-frames", 16)
    options = ("--short-side", 64, "--longest-anticipation-s", 0.5)
    assert kdant_json("build-records", *source, "--out", out, *options)["longest_anticipation_s"] == 0.5
    return out


def test_a_longer_segment_changes_nothing_at_the_records_own_time(
    lead: Path, record_folder: Path, tiny_run: Path
) -> None:
    """16 frames from clip to clip are 8 frames, 0.4 s, from its end to the action."""
    tiny_run = Path(shutil.copytree(tiny_run, lead.parent / "run"))
    kdant_json("evaluate", tiny_run, "--records", record_folder, "--view", "observed")
    own = load_predictions(tiny_run / "predictions.npz", "observed/test")
    kdant_json("evaluate", tiny_run, "--records", lead, "--view", "observed")
    suffix = f", records {manifest_sha256(lead)[:8]}/test"
    longer = load_predictions(tiny_run / "predictions.npz", f"observed{suffix}")
    curve = kdant_json("evaluate", tiny_run, "--records", lead, "--tau", "0.4,0.1,0.5")["tau"]
    at_own = load_predictions(tiny_run / "predictions.npz", f"tau 0.4{suffix}")
    other = load_predictions(tiny_run / "predictions.npz", f"tau 0.1{suffix}")
    np.testing.assert_array_equal(longer.probabilities, own.probabilities)
    np.testing.assert_array_equal(at_own.probabilities, own.probabilities)
    assert np.abs(other.probabilities - own.probabilities).max() > 0
    assert [point["tau"] for point in curve] == [0.4, 0.1, 0.5]
    assert "0.5 s before each action" in refuse("evaluate", tiny_run, "--records", lead, "--tau", "0.6")


def test_an_answer_that_takes_time_is_of_an_earlier_clip(lead: Path, tiny_run: Path, tmp_path: Path) -> None:
    """The records' own time is 0.4 s before the action."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    at = ("evaluate", run, "--records", lead)
    curve = kdant_json(*at, "--streaming", "--latency-ms", "0,100")["latency"]
    earlier = kdant_json(*at, "--tau", "0.4,0.5")["tau"]
    assert [point["latency"] for point in curve] == [0.0, 0.1]
    assert [point["top1"] for point in curve] == [point["top1"] for point in earlier]
    suffix = f", records {manifest_sha256(lead)[:8]}/test"
    kept = load_predictions(run / "predictions.npz", f"latency 0.1{suffix}")
    expected = load_predictions(run / "predictions.npz", f"tau 0.5{suffix}")
    np.testing.assert_array_equal(kept.probabilities, expected.probabilities)
    (measured,) = kdant_json(*at, "--streaming")["latency"]
    assert 0 < measured["latency"] < 0.1  # a tiny network
    assert "Build them with --longest-anticipation-s 0.6." in refuse(
        *at, "--streaming", "--latency-ms", "200"
    )


def test_networks_and_their_exports_stand_side_by_side(
    lead: Path, tiny_run: Path, exported: Path, tmp_path: Path
) -> None:
    """One network is the run's own export, one has other weights, one is of another precision."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    other = Path(shutil.copytree(tiny_run, tmp_path / "other"))
    keras.utils.set_random_seed(1)
    build(4, (8, 32, 32, 3)).save(other / "model.keras")
    assert kdant("export", run, "--out", tmp_path / "half", "--precision", "bfloat16").exit_code == 0
    networks = (run, other, exported.parent, tmp_path / "half")
    at = ("evaluate", *networks, "--records", lead, "--streaming", "--latency-ms")
    rows = kdant_json(*at, "0,100")["latency"]
    assert [(Path(row["network"]), row["latency"]) for row in rows] == [
        (each, latency_s) for each in networks for latency_s in (0.0, 0.1)
    ]
    top1 = [row["top1"] for row in rows]
    alone = kdant_json("evaluate", run, "--records", lead, "--tau", "0.4,0.5")["tau"]
    assert top1[:2] == top1[4:6] == [point["top1"] for point in alone]
    measured = kdant_json(*at, "measured", "--pictures")["latency"]
    assert len({row["latency"] for row in measured}) == 4
    assert (run / "pictures" / "streaming.png").stat().st_size > 1000
    name = f"latency, records {manifest_sha256(lead)[:8]}"
    for folder, row in zip((run, other), measured, strict=False):
        (kept,) = json.loads((folder / "evaluation.json").read_text())[name]["top1"]
        assert (kept["latency"], kept["value"]) == (row["latency"], row["top1"])
    table = kdant(*at, "0").stdout
    assert "an answer takes" in table
    assert "latency, records" in " ".join(kdant("runs", run).stdout.split())


def test_what_cannot_stand_side_by_side_is_said_before_any_work(
    lead: Path, record_folder: Path, records: Path, tiny_run: Path, exported: Path
) -> None:
    streaming = ("--streaming", "--latency-ms", 0, "--records")
    said = refuse("evaluate", tiny_run, exported, "--records", lead, code=2)
    assert "Several RUN go with --streaming" in said
    assert "is an export; evaluate its run" in refuse("evaluate", exported, "--records", lead, code=2)
    assert "The same RUN was given twice" in refuse("evaluate", tiny_run, tiny_run, *streaming, lead, code=2)
    said = refuse("evaluate", exported, *streaming, lead, "--pictures", code=2)
    assert "into the folder of a run" in said
    assert "--longest-anticipation-s 0.4" in refuse("evaluate", exported, *streaming, record_folder)
    assert "knows other classes than records" in refuse("evaluate", exported, *streaming, records)


def test_a_longer_segment_is_refused_where_it_makes_no_sense(
    lead: Path, tmp_path: Path, videos: Path
) -> None:
    command = (
        "build-records",
        "--source",
        "csv",
        "--input",
        videos / "annotations.csv",
        "--out",
        tmp_path / "r",
    )
    assert "from 0 to 60" in refuse(*command, "--longest-anticipation-s", 61)
    assert "--features" in refuse(*command, "--longest-anticipation-s", 1, "--features", "random", code=2)
    extract = ("extract-features", lead, "--init", "random", "--out", tmp_path / "f")
    assert "several anticipation times" in refuse(*extract)
