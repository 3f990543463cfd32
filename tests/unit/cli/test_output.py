"""What commands print, and how they count."""

import io
import json
import os
import types
from pathlib import Path

import psutil
import pytest
from kdant_cli import output
from kdant_cli.output import (
    BuildProgress,
    CountProgress,
    clock,
    percent,
    print_fields,
    print_json,
    print_table,
    warn_of_other_network,
)
from rich.console import Console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal gets of progress."""
    screen = io.StringIO()
    monkeypatch.setattr(
        output, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100, height=20)
    )
    return screen


def shard(records: int, skipped: int = 0) -> types.SimpleNamespace:
    """Of a ShardResult, what counts."""
    return types.SimpleNamespace(
        shard=types.SimpleNamespace(records=records), skipped=[""] * skipped, videos=records, frames_decoded=9
    )


def test_json_is_one_line_in_its_own_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"class": "løpe", "top1": 0.5})
    out = capsys.readouterr().out
    assert json.loads(out) == {"class": "løpe", "top1": 0.5}
    assert out.endswith("}\n")
    assert "løpe" in out


def test_tables_cut_nothing_and_read_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table("A title that is wider than the table below it", ("class", "top-1"), [("[bold]x", 1.5)])
    print_fields("", {"name": "long " * 20})
    out = capsys.readouterr().out
    assert "[bold]x" in out
    assert out.count("long") == 20


def test_numbers_in_words() -> None:
    assert (percent(0.123456), percent(1)) == ("12.3 %", "100.0 %")
    assert percent(float("nan")) == "none"
    assert [clock(seconds) for seconds in (0, 59.6, 3723)] == ["0:00:00", "0:01:00", "1:02:03"]


def test_counting_is_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with CountProgress("reading", 3) as progress:
        progress.advance(3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_counting_draws_a_bar_on_a_terminal(terminal: io.StringIO) -> None:
    with CountProgress("reading", 3) as progress:
        progress.advance(2)
        progress.progress.refresh()
    assert "reading" in terminal.getvalue()
    assert "2/3" in terminal.getvalue()


def test_a_build_prints_a_line_in_twenty_parts_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress(100) as progress:
        for _ in range(99):
            progress.add_shard(shard(1))
        progress.add_shard(shard(0, skipped=1))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("building records: 5/100 samples, ")
    assert lines[-1].startswith("building records: 100/100 samples, ")
    assert "1 skipped, 0:00:00 left" in lines[-1]
    assert (progress.videos, progress.skipped, progress.frames_decoded) == (99, 1, 900)


def test_features_have_a_bar_of_their_own(terminal: io.StringIO) -> None:
    with BuildProgress(4) as progress:
        progress.add_shard(shard(4))
        for records in (1, 2):
            progress.add_features(records)
        progress.progress.refresh()
    assert "extracting features" in terminal.getvalue()
    assert "3/4" in terminal.getvalue()


def test_memory_of_the_process_and_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    held = psutil.Process(os.getpid()).memory_info().rss
    for gpu, end in ((None, " GB"), (3_200_000_000, " GB, GPU 3.2 GB")):
        monkeypatch.setattr(output, "gpu_bytes", lambda gpu=gpu: gpu)
        words = output.describe_memory()
        assert words.endswith(end)
        assert float(words.split()[0]) == pytest.approx(held / 1e9, abs=0.2)


def test_a_network_that_is_not_the_trainings_is_named(
    tiny_run: Path, swapped_run: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_other_network(tiny_run, exported, None)
    assert capsys.readouterr() == ("", "")
    warn_of_other_network(tiny_run, swapped_run)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"Warning: run {swapped_run} has another model.keras than its training left; its settings and "
        f"metrics are not this network's.\n"
    )
