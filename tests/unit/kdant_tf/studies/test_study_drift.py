"""The drift study's gains by hand, and its picture."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kdant_tf.evaluation.predictions import Predictions, save_predictions
from kdant_tf.studies.drift import VIDEOS, drift_name, drift_of, plot_drift, summarize_drift
from kdant_tf.studies.results import SampleValues, paired_difference, to_tex
from kdant_tf.studies.study_plan import Place, Study, TableColumn, TableRow, run_folder, run_name

PLACES = tuple(Place(drift_name(drift), seed) for seed in (0, 1) for drift in (0.0, 0.4))
STUDY = Study(
    name="drift",
    title="Drift study",
    scale="tiny",
    runs=(),
    places=PLACES,
    rows=(
        TableRow(name="none", title="student none", network="none"),
        TableRow(name="direct", title="student direct", network="direct", reference="none"),
    ),
    columns=(TableColumn(name="drift 0", streams=("rgb",)), TableColumn(name="drift 0.4", streams=("rgb",))),
    draw_seeds=True,
)


def save(folder: Path, place: Place, network: str, right: list[int]) -> None:
    """Predictions of four videos of class 0; `right` says which of them are."""
    second = 1 - np.array(right, float)
    videos = np.array(list("abcd"))
    predictions = Predictions(
        probabilities=np.stack([1 - second, second], axis=1),
        labels=np.zeros(4, int),
        ids=videos,
        videos=videos,
    )
    run = run_folder(folder, run_name("rgb", place, network))
    run.mkdir(parents=True)
    save_predictions(run / "predictions.npz", "observed/test", predictions)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """At drift 0 direct gains 1/4 and 2/4, at 0.4 it loses 1/4 and 3/4."""
    for place in PLACES:
        save(tmp_path, place, "none", [1, 1, 1, 0] if place.split == "drift0.4" else [1, 0, 0, 0])
    for place, right in zip(PLACES, ([1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]), strict=True):
        save(tmp_path, place, "direct", right)
    return tmp_path


def test_each_drift_is_a_column_of_its_own_runs(finished: Path) -> None:
    table = summarize_drift(STUDY, finished)
    assert table.missing == ()
    at_0, at_4 = table.cells["direct", "drift 0"], table.cells["direct", "drift 0.4"]
    for cell, mean, gain in ((at_0, (0.5 + 0.75) / 2, 0.375), (at_4, (0.5 + 0) / 2, -0.5)):
        assert cell.ours is not None
        assert (cell.ours.mean, cell.ours.places) == (pytest.approx(mean), 2)
        assert cell.difference is not None
        assert cell.difference.value == pytest.approx(gain)
        assert cell.difference.low <= gain <= cell.difference.high
    none = table.cells["none", "drift 0.4"]
    assert none.difference is None
    assert "paper" not in to_tex(table)


def test_a_run_that_is_missing_is_named_and_the_picture_drawn(finished: Path, tmp_path: Path) -> None:
    (run_folder(finished, "rgb-drift0.4-seed1-direct") / "predictions.npz").unlink()
    table = summarize_drift(STUDY, finished)
    assert table.missing == ("rgb-drift0.4-seed1-direct",)
    plot_drift(table, tmp_path / "drift.png")
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_nothing_is_drawn_too(tmp_path: Path) -> None:
    plot_drift(summarize_drift(STUDY, tmp_path), tmp_path / "drift.png")
    assert (tmp_path / "drift.png").is_file()


def test_seeds_that_differ_widen_the_interval() -> None:
    """Every video gains in one seed and loses in the other: nothing about videos is uncertain."""
    videos = np.array(list("abcd"))
    gained = {
        Place("drift0", seed): SampleValues(values=np.full(4, gain), videos=videos)
        for seed, gain in enumerate((1.0, -1.0, 0.0))
    }
    alone = paired_difference(gained)
    assert (alone.low, alone.value, alone.high) == (0, 0, 0)
    both = paired_difference(gained, draw_seeds=True)
    assert (both.low, both.value, both.high) == (-1, 0, 1)
    one = paired_difference({Place("drift0", 0): gained[Place("drift0", 0)]}, draw_seeds=True)
    assert (one.low, one.value, one.high) == (1, 1, 1)


def test_drawing_one_seed_fewer_gives_the_variance_of_a_mean_over_seeds() -> None:
    """Normal gains of 40 seeds, equal on all videos: the interval is 2 · 1.96 standard errors wide."""
    gains = np.random.default_rng(3).normal(0.1, 0.2, 40)
    gained = {
        Place("drift0", seed): SampleValues(values=np.full(2, gain), videos=np.array(["a", "b"]))
        for seed, gain in enumerate(gains)
    }
    interval = paired_difference(gained, draw_seeds=True, resamples=20_000)
    error = np.std(gains, ddof=1) / 40**0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.02)


def test_names_lead_back_to_drifts() -> None:
    assert [drift_of(column) for column in STUDY.columns] == [0.0, 0.4]
    assert run_name("rgb", Place("drift0.4", 1), "none") == "rgb-drift0.4-seed1-none"
    assert run_name("rgb", Place("2", 1), "none") == "rgb-split2-seed1-none"


def test_the_study_has_few_labels_and_the_test_videos_that_its_claim_needs() -> None:
    spec = dataclasses.asdict(VIDEOS["study"])
    # Of 1,000 videos a gain has a standard error of about a point, of a seed several.
    assert spec["test"] >= 1000
    assert spec["unlabeled"] > spec["train"]
