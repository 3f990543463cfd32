"""kdant reproduce drift: rendered, trained, gone on with, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

from tf_records.manifest import load_manifest


def drift(out: Path, *args: object) -> Result:
    command = ("reproduce", "drift", "--out", out, "--devices", "cpu", *args)
    return CliRunner().invoke(main, [str(arg) for arg in command])


TINY = ("--scale", "tiny", "--drifts", "0.5", "--seeds", 3, "--rows", "teacher,direct")


@pytest.fixture(scope="module")
def tiny(tiny_settings: Path) -> tuple[object, ...]:
    """Options of a study that takes seconds."""
    return (*TINY, "--config", tiny_settings)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[object, ...]) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("drift") / "study"
    return out, drift(out, *tiny, "--jobs", 2)


def test_a_study_from_nothing_to_its_picture(study: tuple[Path, Result]) -> None:
    out, result = study
    assert result.exit_code == 0, result.stderr
    assert "Rendering 16 videos of drift 0.5 (1 of 1)." in result.stderr
    assert "Gain over none" in result.stdout
    assert {path.name for path in (out / "runs").iterdir()} == {
        f"rgb-drift0.5-seed3-{network}" for network in ("teacher", "none", "direct")
    }
    test = load_manifest(out / "records" / "drift0.5").splits["test"]
    assert sum(shard.records for shard in test.shards) == 8
    assert (out / "drift.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in out.glob("drift.*")} == {
        f"drift.{kind}" for kind in ("csv", "json", "png", "tex")
    }


def test_gains_are_those_of_the_runs(study: tuple[Path, Result], tiny: tuple[object, ...]) -> None:
    out, _ = study
    result = drift(out, *tiny, "--summarize", "--json")
    assert result.exit_code == 0, result.stderr
    table = json.loads(result.stdout)
    assert table["scale"] == "tiny, with network.toml (crop 32, width 0.0625, 1 epochs)"
    rows = {row["name"]: row["columns"] for row in table["rows"]}
    assert list(rows) == ["teacher", "none", "direct"]
    none, direct = (
        json.loads((out / "runs" / f"rgb-drift0.5-seed3-{loss}" / "evaluation.json").read_text())
        for loss in ("none", "direct")
    )
    cell = rows["direct"]["drift 0.5"]
    assert cell["ours"]["mean"] == direct["observed"]["top1"]
    gain = direct["observed"]["top1"] - none["observed"]["top1"]
    assert cell["difference"]["value"] == pytest.approx(gain)


def test_a_table_that_cannot_be_kept_is_printed(
    study: tuple[Path, Result], tiny: tuple[object, ...], read_only
) -> None:
    out, _ = study
    with read_only(out):
        result = drift(out, *tiny, "--summarize")
    assert result.exit_code == 1
    assert "Gain over none" in result.stdout
    assert result.stderr.startswith(f"Error: The results were printed but cannot be kept in {out}: ")


def test_its_page_shows_the_picture_and_the_table(study: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = study
    page = tmp_path / "report.html"
    result = CliRunner().invoke(main, ["report", str(out), "--out", str(page)])
    assert result.exit_code == 0, result.stderr
    text = page.read_text("utf-8")
    assert text.count('alt="Gain of each feature loss over') == 1
    assert "on the same samples, in points" in text
    assert "Paper:" not in text  # which has no such study


def test_what_is_finished_stays_and_other_videos_are_refused(
    study: tuple[Path, Result], tiny: tuple[object, ...]
) -> None:
    out, _ = study
    before = {
        path: path.stat().st_mtime_ns
        for kind in ("runs", "records", "videos")
        for path in (out / kind).rglob("*")
    }
    assert "is not empty" in drift(out, *tiny).stderr
    again = drift(out, *tiny, "--resume")
    assert again.exit_code == 0, again.stderr
    assert "Rendering" not in again.stderr
    other = drift(out, *tiny, "--resume", "--scale", "study")
    assert other.exit_code == 1
    assert "are not those of this study" in other.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_settings_of_ones_own_are_used_or_refused_before_anything_is_rendered(
    study: tuple[Path, Result], tiny_settings: Path, tmp_path: Path
) -> None:
    out, _ = study
    settings = tmp_path / "longer.toml"
    settings.write_text(tiny_settings.read_text("utf-8") + "[student]\nepochs = 2\n", "utf-8")
    summary = drift(out, *TINY, "--config", settings, "--summarize", "--json")
    assert summary.exit_code == 1
    assert "begun with other settings: epochs 1 → 2" in summary.stderr
    result = drift(tmp_path / "longer", *TINY, "--rows", "none", "--config", settings)
    assert result.exit_code == 0, result.stderr
    assert "tiny, with longer.toml (crop 32, width 0.0625, 1 or 2 epochs)" in result.stdout.replace("\n", " ")
    settings.write_text("[student]\nepohcs = 2\n", "utf-8")
    refused = drift(tmp_path / "none", "--config", settings)
    assert (refused.exit_code, (tmp_path / "none").exists()) == (1, False)
    assert "epohcs" in refused.stderr


@pytest.mark.parametrize("drifts", ["", "a", "0.7", "-0.1", "0.2,0.2", "nan"])
def test_drifts_that_cannot_be_are_refused(drifts: str, tmp_path: Path) -> None:
    result = drift(tmp_path / "study", "--drifts", drifts)
    assert result.exit_code == 2
    assert "should be different numbers from 0 to 0.6" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_row_and_no_study_are_refused(tmp_path: Path) -> None:
    assert "holds no study to summarize" in drift(tmp_path / "none", "--summarize").stderr
    result = drift(tmp_path / "study", "--scale", "tiny", "--rows", "noen")
    assert result.exit_code == 1
    assert "There is no row 'noen'" in result.stderr
    assert not (tmp_path / "study" / "records").exists()
