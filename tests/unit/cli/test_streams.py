"""Whatever encoding stdout has, and whether stderr is there, commands print what they have."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from kdant_cli.command import FOLDER, RECORD_FOLDER, KdantCommand
from kdant_cli.main import main
from kdant_cli.output import print_fields, print_json

from tf_records.errors import KdantError

ENCODINGS = ("ascii", "latin-1", "cp1252", "utf-8")
COMMAND = "import sys; from kdant_cli.main import main; sys.argv[0] = 'kdant'; main()"


@click.command(cls=KdantCommand)
@click.option("--json", "as_json", is_flag=True)
@click.option("--fail", is_flag=True)
def speak(as_json: bool, fail: bool) -> None:
    """Say something."""
    if fail:
        raise KdantError("café → 你")
    if as_json:
        print_json({"label": "café → 你 \udce9"})
    else:
        click.echo("café → 你 \udce9")
        print_fields("café → 你", {"label": "café → 你"})


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_keeps_what_the_encoding_has(encoding: str) -> None:
    result = CliRunner(charset=encoding).invoke(speak)
    assert result.exit_code == 0, result.exception
    assert "caf" in result.stdout
    assert ("é" in result.stdout) == (encoding != "ascii")
    assert ("你" in result.stdout) == (encoding == "utf-8")
    failed = CliRunner(charset=encoding).invoke(speak, ["--fail"])
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: caf")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_says_all_in_any_encoding(encoding: str) -> None:
    result = CliRunner(charset=encoding).invoke(speak, ["--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout) == {"label": "café → 你 \udce9"}


@pytest.mark.parametrize("name", [(), *((name,) for name in main.commands)], ids=str)
def test_help_in_ascii(name: tuple[str, ...]) -> None:
    assert CliRunner(charset="ascii").invoke(main, [*name, "--help"]).exit_code == 0


def run(*args: object, closed: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """kdant in a shell that closes some of its streams."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", COMMAND, *map(str, args)],
        capture_output=True,
        check=False,
        env={**os.environ, **variables},
    )


@pytest.mark.slow
def test_commands_go_on_without_stderr_or_stdout(exported: Path, videos: Path, tmp_path: Path) -> None:
    """A command that loads TensorFlow, which writes to the descriptor itself."""
    video = tmp_path / "ein Vidéo.mp4"
    video.write_bytes(sorted(videos.glob("*.mp4"))[0].read_bytes())
    done = run("predict", video, "--model", exported, "--json-lines", closed="2>&-", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert {json.loads(line)["source"] for line in done.stdout.splitlines()} == {str(video)}
    lines = run("predict", video, "--model", exported, PYTHONIOENCODING="cp1252", COLUMNS="40", NO_COLOR="1")
    assert lines.returncode == 0, lines.stderr
    assert lines.stdout.decode("cp1252").startswith(f"{video}: last frame seen ? when")
    silent = run("presets", closed=">&- 2>&-")
    assert silent.returncode == 0


@pytest.mark.parametrize("kind", [FOLDER, RECORD_FOLDER])
def test_a_path_that_is_not_utf8_is_refused_at_once(kind: Any) -> None:
    @click.command(cls=KdantCommand)
    @click.option("--out", type=kind)
    def write(out: Path) -> None:
        """Write."""

    result = CliRunner().invoke(write, ["--out", os.fsdecode(b"caf\xe9")])
    assert result.exit_code == 2
    assert r"'caf\\xe9' is not UTF-8, as a path has to be here. Rename it." in result.stderr
