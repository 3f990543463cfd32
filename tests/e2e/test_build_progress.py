"""What a build says while it runs, and what it counts."""

import json
from pathlib import Path

from click.testing import CliRunner
from kdant_cli.main import main


def test_a_build_tells_its_progress_and_counts_decoded_frames(tmp_path: Path, videos: Path) -> None:
    args = ["build-records", "--source", "synthetic", "--input", str(videos), "--short-side", "16", "--json"]
    result = CliRunner().invoke(main, [*args, "--shards", "3", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("building records: ")]
    assert len(lines) == 6  # shards
    assert lines[-1].startswith("building records: 28/28 samples, ")
    assert lines[-1].endswith(" videos/s, 0 skipped, 0:00:00 left")
    decoded = json.loads(result.stdout)["frames_decoded"]
    assert 28 * 24 <= decoded <= 28 * 40  # of 40 frames each, what the segments span
    again = CliRunner().invoke(main, [*args, "--shards", "3", "--out", str(tmp_path / "out"), "--resume"])
    assert json.loads(again.stdout)["frames_decoded"] == 0


def test_beyond_the_limits_a_video_is_skipped_by_name(tmp_path: Path, videos: Path) -> None:
    args = ["build-records", "--source", "synthetic", "--input", str(videos), "--out", str(tmp_path / "out")]
    small = CliRunner().invoke(main, [*args, "--max-pixels", "1000"])
    assert small.exit_code == 1
    assert "88x64, more than the 1000 pixels allowed. If they are meant, raise --max-pixels." in small.stderr
    short = CliRunner().invoke(main, [*args, "--max-seconds", "1"])
    assert short.exit_code == 1
    assert "lasts 2 s or more, longer than the 1 s allowed" in short.stderr
    assert not list((tmp_path / "out").iterdir())
