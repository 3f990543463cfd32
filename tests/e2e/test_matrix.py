"""Every command under what users run them in: any encoding, no stderr, narrow terminals, odd paths, no place.

A command does its work, or says in one sentence why not; JSON stays JSON.
"""

import contextlib
import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from kdant_cli.main import main

from kdant_tf.evaluation.evaluate import evaluate_run

Paths = dict[str, Path]
Protect = Callable[[Path], contextlib.AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A command as users type it; `arguments` has {names} of paths, {out} is a place of its own.

    Some print what they found before they write. What is slow is left out of environments that only tables
    on stdout depend on.
    """

    arguments: str
    writes: bool = False
    exit_code: int = 0
    slow: bool = False
    prints: bool = False

    @property
    def title(self) -> str:
        words = [word for word in self.arguments.split() if "{" not in word and not word.startswith("-")]
        return "-".join(words[:2]) + ("" if self.exit_code == 0 else "-refused")


TRAINING = (
    "--records {records} --out {out} --crop 32 --epochs 1 --batch-size 8 --model tsn "
    "--tsn-backbone Tiny --segments 2 --init random"
)
CASES = (
    Case(
        "build-records --source csv --input {csv} --out {out} --clip-frames 8 --offset-frames 8 --json", True
    ),
    Case("inspect {records} --json"),
    Case("inspect {records}"),
    Case("inspect {records} --contact-sheet {out}.png --samples 1", True, prints=True),
    Case("extract-features {nothing} --init random --out {out}", exit_code=1),
    Case(f"train-teacher {TRAINING}", True, slow=True),
    Case(f"distill --teacher {{run}} {TRAINING} --feature-loss none", True, slow=True),
    Case("evaluate {run} --records {records} --json"),
    Case("evaluate {run} --records {records} --per-class"),
    Case("visualize {run} --records {records} --out {out} --pictures confusion", True),
    Case("report {run} --records {records} --out {out}.html", True, slow=True),
    Case("report {run} --out {out}.html", True),
    Case("runs {folder} --json"),
    Case("runs {folder}"),
    Case("export {run} --out {out} --json", True),
    Case("predict {video} --model {exported} --json-lines"),
    Case("predict {video} --model {exported}"),
    Case("predict {video} --model {exported} --overlay {out}.mp4", True, prints=True),
    Case("benchmark {run} --repeats 1 --batch-sizes 1 --frame 64x48 --json"),
    Case("reproduce table1 --records {nothing} --out {out}", exit_code=1),
    Case("reproduce sweep --records {nothing} --out {out}", exit_code=1),
    Case("reproduce drift --out {folder}", exit_code=1),
    Case("demo --out {folder}", exit_code=1),
    Case("presets --json"),
    Case("presets jhmdb-small"),
)


WRITERS = [case for case in CASES if case.writes]
# They take long; where nothing can be written, they should say so before they begin.
LONG = [
    Case("extract-features {records} --init random --out {out}", True),
    Case("reproduce table1 --scale tiny --seeds 0 --records {records} --out {out}", True),
    Case("reproduce drift --scale tiny --out {out}", True),
    Case("demo --size tiny --out {out}", True),
]
# Without what takes its time: a report with samples is written like one without, a teacher like a student.
SHORT = [case for case in CASES if not case.arguments.startswith(("report {run} --records", "train-teacher"))]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left: bytes of stdout, text of stderr."""

    exit_code: int
    stdout: bytes
    stderr: str


def lay_out(folder: Path, records: Path, run: Path, exported: Path, videos: Path) -> Paths:
    """A folder of a user's: videos with a CSV, records, an evaluated run and its export."""
    folder.mkdir(parents=True)
    video = Path(shutil.copy(min(videos.glob("*.mp4")), folder / "a video.mp4"))
    table = folder / "my actions.csv"
    table.write_text(
        "video,start_s,end_s,label,split\n"
        + "".join(
            f"a video.mp4,{0.8 + n / 10},{1.4 + n / 10},café,{'test' if n else 'train'}\n" for n in range(2)
        ),
        encoding="utf-8",
    )
    paths = {"folder": folder, "video": video, "csv": table, "nothing": folder / "nothing here"}
    for name, source in (("records", records), ("run", run), ("exported", exported)):
        paths[name] = Path(shutil.copytree(source, folder / name))
    evaluate_run(paths["run"], paths["records"])
    return paths


@pytest.fixture(scope="module")
def plain(record_folder: Path, tiny_run: Path, exported: Path, videos: Path, tmp_path_factory: Any) -> Paths:
    return lay_out(tmp_path_factory.mktemp("plain") / "user", record_folder, tiny_run, exported, videos)


@pytest.fixture(scope="module")
def odd(record_folder: Path, tiny_run: Path, exported: Path, videos: Path, tmp_path_factory: Any) -> Paths:
    folder = tmp_path_factory.mktemp("odd") / "Vidéos d'été & 你好"
    return lay_out(folder, record_folder, tiny_run, exported, videos)


@contextlib.contextmanager
def streams(
    monkeypatch: pytest.MonkeyPatch, encoding: str, *, stderr: bool
) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    out, errors = io.BytesIO(), io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding, write_through=True))
        patch.setattr(
            sys, "stderr", io.TextIOWrapper(errors, encoding=encoding, write_through=True) if stderr else None
        )
        yield out, errors
        # Wrappers let go of what was written; what the command itself put in the place of stderr is closed.
        sys.stdout.detach()
        sys.stderr.detach() if stderr else sys.stderr.close()


