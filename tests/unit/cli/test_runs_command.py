"""`kdant runs`: what it says of finished, unfinished and broken run folders."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from kdant_cli.main import main

from kdant_tf.config import TrainConfig
from kdant_tf.runs import Run, load_run, weights_sha256
from tf_records.schema import ClipSpec

HEADER = "epoch,learning_rate,loss,classification_loss,feature_loss,accuracy"
VALIDATED = f"{HEADER},validation_loss,validation_accuracy,validation_mean_class_accuracy"


def write_run(folder, *rows, header=HEADER, finished=False, role="teacher", **settings):
    folder.mkdir(parents=True)
    run = Run(
        folder=folder,
        role=role,
        config=TrainConfig(**{"epochs": 3, **settings}),
        classes=("a", "b"),
        clip=ClipSpec(clip_frames=8, offset_frames=15),
        modality="rgb",
        short_side=64,
        records_sha256="0" * 64,
    )
    run.save()
    (folder / "metrics.csv").write_text("\n".join([header, *rows, ""]), "utf-8")
    if finished:
        run.model_path.write_bytes(b"")
    return folder


@pytest.fixture
def folder(tmp_path):
    rows = [
        f"{i},0.1,{1 / i},{1 / i},0.0,0.{i},{2 / i},{accuracy},0.5"
        for i, accuracy in ((1, 0.5), (2, 0.75), (3, 0.625))
    ]
    done = write_run(tmp_path / "a" / "done", *rows, header=VALIDATED, finished=True, width=0.25)
    (done / "evaluation.json").write_text(json.dumps({"future": {"top1": 0.5}, "observed": {"top1": 0.25}}))
    write_run(tmp_path / "begun", "1,0.1,2.0,2.0,0.0,0.25", seed=3)
    write_run(tmp_path / "new", role="student")
    (tmp_path / "begun" / "checkpoints" / "deep").mkdir(parents=True)
    (tmp_path / "begun" / "checkpoints" / "deep" / "config.json").write_text("not looked at")
    return tmp_path


def test_runs_are_listed_with_what_tells_them_apart(folder, exported):
    shutil.copytree(exported, folder / "served" / "1")  # no run, though it has a config.json
    result = CliRunner().invoke(main, ["runs", str(folder), "--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert listed["broken"] == []
    done, begun, new = listed["runs"]
    assert [run["state"] for run in (done, begun, new)] == ["finished", "in the middle", "no epoch done"]
    assert [run["epochs"] for run in (done, begun, new)] == [3, 1, 0]
    assert done["epochs_asked"] == 3
    assert done["settings"] == {"width": 0.25, "seed": 0}
    assert new["settings"] == {"width": 1.0, "seed": 0}
    assert (done["best"]["epoch"], done["best"]["validation_accuracy"]) == (2, 0.75)
    assert (done["last"]["accuracy"], begun["last"]["accuracy"], new["last"]) == (0.3, 0.25, {})
    assert begun["best"] == {}
    assert done["evaluation"]["observed"] == {"top1": 0.25}


def test_a_training_that_a_callback_ended_is_finished_until_it_goes_on(tmp_path):
    """Whatever the dates of its files, which copying changes."""
    folder = write_run(tmp_path / "early", "1,0.1,2.0,2.0,0.0,0.25", finished=True)
    run = load_run(folder)
    ended = dataclasses.replace(run, network_sha256=weights_sha256(run.model_path))
    for state, now in (("finished", ended), ("in the middle", run)):
        now.save()
        for seconds in (5, 20):
            os.utime(folder / "metrics.csv", (10, 10))
            os.utime(run.model_path, (seconds, seconds))
            (listed,) = json.loads(CliRunner().invoke(main, ["runs", str(folder), "--json"]).stdout)["runs"]
            assert listed["state"] == state


def test_a_network_of_another_training_is_told(tmp_path):
    folder = write_run(tmp_path / "run", "1,0.1,2.0,2.0,0.0,0.25", finished=True)
    run = load_run(folder)
    dataclasses.replace(run, network_sha256=weights_sha256(run.model_path)).save()
    run.model_path.write_bytes(b"of another run")
    assert "another network" in CliRunner().invoke(main, ["runs", str(folder)]).stdout


def test_the_table_has_the_same(folder):
    result = CliRunner().invoke(main, ["runs", str(folder)])
    assert result.exit_code == 0
    for text in ("a/done", "3/3 epochs", "width=0.25", "seed=3", "future 50.0 %", "in the middle"):
        assert text in result.stdout, text
    assert "learning_rate" not in result.stdout


def test_curves_over_shares_and_seconds_stand_beside_the_views(folder):
    """As `kdant evaluate --observe` and `--tau` keep them."""
    points = [{"share": x, "value": top1, "low": 0.0, "high": 1.0} for x, top1 in ((0.2, 0.25), (1.0, 0.5))]
    results = {
        "observed": {"split": "test", "top1": 0.25},
        "share": {"split": "test", "top1": points},
        "tau": {"split": "test", "top1": []},
    }
    (folder / "a" / "done" / "evaluation.json").write_text(json.dumps(results))
    result = CliRunner().invoke(main, ["runs", str(folder)])
    assert result.exit_code == 0, result.output
    for text in ("observed 25.0 %", "share 0.2 … 1:", "25.0 % … 50.0 %"):
        assert text in result.stdout, text
    (done, *_) = json.loads(CliRunner().invoke(main, ["runs", str(folder), "--json"]).stdout)["runs"]
    assert done["evaluation"] == results


def test_a_result_of_an_earlier_network_is_named_but_not_shown(folder):
    done = folder / "a" / "done"
    results = {"future": {"top1": 0.5, "weights_sha256": "0" * 64}}
    (done / "evaluation.json").write_text(json.dumps(results))
    (listed, *_) = json.loads(CliRunner().invoke(main, ["runs", str(folder), "--json"]).stdout)["runs"]
    assert (listed["evaluation"], listed["stale"]) == ({}, ["future"])
    table = CliRunner().invoke(main, ["runs", str(folder)]).stdout
    assert "stale: future" in table
    assert "50.0 %" not in table


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", "{", "cannot be read"),
        ("config.json", '{"role": "teacher"}', "cannot be read"),
        ("config.json", None, "has no config.json"),
        ("metrics.csv", f"{HEADER}\n1,x,2,3,4,5\n", "metrics.csv cannot be read"),
        ("metrics.csv", f"{HEADER}\n1,2\n", "metrics.csv cannot be read"),
        ("metrics.csv", f"{HEADER}\n1,2,3,4,5,6,7\n", "metrics.csv cannot be read"),
        ("metrics.csv", "nonsense\n1\n", "metrics.csv cannot be read"),
        ("evaluation.json", "[", "evaluation.json cannot be read"),
        ("evaluation.json", '{"future": 3}', "holds no results"),
    ],
)
def test_a_broken_run_is_named_beside_the_others(folder, name, content, reason):
    path = folder / "begun" / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content, "utf-8")
    result = CliRunner().invoke(main, ["runs", str(folder), "--json"])
    assert result.exit_code == 0, result.stderr
    listed = json.loads(result.stdout)
    assert len(listed["runs"]) == 2
    (broken,) = listed["broken"]
    assert broken["run"] == str(folder / "begun")
    assert reason in broken["reason"]
    assert reason.split()[0] in CliRunner().invoke(main, ["runs", str(folder)]).stdout


def test_a_folder_without_runs_is_an_error(tmp_path):
    for path, message in ((tmp_path, "No run folder in"), (tmp_path / "none", "does not exist")):
        result = CliRunner().invoke(main, ["runs", str(path)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr


def test_a_run_folder_itself_is_listed(folder):
    listed = json.loads(CliRunner().invoke(main, ["runs", str(folder / "a" / "done"), "--json"]).stdout)
    (run,) = listed["runs"]
    assert (run["role"], run["settings"]) == ("teacher", {})


def test_listing_imports_no_tensorflow(folder):
    script = (
        "import sys\n"
        "from kdant_cli.main import main\n"
        f"for arguments in (['runs', {str(folder)!r}], ['presets'], ['presets', 'epic55']):\n"
        "    main(arguments, standalone_mode=False)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
