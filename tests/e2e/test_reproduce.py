"""kdant reproduce on rendered videos in JHMDB's layout: killed and resumed, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main

from kdant_tf.evaluation.evaluate import predict
from kdant_tf.models.networks import load_network
from kdant_tf.runs import load_run
from kdant_tf.training.job import prepare_job
from tf_records.files import lock_folder
from tf_records.reader import evaluation_batches
from tf_records.records import Records

COMMAND = (sys.executable, "-c", "from kdant_cli.main import main; main(prog_name='kdant')")
SCALE = ("--scale", "tiny", "--devices", "cpu", "--seeds", "4")


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kdant_json(*args: object) -> dict:
    result = kdant(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refuse(*args: object, code: int = 1) -> str:
    result = kdant(*args)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def records(tmp_path_factory, jhmdb_layout) -> Path:
    """Split 2 of two classes: of each, four videos to train on and three to test."""
    root = tmp_path_factory.mktemp("reproduce")
    jhmdb_layout(root / "jhmdb", split=2, train=4, test=3)
    source = ("--source", "jhmdb", "--split", 2, "--input", root / "jhmdb", "--short-side", 64)
    kdant_json("build-records", *source, "--out", root / "records")
    return root / "records"


@pytest.fixture(scope="module")
def tiny(tiny_settings: Path) -> tuple[str, ...]:
    """Options of a study that takes seconds."""
    return (*SCALE, "--config", str(tiny_settings))


@pytest.fixture(scope="module")
def study(records: Path, tiny: tuple[str, ...]) -> Path:
    """Of a teacher and a student, stopped in the middle and gone on with."""
    out = records.parent / "study"
    command = ("reproduce", "table1", "--records", str(records), "--out", str(out), *tiny)
    with subprocess.Popen(
        [*COMMAND, *command, "--rows", "recognition,none"], stderr=subprocess.PIPE, text=True
    ) as begun:
        assert begun.stderr is not None
        first = begun.stderr.readline()
        assert first.startswith("1/2 runs: rgb-split2-seed4-teacher: future top-1 "), first
        begun.terminate()
        rest = begun.stderr.read()
    assert begun.returncode == 1
    assert "Stopped by SIGTERM: 1 of 2 runs are finished. Go on with the same command and --resume." in rest
    return out


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def test_a_study_is_stopped_and_resumed(records: Path, study: Path, tiny: tuple[str, ...]) -> None:
    command = ("reproduce", "table1", "--records", records, "--out", study, *tiny)
    assert "is not empty" in refuse(*command)
    about = (study / "study.json").read_bytes()
    with lock_folder(study, "study"):  # as while it runs
        assert "Another study is writing" in refuse(*command, "--rows", "recognition,none", "--resume")
        early = kdant_json(*command, "--rows", "recognition,none", "--summarize")
    assert early["missing"] == ["rgb-split2-seed4-none"]
    assert (study / "study.json").read_bytes() == about
    before = contents(study / "runs" / "rgb-split2-seed4-teacher")
    table = kdant_json(*command, "--rows", "recognition,none", "--resume")
    assert contents(study / "runs" / "rgb-split2-seed4-teacher") == before
    assert table["missing"] == []
    assert table["scale"] == "tiny, with network.toml (crop 32, width 0.0625, 1 epochs)"
    recognition, none = (row["columns"]["RGB"] for row in table["rows"])
    kept = json.loads((study / "runs" / "rgb-split2-seed4-none" / "evaluation.json").read_text())
    assert none["ours"]["mean"] == kept["observed"]["top1"]
    assert none["values"] == [{"split": "2", "seed": 4, "value": kept["observed"]["top1"]}]
    assert recognition["published"] == 0.753
    everything = contents(study / "runs")
    assert kdant_json(*command, "--rows", "recognition,none", "--resume") == table
    assert contents(study / "runs") == everything
    assert {path.name for path in study.iterdir()} == {
        *("runs", "configs", "logs", "study.json", "table1.csv", "table1.json", "table1.tex")
    }
    about = json.loads((study / "study.json").read_text())
    assert set(about["seconds"]) == {"rgb-split2-seed4-teacher", "rgb-split2-seed4-none"}
    assert about["tables"]["table1"]["hardware"]["cores"] == len(os.sched_getaffinity(0))


def test_the_settings_of_a_run_make_it_again(records: Path, study: Path) -> None:
    """The interrupted student is the one that the command in its settings makes in one go."""
    kept = study / "runs" / "rgb-split2-seed4-none"
    settings = study / "configs" / "rgb-split2-seed4-none.toml"
    command = settings.read_text().splitlines()[0].removeprefix("# kdant ")
    again = records.parent / "again"
    kdant_json(*command.replace(str(kept), str(again)).split(), "--devices", "cpu")
    assert (again / "metrics.csv").read_text() == (kept / "metrics.csv").read_text()
    again_run, kept_run = (json.loads((run / "config.json").read_text()) for run in (again, kept))
    assert again_run["config"] == kept_run["config"]


def test_records_of_one_split_twice_are_refused(records: Path, tmp_path: Path) -> None:
    table1 = ("reproduce", "table1", "--records", records, "--out", tmp_path, *SCALE)
    assert "Two of --records are of split 2" in refuse(*table1, "--records", records)
    assert not list(tmp_path.iterdir())


def test_a_failing_run_is_named(records: Path, tmp_path: Path) -> None:
    """More pairs a batch than there are; its student is not begun."""
    config = tmp_path / "large.toml"
    config.write_text("batch_size = 512\n")
    out = tmp_path / "study"
    options = ("--records", records, "--out", out, *SCALE, "--rows", "none", "--config", config)
    result = kdant("reproduce", "table1", *options)
    assert result.exit_code == 1
    assert "rgb-split2-seed4-teacher: FAILED: Batch size 512 is larger than the 8 training" in result.stderr
    assert "2 of 2 runs failed, the first is rgb-split2-seed4-teacher: Batch size 512" in result.stderr
    assert "Not finished, so not in the table: rgb-split2-seed4-none" in result.stderr
    assert "Traceback" not in result.stderr


def test_labels_alone_train_an_anticipation_network(records: Path, tmp_path: Path) -> None:
    """Without a teacher: it trains, validates and is evaluated on the observed segments."""
    settings = tmp_path / "settings.toml"
    settings.write_text(
        "model = 'tiny_network:build'\nteacher_view = 'observed'\nvalidation_fraction = 0.25\ncrop = 32\n"
        "epochs = 1\nbatch_size = 2\nwindows = 1\n"
    )
    run = tmp_path / "run"
    training = ("train-teacher", "--records", records, "--config", settings, "--out", run, "--devices", "cpu")
    trained = kdant_json(*training)
    assert kdant_json("evaluate", run, "--records", records)["view"] == "observed"
    opened = Records.open(records)
    config = load_run(run).config
    job = prepare_job(opened, tmp_path / "other", config, None)
    assert job.views == ("observed",)
    seen = predict(
        load_network(load_run(run)),
        evaluation_batches(
            opened, split="train", view="observed", batch_size=2, crop=32, windows=1, chosen=job.held_out
        ),
        opened.split("train").records,
    )
    assert trained["validation_accuracy"] == pytest.approx(seen.correct().mean())


def test_one_study_in_a_folder(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    out.mkdir()
    with lock_folder(out, "study"):
        message = refuse("reproduce", "table1", "--records", records, "--out", out, *SCALE, "--resume")
    assert f"Another study is writing to {out}." in message
