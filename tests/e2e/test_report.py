"""kdant report on runs and on a study's folder, and what it refuses."""

import base64
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main
from PIL import Image

from kdant_tf.runs import load_run

NASTY = """student <b>&"'"""


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def refuse(*args: object, code: int = 1) -> str:
    result = kdant(*args)
    assert result.exit_code == code, result.output
    return result.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_run: Path, record_folder: Path) -> tuple[Path, Path]:
    """A teacher and a student with its weights, evaluated."""
    root = tmp_path_factory.mktemp("report")
    teacher, student = root / "teacher", root / NASTY
    for folder in (teacher, student):
        shutil.copytree(tiny_run, folder)
    config = dataclasses.replace(load_run(student).config, feature_loss="none")
    dataclasses.replace(load_run(student), role="student", teacher=str(teacher), config=config).save()
    (student / "metrics.csv").write_text(
        "epoch,learning_rate,loss,classification_loss,feature_loss,accuracy\n1,0.1,2,2,0,0.5\n2,0.1,1,1,0,0.7\n"
    )
    for args in ((teacher,), (teacher, "--view", "observed"), (student,)):
        result = kdant("evaluate", *args, "--records", record_folder)
        assert result.exit_code == 0, result.stderr
    return teacher, student


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path], record_folder: Path) -> Path:
    out = runs[0].parent / "report.html"
    result = kdant("report", *runs, "--records", record_folder, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said == {"path": str(out), "bytes": out.stat().st_size, "samples": 8}
    return out


def inner(page: Path, tag: str) -> list[str]:
    return re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page.read_text("utf-8"), re.DOTALL)


def test_a_page_has_numbers_pictures_clips_and_settings(page: Path):
    assert inner(page, "h2") == [
        *("Results", "Samples", "Where networks look", "Classes and confidence", "Training", "Settings")
    ]
    text = page.read_text("utf-8")
    assert page.stat().st_size < 3_000_000
    assert "student <b>" not in text
    assert text.count("student &lt;b&gt;&amp;&#34;&#39;") > 10
    # Heat maps, two samples' drift, features, bars, three confusion matrices, reliability, curves.
    alts = re.findall(
        r'<figure class="picture">\n<img src="data:image/webp;base64,[^"]+" .*?alt="([^"]+)"', text
    )
    assert len(alts) == 10
    assert sum("as points, one colour and marker a class" in alt for alt in alts) == 1
    for setting in ("feature_loss", "batch_size", "execution: xla", "versions: keras", "records_sha256"):
        assert f">{setting}<" in text


def test_clips_move_and_each_network_says_three_classes(page: Path):
    text = page.read_text("utf-8")
    moving = re.findall(r'<source srcset="data:image/webp;base64,([^"]+)"', text)
    assert len(moving) == 8
    for clip in moving:
        with Image.open(io.BytesIO(base64.b64decode(clip))) as image:
            assert image.n_frames > 1
            assert 96 <= image.height <= 128
    # The rendered videos have two classes; the teacher was evaluated on both segments.
    assert text.count("<li") == 6 + 8 * 3 * min(3, len(load_run(page.parent / "teacher").classes))


def test_without_records_there_are_no_clips_and_the_page_says_so(runs: tuple[Path, Path], tmp_path: Path):
    pages = [tmp_path / name for name in ("report.html", "again.html")]
    for out in pages:
        result = kdant("report", runs[1], "--out", out)
        assert result.exit_code == 0, result.stderr
        assert "samples shown │ 0" in result.stdout
    text = pages[0].read_text("utf-8")
    assert "made without --records" in text
    assert '<figure class="clip">' not in text
    assert "Reliability diagrams" in text
    # The same input gives the same bytes.
    assert pages[1].read_text("utf-8") == text


def test_accuracy_against_what_was_seen_is_drawn_and_listed(runs: tuple[Path, Path], tmp_path: Path):
    student = tmp_path / "student"
    shutil.copytree(runs[1], student)
    evaluation = json.loads((student / "evaluation.json").read_text())
    points = [
        {"share": share, "value": share / 2, "low": share / 4, "high": share} for share in (0.2, 0.6, 1.0)
    ]
    (student / "evaluation.json").write_text(
        json.dumps({**evaluation, "share": {"split": "test", "top1": points}})
    )
    out = tmp_path / "report.html"
    assert kdant("report", student, "--out", out).exit_code == 0
    text = out.read_text("utf-8")
    assert "Top-1 accuracy by share of the video seen" in text
    assert "student: 10.0 % at 0.2, 50.0 % at 1." in text
    assert "30.0 % (15.0 to 60.0)" in text


