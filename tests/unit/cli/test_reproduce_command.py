"""`kdant reproduce`: what it prints of finished runs, and what it refuses before anything is trained."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

from kdant_tf.evaluation.predictions import Predictions, load_predictions, save_predictions
from kdant_tf.runs import METRICS, Run, load_run, manifest_sha256, weights_sha256
from kdant_tf.studies.paper_tables import TABLE1_PRESETS, plan_table1
from kdant_tf.studies.study_plan import StudySettings, read_sources, run_folder
from tf_records.manifest import load_manifest


def reproduce(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["reproduce", *map(str, arguments)])


def refuse(*arguments: object, code: int = 1) -> str:
    result = reproduce(*arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return result.stderr


@pytest.fixture
def study(tmp_path: Path, record_folder: Path) -> Path:
    """Two students of seed 4, trained and evaluated as far as their files tell: half and all are right."""
    out = tmp_path / "study"
    settings = StudySettings(presets=TABLE1_PRESETS, scale="tiny")
    sources = read_sources([record_folder], seeds=[(4,)])
    manifest = load_manifest(record_folder)
    for spec in plan_table1(sources, settings, ["none", "direct"]).runs:
        folder = run_folder(out, spec.name)
        folder.mkdir(parents=True)
        Run(
            folder=folder,
            role=spec.role,
            config=spec.config,
            classes=manifest.classes,
            clip=manifest.clip,
            modality="rgb",
            short_side=manifest.short_side,
            records_sha256=manifest_sha256(record_folder),
        ).save()
        (folder / "model.keras").touch()
        row = ",".join(["1", *["0.5"] * len(METRICS)])
        (folder / "metrics.csv").write_text(f"epoch,{','.join(METRICS)}\n{row}\n")
        (folder / "evaluation.json").write_text("{}")
        first = np.array([0.9, 0.9, 0.9, 0.9] if spec.name.endswith("direct") else [0.9, 0.9, 0.1, 0.1])
        predictions = Predictions(
            probabilities=np.stack([first, 1 - first], axis=1),
            labels=np.zeros(4, int),
            ids=np.array(list("abcd")),
            videos=np.array(list("abcd")),
        )
        for view in spec.views:
            save_predictions(folder / "predictions.npz", f"{view}/test", predictions)
    return out


def test_a_summary_prints_and_writes_the_table_of_what_is_finished(study: Path, record_folder: Path) -> None:
    command = ("table1", "--records", record_folder, "--out", study, "--scale", "tiny", "--seeds", 4)
    rows = ("--rows", "none,direct")
    result = reproduce(*command, *rows, "--summarize")
    assert result.exit_code == 0, result.stderr
    for words in (
        "Table 1",
        "student direct",
        "50.0",
        "100.0",
        "+50.0 [",
        "69.5",
        "are from none",
    ):
        assert words in result.stdout
    assert "Not finished" not in result.stderr
    assert {path.suffix for path in study.glob("table1.*")} == {".csv", ".json", ".tex"}
    table = json.loads(reproduce(*command, *rows, "--summarize", "--json").stdout)
    direct = table["rows"][1]["columns"]["RGB"]
    assert (direct["ours"]["mean"], direct["difference"]["value"]) == (1.0, 0.5)


def test_a_finished_study_trains_nothing_and_a_missing_run_is_named(study: Path, record_folder: Path) -> None:
    command = ("table1", "--records", record_folder, "--out", study, "--scale", "tiny", "--seeds", 4)
    result = reproduce(*command, "--rows", "none,direct", "--resume")
    assert result.exit_code == 0, result.stderr
    assert "3 of 3 runs were finished before." in result.stderr
    assert not (study / "logs").exists()
    result = reproduce(*command, "--rows", "none,bidirectional", "--summarize")
    assert result.exit_code == 0, result.stderr
    assert "Not finished, so not in the table: rgb-split1-seed4-bidirectional" in result.stderr


@pytest.mark.parametrize("why", ["read-only", "full"])
@pytest.mark.parametrize("known", [True, False], ids=["known-table", "new-table"])
def test_a_table_that_cannot_be_written_is_printed(
    study: Path, record_folder: Path, why: str, known: bool, read_only, full_disk
) -> None:
    command = ("table1", "--records", record_folder, "--out", study, "--scale", "tiny", "--seeds", 4)
    summary = (*command, "--rows", "none,direct", "--summarize")
    if known:
        assert reproduce(*summary).exit_code == 0
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    with read_only(study) if why == "read-only" else full_disk():
        result = reproduce(*summary)
        table = json.loads(reproduce(*summary, "--json").stdout)
    assert result.exit_code == 1
    assert "+50.0 [" in result.stdout
    assert table["rows"][1]["columns"]["RGB"]["ours"]["mean"] == 1.0
    reason = "Read-only file system|Permission denied" if why == "read-only" else "File too large"
    assert re.fullmatch(
        rf"Error: The results were printed but cannot be kept in {study}: ({reason})\. Make that folder "
        r"writable, with room in it, and give the same command with --summarize\.\n",
        result.stderr,
    )
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before


def test_what_an_earlier_network_answered_is_not_in_the_table(study: Path, record_folder: Path) -> None:
    """Its run was trained further, so that it is not finished but for its training."""
    run = study / "runs" / "rgb-split1-seed4-direct"
    results = {"observed": {"top1": 1.0, "weights_sha256": "0" * 64}}
    (run / "evaluation.json").write_text(json.dumps(results))
    command = ("table1", "--records", record_folder, "--out", study, "--scale", "tiny", "--seeds", 4)
    result = reproduce(*command, "--rows", "none,direct", "--summarize")
    assert result.exit_code == 0, result.stderr
    assert "Not finished, so not in the table: rgb-split1-seed4-direct" in result.stderr
    assert "100.0" not in result.stdout


def test_predictions_of_another_network_are_not_in_the_table(study: Path, record_folder: Path) -> None:
    """As where predictions.npz was copied from another run, or its training went on and was killed."""
    run = study / "runs" / "rgb-split1-seed4-direct"
    kept = load_predictions(run / "predictions.npz", "observed/test")
    assert kept is not None
    command = ("table1", "--records", record_folder, "--out", study, "--scale", "tiny", "--seeds", 4)
    for digest, there in ((weights_sha256(run / "model.keras"), True), ("0" * 64, False)):
        other = dataclasses.replace(kept, weights_sha256=digest)
        save_predictions(run / "predictions.npz", "observed/test", other)
        result = reproduce(*command, "--rows", "none,direct", "--summarize")
        assert result.exit_code == 0, result.stderr
        assert ("100.0" in result.stdout) == there
        assert ("Not finished, so not in the table: rgb-split1-seed4-direct" in result.stderr) != there


def test_a_student_of_a_teacher_that_was_trained_again_is_refused(study: Path, record_folder: Path) -> None:
    teacher, student = (study / "runs" / f"rgb-split1-seed4-{name}" for name in ("teacher", "none"))
    run = load_run(student)
    command = ("table1", "--records", record_folder, "--out", study, "--scale", "tiny", "--seeds", 4)
    rows = ("--rows", "none", "--summarize")
    dataclasses.replace(run, teacher_sha256=weights_sha256(teacher / "model.keras")).save()
    assert reproduce(*command, *rows).exit_code == 0
    (teacher / "model.keras").write_bytes(b"trained again")
    assert "was taught by another network than" in refuse(*command, *rows)


def test_a_study_itself_needs_no_tensorflow(study: Path, record_folder: Path) -> None:
    """Its runs, in processes of their own, do."""
    command = ["reproduce", "table1", "--records", str(record_folder), "--out", str(study), "--resume"]
    options = ["--scale", "tiny", "--seeds", "4", "--rows", "none,direct"]
    script = (
        "import sys\n"
        "from kdant_cli.main import main\n"
        f"main({[*command, *options]!r}, standalone_mode=False)\n"
        f"assert not {{'tensorflow', 'keras'}} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("3 of 3 runs were finished before.")


def test_runs_of_other_settings_are_refused(study: Path, record_folder: Path) -> None:
    command = ("table1", "--records", record_folder, "--out", study, "--scale", "tiny", "--seeds", 4)
    for mode in ("--resume", "--summarize"):
        message = refuse(*command, "--rows", "none", mode, "--label-fraction", 0.5)
        assert "was begun with other settings: label_fraction 1.0 → 0.5" in message


def test_wishes_that_cannot_be_met_are_refused_before_anything_is_made(
    record_folder: Path, tmp_path: Path
) -> None:
    command = ("table1", "--records", record_folder, "--out", tmp_path)
    for options, message in (
        (("--rows", "noen"), "There is no row 'noen' in this table"),
        (("--splits", "1,3"), "no records of split 3"),
        (("--flow-records", record_folder), "holds no optical flow"),
        (("--preset", "nothing"), "There is no preset"),
        (("--seeds", 1, "--seeds", 2), "--seeds should be given once"),
        (("--records", record_folder, "--splits", "3"), "no records of split 3"),
    ):
        assert message in refuse(*command, *options)
    inside = ("table1", "--records", record_folder, "--out", record_folder / "study")
    assert "should lie apart" in refuse(*inside)
    missing = ("table1", "--records", record_folder, "--out", tmp_path / "none")
    assert "does not exist" in refuse(*missing, "--summarize")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        *(("--feature-weights", "1,default"), ("--alphas", "a"), ("--feature-losses", "huber")),
        *(("--validation-fraction", 1), ("--alphas", "-1"), ("--seeds", "1,1"), ("--seeds", "")),
    ],
)
def test_values_that_cannot_be_are_wrong_usage(
    options: tuple[str, object], record_folder: Path, tmp_path: Path
) -> None:
    assert options[0] in refuse("sweep", "--records", record_folder, "--out", tmp_path, *options, code=2)
    assert not list(tmp_path.iterdir())
