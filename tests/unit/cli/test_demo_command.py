"""`kdant demo`: its table, and where it says that the rest lies."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from kdant_cli.main import main

from kdant_tf import demo


def test_the_table_says_what_the_networks_gain_over_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"

    def run_demo(given: Path, size: str, **options: Any) -> Any:
        assert (given, size, options["overwrite"]) == (out, "tiny", False)
        options["on_stage"]("evaluating")
        evaluations = {
            name: SimpleNamespace(view=view, top1=top1, mean_class_accuracy=0.125, samples=12)
            for name, view, top1 in (("teacher", "future", 0.5), ("direct", "observed", 0.375))
        }
        return SimpleNamespace(
            evaluations=evaluations, chance=0.25, pictures=given / "pictures", exported=given / "export" / "1"
        )

    monkeypatch.setattr(demo, "run_demo", run_demo)
    result = CliRunner().invoke(main, ["demo", "--size", "tiny", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stderr == "evaluating …\n"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines()]
    assert "12 test videos; chance is 25.0 %" in result.stdout
    assert ["teacher", "future", "50.0 %", "12.5 %", "2.00"] in rows
    assert ["student direct", "observed", "37.5 %", "12.5 %", "1.50"] in rows
    assert f"Pictures: {out / 'pictures'}" in result.stdout
    assert f"SavedModel: {out / 'export' / '1'}" in result.stdout