def test_a_file_that_is_there_stays_unless_told_otherwise(runs: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "report.html"
    out.write_text("mine")
    assert "add --overwrite" in refuse("report", runs[1], "--out", out)
    assert out.read_text() == "mine"
    assert kdant("report", runs[1], "--out", out, "--overwrite").exit_code == 0
    assert out.read_text("utf-8").startswith("<!doctype html>")
    assert "is a folder" in refuse("report", runs[1], "--out", tmp_path)
    assert "which is no folder" in refuse("report", runs[1], "--out", tmp_path / "no" / "report.html")


def test_what_is_no_run_or_was_not_evaluated_is_refused(
    runs: tuple[Path, Path], tiny_run: Path, tmp_path: Path
):
    out = ("--out", tmp_path / "report.html")
    assert "does not exist" in refuse("report", tmp_path / "none", *out)
    (tmp_path / "empty").mkdir()
    assert "is no run folder" in refuse("report", tmp_path / "empty", *out)
    evaluated = shutil.ignore_patterns("evaluation.json", "predictions.npz")
    shutil.copytree(tiny_run, tmp_path / "fresh", ignore=evaluated)
    error = refuse("report", tmp_path / "fresh", *out)
    assert f"Evaluate it first: kdant evaluate {tmp_path / 'fresh'} --records" in error
    assert "given once" in refuse("report", runs[0], runs[0], *out)
    refuse("report", *out, code=2)
    (tmp_path / "fresh" / "evaluation.json").write_text('{"observed": {"split": "test"}}')
    assert "evaluation.json cannot be read" in refuse("report", tmp_path / "fresh", *out)
    assert not out[1].exists()


def test_records_that_do_not_fit_are_refused(
    runs: tuple[Path, Path], record_folder: Path, edit_manifest, tmp_path: Path
):
    args = ("report", runs[0], "--out", tmp_path / "report.html", "--records")
    (tmp_path / "empty").mkdir()
    assert "manifest.json" in refuse(*args, tmp_path / "empty")
    shutil.copytree(record_folder, tmp_path / "other")
    edit_manifest(tmp_path / "other", classes=("a", "b"))
    assert "knows other classes" in refuse(*args, tmp_path / "other")
    shutil.copytree(runs[0], tmp_path / "old")
    (tmp_path / "old" / "predictions.npz").unlink()
    error = refuse("report", tmp_path / "old", "--out", tmp_path / "report.html", "--records", record_folder)
    assert "has kept no predictions. Evaluate it again: kdant evaluate" in error


def test_a_study_shows_its_table_and_the_runs_that_are_finished(
    runs: tuple[Path, Path], record_folder: Path, tmp_path: Path
):
    study, names = tmp_path / "study", ("rgb-split1-seed0-teacher", "rgb-split1-seed0-none")
    for run, name in zip(runs, names, strict=True):
        shutil.copytree(run, study / "runs" / name)
    about = {"scale": "tiny", "runs": [{"name": name} for name in (*names, "rgb-split1-seed1-none")]}
    (study / "study.json").write_text(
        json.dumps({"tables": {"table1": about, "sweep": about}, "seconds": {}})
    )
    ours = {"mean": 0.5, "sd": 0.125, "sd_over": "seeds", "places": 3}
    gain = {"value": 0.01, "low": -0.02, "high": -1e-9}
    values = [{"split": 1, "seed": seed, "value": 0.25 * (1 + seed)} for seed in range(3)]
    cell = {"ours": ours, "values": values, "difference": gain}
    cell |= {"published": 0.7, "published_difference": None}
    empty = {**dict.fromkeys(cell), "values": []}
    rows = [
        {
            "name": "none",
            "title": "Student <none>",
            "reference": None,
            "columns": {"RGB": cell, "Flow": empty},
        }
    ]
    table = {"title": "Table 1", "scale": "tiny", "published_source": "§4.2", "rows": rows, "missing": ["x"]}
    (study / "table1.json").write_text(json.dumps(table))
    (study / "sweep.json").write_text(json.dumps({"title": "Sweep", "scale": "tiny", "settings": []}))
    (study / "sweep.csv").write_text("scale,feature_loss,accuracy\ntiny,direct,0.123456\n")

    out = tmp_path / "report.html"
    result = kdant("report", study, "--out", out)
    assert result.exit_code == 0, result.stderr
    text = out.read_text("utf-8")
    for shown in ("Student &lt;none&gt;", "50.0 ± 12.5", "+1.0 (-2.0 to +0.0)", ">70.0<", "1 runs are not"):
        assert shown in text, shown
    assert "Table 1: a bar for each method." in text
    assert ">0.1235<" in text
    assert "Flow, paper" not in text  # nothing stands there
    assert names[0] in text
    assert "rgb-split1-seed1-none" not in text

    assert "Give it alone" in refuse("report", study, runs[0], "--out", tmp_path / "x.html")
    (study / "table1.json").write_text("{")
    assert "table1.json cannot be read" in refuse("report", study, "--out", tmp_path / "x.html")
    shutil.rmtree(study / "runs")
    assert "has no finished run yet" in refuse("report", study, "--out", tmp_path / "x.html")
