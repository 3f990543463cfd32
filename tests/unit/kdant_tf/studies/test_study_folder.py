"""study.json, and what a study runs on."""

import json
import os
from pathlib import Path

import pytest

from kdant_tf.studies.study_folder import StudyFile, count_cores, describe_hardware, visible_gpus
from kdant_tf.studies.study_plan import Network, RecordSource, StudySettings, plan_runs
from tf_records.errors import RunError


def test_tables_and_seconds_are_kept_beside_each_other(tmp_path: Path, record_folder: Path) -> None:
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(0,))
    runs = plan_runs([Network(name="teacher", role="teacher", views=("future",))], [source], StudySettings())
    file = StudyFile(tmp_path)
    about = file.save_description("table1", "tiny", runs)
    file.add_seconds("a", 1.5)
    again = StudyFile(tmp_path)
    again.save_description("table2", "tiny", [])
    again.add_seconds("a", 2.0)
    kept = json.loads((tmp_path / "study.json").read_text())
    assert kept["seconds"] == {"a": 3.5}
    assert list(kept["tables"]) == ["table1", "table2"]
    assert kept["tables"]["table1"] == json.loads(json.dumps(about))
    (run,) = about["runs"]
    assert (run["name"], run["views"]) == ("rgb-split1-seed0-teacher", ["future"])
    assert run["config"]["init"] is None
    assert {"versions", "git", "command", "hardware", "scale"} < set(about)


@pytest.mark.parametrize("text", ["{", "[]", '{"seconds": 3}', '{"tables": null}'])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(RunError, match="cannot be read"):
        StudyFile(tmp_path)


def fake_smi(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that prints `lines`."""
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_gpus_are_those_that_cuda_would_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path, "0\\n1\\n", monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]
    for chosen, expected in (("1", ["1"]), ("2, 0", ["2", "0"]), ("-1", []), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert visible_gpus() == expected


def test_a_machine_without_gpus_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == []
    hardware = describe_hardware()
    assert hardware["gpus"] == []
    assert hardware["cpu"]
    assert hardware["cores"] == count_cores() >= 1
