"""What config.json says of where a run came from."""

import json
import shutil
import subprocess
import sys

import pytest

from kdant_tf import runs
from kdant_tf.runs import describe_checkout, load_run


def git(folder, *arguments):
    identity = ("-c", "user.name=kdant", "-c", "user.email=kdant@example.org")
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git")
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_a_checkout_has_a_commit_and_may_be_dirty(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert describe_checkout(checkout) == {"commit": commit, "dirty": False}
    (checkout / "file").write_text("2")
    assert describe_checkout(checkout) == {"commit": commit, "dirty": True}


def test_what_is_no_checkout_has_none(checkout, tmp_path, monkeypatch):
    (checkout / "site-packages").mkdir()
    assert describe_checkout(checkout / "site-packages") is None
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert describe_checkout(checkout) is None


def test_a_broken_checkout_has_none(tmp_path):
    (tmp_path / ".git").write_text("gitdir: nowhere")
    assert describe_checkout(tmp_path) is None


def test_config_json_names_versions_commit_command_and_how_it_ran(finished_run, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kdant", "train-teacher", "--out", "a folder"])
    monkeypatch.setattr(runs, "_CHECKOUT", tmp_path)
    written = json.loads(load_run(finished_run).to_json())
    assert written["command"] == "kdant train-teacher --out 'a folder'"
    assert written["git"] is None
    assert {"kdant", "python", "tensorflow", "keras"} <= set(written["versions"])
    assert written["config"]["validation_fraction"] == 0.0
    assert written["execution"]["devices"] == "auto"
    assert len(written["records_sha256"]) == 64


def test_a_run_of_before_has_none_of_it_and_loads(finished_run, tmp_path):
    fields = json.loads((finished_run / "config.json").read_text("utf-8"))
    for name in ("git", "command", "execution"):
        del fields[name]
    del fields["config"]["validation_fraction"]
    (tmp_path / "config.json").write_text(json.dumps(fields), "utf-8")
    assert load_run(tmp_path, finished=False).config.validation_fraction == 0.0
