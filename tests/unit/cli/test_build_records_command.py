"""kdant build-records, as far as it needs no TensorFlow: usage, defaults, dry runs and what is said."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from counted_videos import encode
from kdant_cli.build_records import build_records

from tf_records.container import Limits
from tf_records.sources.read import PROTOCOLS


def run(*args: object) -> Result:
    return CliRunner().invoke(build_records, [str(arg) for arg in args])


def flat(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def epic(tmp_path: Path) -> Path:
    """Annotations of two actions to train on and one to test, without video."""
    (tmp_path / "EPIC_train_action_labels.csv").write_text(
        "uid,participant_id,video_id,start_timestamp,stop_timestamp,verb_class\n"
        "1,P01,P01_01,00:00:03.00,00:00:03.90,0\n"
        "2,P01,P01_01,00:00:05.00,00:00:05.90,1\n"
        "3,P26,P26_01,00:00:03.00,00:00:04.50,1\n"
    )
    (tmp_path / "EPIC_verb_classes.csv").write_text("verb_id,class_key\n0,open\n1,close\n")
    return tmp_path


def test_a_dry_run_counts_from_the_annotations_alone(epic: Path) -> None:
    result = run("--source", "epic55", "--input", epic, "--dry-run", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert {name: split["labeled"] for name, split in summary["splits"].items()} == {"train": 2, "test": 1}
    assert summary["classes"] == ["open", "close"]
    assert summary["clip"] == {"clip_frames": 32, "offset_frames": None, "anticipation_s": 1.0}
    assert f"No video is under {epic}" in result.stderr


@pytest.mark.parametrize("named", [False, True], ids=["without-out", "with-out"])
def test_without_json_a_table_is_printed_and_no_next_step_of_a_dry_run(
    epic: Path, tmp_path: Path, named: bool
) -> None:
    out = ("--out", tmp_path / "records") if named else ()
    result = run("--source", "epic55", "--input", epic, "--dry-run", "--classes", "close", *out)
    assert result.exit_code == 0
    assert "1 classes: close" in result.stdout
    assert "labelled" in result.stdout
    assert "Next:" not in result.stdout
    assert not (tmp_path / "records").exists()


def test_absent_names_beyond_the_first_are_counted(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "wave").mkdir()
    (tmp_path / "wave" / "a.avi").write_bytes((videos / "00000.mp4").read_bytes())
    lines = "".join(f"b{number}.avi 1\n" for number in range(40))
    (tmp_path / "splits" / "wave_test_split1.txt").write_text(f"a.avi 2\n{lines}")
    result = run("--source", "jhmdb", "--input", tmp_path, "--dry-run", "--json")
    assert result.exit_code == 0
    assert "Absent videos, 40: wave/b0.avi, " in result.stderr
    assert result.stderr.rstrip().endswith(", …")
    assert "wave/b30.avi" not in result.stderr


def test_strict_counts_what_was_skipped(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "a.mp4").write_bytes((videos / "00000.mp4").read_bytes())
    (tmp_path / "junk.mp4").write_bytes(b"no video at all")
    (tmp_path / "mine.csv").write_text("video,start_s,end_s,label\na.mp4,1,2,wave\njunk.mp4,0,1,wave\n")
    args = ("--source", "csv", "--input", tmp_path / "mine.csv", "--dry-run")
    loose, strict = run(*args), run(*args, "--strict")
    assert loose.exit_code == 0
    assert "Skipped junk.mp4: " in loose.stderr
    assert strict.exit_code == 1
    assert strict.stderr.endswith("Error: 1 inputs were skipped, and --strict was given.\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "Missing option '--out'"),
        (("--dry-run", "--offset-frames", 3, "--anticipation-s", 1), "not both"),
        (("--dry-run", "--flow-bound", 3), "--flow-bound is for --modality flow or rgb,flow"),
        (("--dry-run", "--flow-algorithm", "dis"), "--flow-algorithm is for --modality flow or rgb,flow"),
        (("--dry-run", "--modality", "rgb,flow", "--features", "random"), "--features is for one modality"),
        (("--dry-run", "--features", "random", "--longest-anticipation-s", 2), "does not go with --features"),
        (("--dry-run", "--runner", "beam", "--workers", 2), "--workers is for --runner local"),
        (("--dry-run", "--runner", "beam", "--features", "random"), "--features is for --runner local"),
        (("--dry-run", "--", "--runner=SparkRunner"), "need --runner beam. Received: --runner=SparkRunner"),
        (("--dry-run", "--workers", 0), "0 is not in the range x>=1"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_exit_with_2(
    epic: Path, args: tuple[object, ...], words: str
) -> None:
    result = run("--source", "epic55", "--input", epic, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in flat(result.stderr)


def test_jhmdb_has_no_longer_anticipation(tmp_path: Path) -> None:
    result = run("--source", "jhmdb", "--input", tmp_path, "--dry-run", "--longest-anticipation-s", 2)
    assert result.exit_code == 2
    assert "not for JHMDB, whose videos are the actions" in flat(result.stderr)


def test_the_defaults_that_help_names_are_those_that_hold() -> None:
    words = flat(run("--help").stdout)
    assert PROTOCOLS["csv"].clip.clip_frames == 8
    assert PROTOCOLS["epic55"].clip.clip_frames == 32
    assert PROTOCOLS["thumos14"].clip.clip_frames == 16
    assert "Frames a clip. [default: (8; epic55, epic100 32 (§4.3), thumos14 16 (§4.4))]" in words
    assert PROTOCOLS["csv"].clip.offset_frames == 15
    assert "[default: (15; EPIC-KITCHENS and thumos14 use" in words
    assert PROTOCOLS["thumos14"].fps == 16
    assert "[default: (each video's own; thumos14 16)]" in words
    assert Limits() == Limits(max_pixels=7680 * 4320, max_seconds=86400)
    assert "[default: (7680x4320, those of 8K)]" in words
    assert "[default: (86400, a day)]" in words


def test_every_option_that_takes_a_value_shows_its_default_or_is_required() -> None:
    for option in build_records.params:
        shown = getattr(option, "show_default", None)
        takes_value = option.param_type_name == "option" and not option.is_flag
        assert not takes_value or option.required or option.name == "out" or shown, option.name


@pytest.fixture
def table(tmp_path: Path, videos: Path) -> Path:
    """A CSV still to be written, beside a.mp4, of 2 s, which is link.mp4 too."""
    (tmp_path / "a.mp4").write_bytes((videos / "00000.mp4").read_bytes())
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    return tmp_path / "mine.csv"


def count(table: Path, *rows: str, options: tuple[str, ...] = ()) -> Result:
    """A dry run over these rows."""
    table.write_text("video,start_s,end_s,label,split\n" + "".join(f"{row}\n" for row in rows))
    return run("--source", "csv", "--input", table, "--dry-run", "--json", *options)


def test_a_stretch_in_train_and_test_is_said_and_refused_if_strict(table: Path) -> None:
    rows = ("a.mp4,0,1,wave,train", "link.mp4,0,1,wave,test", "link.mp4,1,2,wave,test")
    loose = count(table, *rows)
    assert loose.exit_code == 0
    assert "Warning: a.mp4 0 to 1 s is in train and in test.\n" in loose.stderr
    assert "One video under several names: a.mp4 is also link.mp4." in loose.stderr
    strict = count(table, *rows, options=("--strict",))
    assert (strict.exit_code, strict.stdout) == (1, "")
    assert "Warning: a.mp4 0 to 1 s is in train and in test.\n" in strict.stderr
    assert "Error: 1 stretches of video are in two splits, and --strict was given." in strict.stderr
    assert count(table, rows[0], rows[2], options=("--strict",)).exit_code == 0


def test_bad_rows_are_named_together_or_skipped(table: Path) -> None:
    rows = ("a.mp4,0,1,wave,train", "a.mp4,1,0,wave,train", "a.mp4,0,0_1,wave,train")
    refused = count(table, *rows)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"Error: {table} has 2 bad rows.")
    assert refused.stderr.count("\n") == 3
    skipped = count(table, *rows, options=("--skip-bad-rows",))
    assert skipped.exit_code == 0
    assert json.loads(skipped.stdout)["splits"]["train"]["samples"] == 1
    assert "Skipped a.mp4: mine.csv:3: end_s should be later than start_s." in skipped.stderr
    assert count(table, *rows, options=("--skip-bad-rows", "--strict")).exit_code == 1


def test_a_class_whose_name_holds_a_comma_stands_in_quotes(table: Path) -> None:
    rows = ('a.mp4,0,1,"x, y and z",train', "a.mp4,0,2,b,train", "a.mp4,1,2,c,train")
    chosen = count(table, *rows, options=("--classes", '"x, y and z",b'))
    assert json.loads(chosen.stdout)["classes"] == ["b", "x, y and z"]
    refused = count(table, *rows, options=("--classes", "x, y and z"))
    assert refused.exit_code == 1
    assert "names x, y and z, which does not occur." in refused.stderr
    assert """Put a name that holds a comma in quotes: --classes '"a, b",c'.""" in refused.stderr


def test_a_class_is_found_however_its_characters_are_composed(table: Path) -> None:
    rows = ("a.mp4,0,1,cafe\u0301,train", "a.mp4,0,2,b,train")
    chosen = count(table, *rows, options=("--classes", "caf\u00e9"))
    assert json.loads(chosen.stdout)["classes"] == ["cafe\u0301"]


def test_classes_that_look_alike_are_said(table: Path) -> None:
    result = count(table, "a.mp4,0,1,Run,train", "a.mp4,0,2,run,train")
    assert json.loads(result.stdout)["classes"] == ["Run", "run"]
    assert "Classes that look alike are kept apart: 'Run', 'run'." in result.stderr


def test_records_may_lie_below_the_folder_of_videos_but_not_be_it(epic: Path) -> None:
    args = ("--source", "epic55", "--input", epic, "--dry-run", "--out")
    assert run(*args, epic / "records").exit_code == 0
    for out in (epic, epic.parent):
        refused = run(*args, out)
        assert refused.exit_code == 1
        assert "should lie apart" in refused.stderr


def build(field: Path, folder: Path, *options: object) -> Result:
    rows = "video,start_s,end_s,label\nflagged_corrupt.mp4,7.0,9.0,wave\nflagged_corrupt.mp4,1.0,2.0,wave\n"
    (folder / "rows.csv").write_text(rows)
    (folder / "flagged_corrupt.mp4").write_bytes((field / "flagged_corrupt.mp4").read_bytes())
    common = ("--source", "csv", "--input", folder / "rows.csv", "--out", folder / "records")
    return run(*common, "--short-side", 32, "--offset-frames", 4, "--json", *options)


def test_damaged_frames_are_said_and_counted(field: Path, tmp_path: Path) -> None:
    result = build(field, tmp_path, "--max-damaged-frames", 0.5)
    assert result.exit_code == 0
    # One is flagged, the others up to the next key frame are predicted from it.
    assert json.loads(result.stdout)["damaged_frames"] == {"flagged_corrupt.mp4": 28}
    assert "Damaged flagged_corrupt.mp4: 28 of its frames in the records are corrupt" in result.stderr


def test_strict_refuses_damaged_frames(field: Path, tmp_path: Path) -> None:
    result = build(field, tmp_path, "--strict", "--max-damaged-frames", 0.5)
    assert result.exit_code == 1
    assert "1 videos have damaged frames, and --strict was given" in result.stderr


def test_an_action_with_too_many_damaged_frames_is_skipped(field: Path, tmp_path: Path) -> None:
    result = build(field, tmp_path, "--max-damaged-frames", 0)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["splits"]["train"]["samples"] == 1
    assert "has 28 damaged frames among the 64 of an action" in summary["skipped"][0]["reason"]
    assert "--max-damaged-frames" in result.stderr


def test_a_video_that_does_not_say_where_it_ends_is_named(tmp_path: Path) -> None:
    encode(tmp_path / "a.ts", range(50))
    encode(tmp_path / "b.mp4", range(50))
    rows = "video,start_s,end_s,label\na.ts,0.5,1.5,wave\nb.mp4,0.5,1.5,bow\n"
    (tmp_path / "rows.csv").write_text(rows)
    common = ("--source", "csv", "--input", tmp_path / "rows.csv", "--out", tmp_path / "records")
    result = run(*common, "--short-side", 32, "--offset-frames", 4)
    assert result.exit_code == 0
    assert "No end is stated, so that a cut copy looks whole: a.ts\n" in result.stderr