def run_case(
    case: Case,
    paths: Paths,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str = "utf-8",
    stderr: bool = True,
) -> Result:
    arguments = [word.format(**paths, out=out) for word in case.arguments.split()]
    with streams(monkeypatch, encoding, stderr=stderr) as (stdout, errors):
        try:
            code = main.main(arguments, prog_name="kdant", standalone_mode=True) or 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    result = Result(code, stdout.getvalue(), errors.getvalue().decode(encoding))
    assert "Traceback" not in result.stderr
    return result


def refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def check(case: Case, result: Result, encoding: str = "utf-8") -> None:
    assert result.exit_code == case.exit_code, result.stderr
    # Into streams of ASCII, click writes UTF-8; JSON is ASCII there.
    text = result.stdout.decode(
        "utf-8" if encoding == "ascii" and "--json" not in case.arguments else encoding
    )
    if "--json" in case.arguments and case.exit_code == 0:
        for line in text.splitlines() if "--json-lines" in case.arguments else [text]:
            assert isinstance(json.loads(line, parse_constant=refuse), dict)
    if case.exit_code:
        assert text == ""


@pytest.fixture(autouse=True)
def _tiny(tiny_backbone: str) -> None:
    """TSN on a network of one convolution."""


ENVIRONMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "ascii": lambda patch: None,
    "no-stderr": lambda patch: None,
    "40-columns": lambda patch: patch.setenv("COLUMNS", "40"),
    "no-color": lambda patch: patch.setenv("NO_COLOR", "1"),
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_in_any_environment(
    case: Case, environment: str, plain: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.slow and environment in ("40-columns", "no-color"):
        pytest.skip("progress and logs go to stderr")
    ENVIRONMENTS[environment](monkeypatch)
    encoding, stderr = "ascii" if environment == "ascii" else "utf-8", environment != "no-stderr"
    result = run_case(case, plain, tmp_path / "out", monkeypatch, encoding, stderr)
    check(case, result, encoding)
    if case.exit_code and stderr:
        assert result.stderr.splitlines()[-1].startswith("Error: ")
    if environment == "no-color":
        assert b"\x1b" not in result.stdout
        assert "\x1b" not in result.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_on_paths_with_spaces_and_accents(
    case: Case, odd: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Résultats de « 你 »"
    folder.mkdir()
    check(case, run_case(case, odd, folder / "out put", monkeypatch))


@pytest.mark.parametrize("case", WRITERS + LONG, ids=lambda case: case.title)
def test_where_nothing_can_be_written(
    case: Case, plain: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a file no user, not even root, can make a folder.
    (tmp_path / "file").write_text("mine")
    result = run_case(case, plain, tmp_path / "file" / "out", monkeypatch)
    assert result.exit_code in (1, 2)
    assert case.prints or result.stdout == b""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert str(tmp_path / "file") in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def one_error(result: Result) -> str:
    """The only line that begins with "Error: "."""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("case", WRITERS + LONG, ids=lambda case: case.title)
def test_into_a_read_only_folder(
    case: Case, there: bool, plain: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: Protect
) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    with read_only(tmp_path):
        result = run_case(case, plain, out, monkeypatch)
    assert result.exit_code == 1
    assert case.prints or result.stdout == b""
    assert str(tmp_path) in one_error(result)
    assert list(tmp_path.rglob("*")) == [out] * there


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.title)
def test_of_a_read_only_folder(
    case: Case, plain: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: Protect
) -> None:
    """What is computed is printed, or written elsewhere; what belongs into the folder is missed."""
    with read_only(plain["folder"]):
        result = run_case(case, plain, tmp_path / "out", monkeypatch)
    if case.arguments.startswith("evaluate"):
        assert f"cannot be kept in {plain['run']}: " in one_error(result)
        assert result.stdout
        result = dataclasses.replace(result, exit_code=0)
    check(case, result)


@pytest.mark.parametrize("case", [case for case in SHORT if case.writes], ids=lambda case: case.title)
def test_onto_a_full_disk(
    case: Case, plain: Paths, full_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_case(case, plain, full_folder / "out", monkeypatch)
    assert (result.exit_code, bool(result.stdout)) == (1, case.prints)
    assert str(full_folder) in one_error(result)
    assert "No space left on device" in one_error(result)
    # No file is left half-written.
    assert [path for path in full_folder.rglob("*") if path.is_file() and path.stat().st_size] == [
        full_folder / ".filling"
    ]


def leaves(command: click.Command, before: str = "") -> Iterator[str]:
    """Names of all commands below one, such as "reproduce table1"."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from leaves(each, f"{before} {name}".strip())
    else:
        yield before


COMMANDS = (*leaves(main), "reproduce", "")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_wrong_usage(
    name: str, environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ENVIRONMENTS[environment](monkeypatch)
    encoding, stderr = "ascii" if environment == "ascii" else "utf-8", environment != "no-stderr"
    texts = run_case(Case(f"{name} --help"), {}, tmp_path, monkeypatch, encoding, stderr)
    assert (texts.exit_code, texts.stderr) == (0, "")
    lines = texts.stdout.decode().splitlines()
    assert lines[0].startswith(f"Usage: kdant {name}".strip())
    assert any(line.startswith("  -h, --help") for line in lines)
    if environment == "40-columns":
        assert max(map(len, lines)) <= 80
    wrong = run_case(Case(f"{name} --no-such-option"), {}, tmp_path, monkeypatch, encoding, stderr)
    assert (wrong.exit_code, wrong.stdout) == (2, b"")
    if stderr:
        assert "--no-such-option" in one_error(wrong)
        assert wrong.stderr.startswith(f"Usage: kdant {name}".strip())
    assert "\x1b" not in f"{texts.stdout!r}{wrong.stderr}"
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_in_the_matrix() -> None:
    missing = [name for name in leaves(main) if not any(case.arguments.startswith(name) for case in CASES)]
    # Options of table1.
    assert missing == ["reproduce table2", "reproduce table3", "reproduce figure4", "reproduce losses"]
