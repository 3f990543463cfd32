"""kdant inspect, as far as it needs no TensorFlow: what a manifest says, in a table and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.inspect import inspect

from tf_records.manifest import Manifest, ShardInfo, Skipped, SplitInfo
from tf_records.schema import ClipSpec


def run(*args: object) -> Result:
    return CliRunner().invoke(inspect, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[tuple[str, ...]], Path]:
    """Writes a manifest without shards' files: of each class as many training records as its place from 1."""

    def write(classes: tuple[str, ...]) -> Path:
        counts = {name: number for number, name in enumerate(classes, start=1)}
        shard = ShardInfo(
            file="train-00000-of-00001.tfrecord",
            records=sum(counts.values()) + 2,
            bytes=2_500_000,
            sha256="0" * 64,
            classes=counts,
            seconds=12.5,
        )
        manifest = Manifest(
            dataset="csv",
            clip=ClipSpec(clip_frames=8, offset_frames=15),
            classes=classes,
            splits={"train": SplitInfo.of([shard], shortened_offset=3)},
            options={},
            fps=25.0,
            short_side=64,
            jpeg_quality=95,
            plan_sha256="0" * 64,
            skipped=(Skipped(video="bad.mp4", reason="r"), Skipped(video="bad.mp4", reason="s")),
            open_ended=("a.mpg", "b.ts"),
        )
        (tmp_path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        return tmp_path

    return write


def rows(text: str) -> list[list[str]]:
    """Cells of the lines of tables."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


def test_the_table_counts_samples_and_classes(folder: Callable[..., Path]) -> None:
    result = run(folder(("clap", "wave")))
    assert (result.exit_code, result.stderr) == (0, "")
    cells = rows(result.stdout)
    assert ["samples", "5"] in cells
    assert ["labelled", "3"] in cells
    assert ["unlabelled", "2"] in cells
    assert ["offset shortened", "3"] in cells
    assert ["MB", "2.5"] in cells
    assert ["clap", "1"] in cells
    assert ["wave", "2"] in cells
    assert ["skipped", "bad.mp4"] in cells


def test_of_many_classes_the_most_frequent_are_shown(folder: Callable[..., Path]) -> None:
    names = tuple(f"class{number:02d}" for number in range(50))
    result = run(folder(names))
    shown = [cells[0] for cells in rows(result.stdout) if cells[0].startswith("class")]
    assert shown == list(reversed(names))[:40]
    assert "50 classes, the 40 most frequent; --json has all" in result.stdout


def test_json_is_the_manifests_summary(folder: Callable[..., Path]) -> None:
    printed = json.loads(run(folder(("clap", "wave")), "--json").stdout)
    assert printed["splits"]["train"]["classes"] == {"clap": 1, "wave": 2}
    assert "damaged" not in printed


@pytest.mark.parametrize("args", [("--samples", 3), ("--seed", 3)], ids=str)
def test_options_of_the_contact_sheet_want_one(folder: Callable[..., Path], args: tuple[object, ...]) -> None:
    result = run(folder(("wave",)), *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{args[0]} is for --contact-sheet FILE.png." in result.stderr


def test_a_folder_without_a_manifest_is_one_sentence(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: Folder {tmp_path} has no manifest.json")


def test_an_escape_sequence_in_a_class_does_not_reach_the_terminal(folder: Callable[..., Path]) -> None:
    result = run(folder(("cl\x1b[31map", "w\x9bave")))
    assert result.exit_code == 0
    assert "cl\\x1b[31map" in result.stdout
    assert "w\\x9bave" in result.stdout
    assert not {"\x1b", "\x9b"} & set(result.stdout)


def test_videos_that_do_not_say_where_they_end_are_named(folder: Callable[..., Path]) -> None:
    result = run(folder(("clap",)))
    assert "no end stated" in result.stdout
    assert "a.mpg, b.ts" in result.stdout
    result = run(folder(("clap",)), "--json")
    assert json.loads(result.stdout)["open_ended"] == ["a.mpg", "b.ts"]
