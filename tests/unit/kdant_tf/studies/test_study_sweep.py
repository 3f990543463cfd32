"""The sweep: its grid, what it judges by, and that it leaves the test split alone."""

import csv
import json
from pathlib import Path

import pytest

from kdant_tf.runs import METRICS, VALIDATION_METRICS, Run, manifest_sha256
from kdant_tf.studies.study_plan import RecordSource, Study, StudySettings, run_folder
from kdant_tf.studies.sweep import (
    Setting,
    last_mean,
    make_grid,
    pick_best,
    plan_sweep,
    summarize_sweep,
    write_sweep,
)
from tf_records.manifest import load_manifest


def test_the_grid_has_none_once_and_direct_without_alpha() -> None:
    grid = make_grid(["none", "direct", "bidirectional"], [1.0, 3.0], [None, 0.1])
    assert [setting.network for setting in grid] == [
        *("none", "direct-weight1-alphadefault", "direct-weight3-alphadefault"),
        *("bidirectional-weight1-alphadefault", "bidirectional-weight1-alpha0.1"),
        *("bidirectional-weight3-alphadefault", "bidirectional-weight3-alpha0.1"),
    ]


def test_the_grid_varies_what_means_something_to_a_loss() -> None:
    grid = make_grid(*(["local", "mmd"], [1.0], [None]), normalizations=["none", "l2"], localities=[2.0, 8.0])
    assert [setting.network for setting in grid] == [
        *("none", "local-weight1-alphadefault-plain-locality2", "local-weight1-alphadefault-plain-locality8"),
        *("local-weight1-alphadefault-l2-locality2", "local-weight1-alphadefault-l2-locality8"),
        *("mmd-weight1-alphadefault-plain", "mmd-weight1-alphadefault-l2"),
    ]
    soft = make_grid(["direct"], [1.0], [None], soft_weights=[0.0, 0.5], temperatures=[1.0, 4.0])
    assert [setting.network for setting in soft] == [
        *("none-soft0", "none-soft0.5-temperature1", "none-soft0.5-temperature4"),
        *("direct-weight1-alphadefault-soft0", "direct-weight1-alphadefault-soft0.5-temperature1"),
        "direct-weight1-alphadefault-soft0.5-temperature4",
    ]


def test_swept_settings_are_those_of_the_students(record_folder: Path) -> None:
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(0,))
    grid = make_grid(["local"], [1.0], [None], normalizations=["l2"], localities=[2.0], soft_weights=[0.5])
    study = plan_sweep([source], StudySettings(scale="tiny"), grid, 0.25)
    configs = {spec.name.removeprefix("rgb-split1-seed0-"): spec.config for spec in study.runs}
    local = configs["local-weight1-alphadefault-l2-locality2-soft0.5"]
    assert (local.feature_loss, local.feature_weight, local.feature_normalization) == ("local", 1.0, "l2")
    assert (local.locality, local.soft_weight) == (2.0, 0.5)
    assert (configs["none-soft0.5"].feature_loss, configs["none-soft0.5"].soft_weight) == ("none", 0.5)


def test_the_last_quarter_of_the_epochs_is_averaged() -> None:
    rows = [{"m": float(value)} for value in range(8)]
    assert last_mean(rows, "m") == 6.5
    assert last_mean(rows[:1], "m") == 0


@pytest.fixture
def grid() -> tuple[Setting, ...]:
    return make_grid(["bidirectional"], [1.0, 3.0], [None])


@pytest.fixture
def study(record_folder: Path, grid: tuple[Setting, ...]) -> Study:
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(0, 1))
    return plan_sweep([source], StudySettings(scale="tiny"), grid, 0.25)


def finish(study: Study, folder: Path, name: str, accuracies: list[float], losses: list[float]) -> None:
    """A run folder with these validation results, one an epoch."""
    (spec,) = (spec for spec in study.runs if spec.name == name)
    manifest = load_manifest(spec.records)
    run = run_folder(folder, name)
    run.mkdir(parents=True)
    Run(
        folder=run,
        role=spec.role,
        config=spec.config,
        classes=manifest.classes,
        clip=manifest.clip,
        modality="rgb",
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(spec.records),
    ).save()
    (run / "model.keras").touch()
    with (run / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, ["epoch", *METRICS, *VALIDATION_METRICS])
        writer.writeheader()
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), start=1):
            row = dict.fromkeys((*METRICS, *VALIDATION_METRICS), 0.0)
            writer.writerow({**row, "epoch": epoch, "validation_accuracy": accuracy, "validation_loss": loss})


def test_the_test_split_is_left_alone_and_videos_are_held_out_alike(study: Study) -> None:
    assert {spec.views for spec in study.runs} == {()}
    assert {spec.config.validation_fraction for spec in study.runs} == {0.25}
    for seed in (0, 1):
        alike = [spec for spec in study.runs if f"-seed{seed}-" in spec.name]
        assert {(spec.config.seed, spec.config.label_seed) for spec in alike} == {(seed, seed)}
        assert len(alike) == 4


def test_the_best_setting_is_the_most_accurate_over_seeds(
    study: Study, grid: tuple[Setting, ...], tmp_path: Path
) -> None:
    one, three = "bidirectional-weight1-alphadefault", "bidirectional-weight3-alphadefault"
    for seed, network, accuracies in (
        *((0, "none", [1, 1, 1, 1.0]), (0, one, [0.9, 0.2, 0.3, 0.5]), (1, one, [0, 0, 0, 0.7])),
        *((0, three, [0, 0, 0, 0.9]), (1, three, [0, 0, 0, 0.4])),
    ):
        finish(study, tmp_path, f"rgb-split1-seed{seed}-{network}", accuracies, [2, 2, 2, 1.5])
    swept = summarize_sweep(study, grid, tmp_path)
    none, first, second = swept
    assert none.accuracy is not None
    assert (none.accuracy.mean, none.accuracy.places) == (1, 1)
    assert first.accuracy is not None
    assert first.accuracy.mean == pytest.approx(0.6)
    assert first.best_accuracy == pytest.approx(0.8)
    assert first.loss == 1.5
    assert second.accuracy is not None
    assert second.accuracy.mean == pytest.approx(0.65)
    assert pick_best(swept) == {"bidirectional": grid[2]}
    paths = write_sweep(tmp_path, study, swept, {"versions": {}})
    kept = json.loads(paths[1].read_text())
    best = kept["best"]["bidirectional"]
    assert {name: value for name, value in best.items() if value is not None} == {
        "feature_loss": "bidirectional",
        "feature_weight": 3.0,
    }
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert [row["scale"] for row in rows] == [study.scale] * 3
    assert float(rows[2]["accuracy"]) == pytest.approx(0.65)


def test_an_unfinished_sweep_has_no_best_setting(
    study: Study, grid: tuple[Setting, ...], tmp_path: Path
) -> None:
    assert pick_best(summarize_sweep(study, grid, tmp_path)) == {}
