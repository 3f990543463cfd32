"""The demo: which networks it trains with which teacher, and what it leaves of an earlier one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdant_tf import demo
from tf_records.errors import KdantError


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, float, str | None]]:
    """The trainings asked for, none of which takes place: folder, feature loss, its weight, teacher."""
    runs: list[tuple[str, str, float, str | None]] = []

    def train(records: Path, out: Path, config: Any, *, teacher: Any, **options: Any) -> None:
        assert (records / "manifest.json").is_file()
        name = None if teacher is None else teacher.folder.name
        runs.append((out.name, config.feature_loss, config.feature_weight, name))

    def load_run(folder: Path) -> Any:
        return SimpleNamespace(
            folder=folder, config=demo.resolve_config("teacher", preset="demo-tiny"), modality="rgb"
        )

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo, "load_run", load_run)
    monkeypatch.setattr(demo, "load_network", lambda run: run.folder.name)
    monkeypatch.setattr(demo, "evaluate_run", lambda run, records, network: f"evaluation of {network}")
    monkeypatch.setattr(demo, "visualize", lambda runs, records, out, networks: out.mkdir())
    monkeypatch.setattr(demo, "export_run", lambda run, out, network: SimpleNamespace(folder=out / network))
    return runs


@pytest.mark.slow
def test_a_teacher_and_three_students_are_trained(
    trained: list[tuple[str, str, float, str | None]], tmp_path: Path
) -> None:
    stages: list[str] = []
    result = demo.run_demo(str(tmp_path / "demo"), "tiny", on_stage=stages.append)
    assert [(name, loss, teacher) for name, loss, _, teacher in trained] == [
        ("teacher", "bidirectional", None),
        ("student-none", "none", "teacher"),
        ("student-direct", "direct", "teacher"),
        ("student-bidirectional", "bidirectional", "teacher"),
    ]
    assert {weight for _, _, weight, _ in trained[1:]} == {3.0}
    assert result.chance == 0.25
    assert result.exported == tmp_path / "demo" / "export" / "student-bidirectional"
    assert list(result.evaluations) == ["teacher", "none", "direct", "bidirectional"]
    assert len(stages) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_only_what_an_earlier_demo_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "old").touch()
    (tmp_path / "mine").touch()
    with pytest.raises(KdantError, match="not empty"):
        demo.run_demo(tmp_path, "tiny")
    assert (tmp_path / "teacher" / "old").exists()
    demo.run_demo(tmp_path, "tiny", overwrite=True)
    assert (tmp_path / "mine").exists()
    assert not (tmp_path / "teacher").exists()
