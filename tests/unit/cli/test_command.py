"""What commands share: lists with commas, folders, errors, headings."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from kdant_cli.command import (
    FOLDER,
    NAMES,
    NUMBERS,
    RECORD_FOLDER,
    SEEDS,
    CommaList,
    GroupedOption,
    KdantCommand,
    KdantGroup,
    NameList,
    add_options,
    command_line,
    folder_options,
)

from tf_records.errors import KdantError


def parsed(kind: CommaList, *args: str, default: Any = ()) -> Any:
    """What a command is given of `--list`."""
    received: list[Any] = []

    @click.command()
    @click.option("--list", "values", type=kind, default=default)
    def command(values: Sequence[Any]) -> None:
        received.append(values)

    result = CliRunner().invoke(command, list(args))
    return received[0] if result.exit_code == 0 else result.stderr


@pytest.mark.parametrize(
    ("kind", "text", "values"),
    [
        (NAMES, "a,b", ("a", "b")),
        (NAMES, " a, b,,", ("a", "b")),
        (NAMES, "", ()),
        (NAMES, '"x, y",z', ("x, y", "z")),
        (NAMES, 'say "hi",it\'s', ('say "hi"', "it's")),
        (NAMES, '"say ""hi"""', ('say "hi"',)),
        (NameList(("a", "b")), "b", ("b",)),
        (NUMBERS, "0,1.5, 3e2", (0.0, 1.5, 300.0)),
        (SEEDS, "2,0", (2, 0)),
        (CommaList(float, "numbers", ranges=True), "0.1:0.3:0.1,1", (0.1, 0.2, 0.3, 1.0)),
    ],
)
def test_a_comma_list_is_a_tuple(kind: CommaList, text: str, values: tuple[Any, ...]) -> None:
    if kind.ranges:
        values = tuple(pytest.approx(value) for value in values)
    assert parsed(kind, "--list", text) == values


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (NAMES, '"a', "should be names"),
        (NAMES, '"a"b', "should be names"),
        (NameList(("a", "b")), "a,c", "should be of a, b. Received: 'a,c'."),
        *((NUMBERS, text, "should be numbers >= 0") for text in ("", "a", "1,,2", "-1", "nan", "inf")),
        *((SEEDS, text, "should be different whole numbers >= 0") for text in ("", "1,1", "-1", "0.5")),
        *((CommaList(float, "numbers", ranges=True), text, "should be numbers") for text in ("0:1", "0:1:0")),
    ],
)
def test_another_comma_list_is_refused_in_one_sentence(kind: CommaList, text: str, sentence: str) -> None:
    assert sentence in parsed(kind, "--list", text)


def test_a_default_may_be_text_or_nothing() -> None:
    assert parsed(NAMES) == ()
    assert parsed(SEEDS, default="0,1") == (0, 1)


def run_command(action: Any, *args: str, options: Sequence[Any] = ()) -> Any:
    """A command of kdant that does `action`."""

    @click.command(cls=KdantCommand)
    @add_options(*options)
    def command(**values: Any) -> None:
        action()

    return CliRunner().invoke(command, list(args))


def raiser(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KdantError("It is too small. Make it larger."), "Error: It is too small. Make it larger.\n"),
        (
            PermissionError(13, "Denied", "/x"),
            "Error: The system refused /x: Denied.\n",
        ),
        (OSError("no space"), "Error: The system refused: no space.\n"),
        (KeyboardInterrupt(), "Error: Interrupted.\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_1(error: BaseException, sentence: str) -> None:
    result = run_command(raiser(error))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", sentence)


def test_an_interrupted_command_tells_how_it_goes_on() -> None:
    result = run_command(raiser(KeyboardInterrupt()), options=[folder_options])
    assert result.stderr == "Error: Interrupted. Go on with the same command and --resume.\n"


def test_verbose_shows_the_traceback_and_a_bug_always_does() -> None:
    error = KdantError("It is too small.")
    assert run_command(raiser(error), "--verbose").exception is error
    bug = ValueError("a bug")
    assert run_command(raiser(bug)).exception is bug


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (FOLDER, "s3://bucket/x", "'s3://bucket/x' is no local path"),
        (RECORD_FOLDER, "ftp://host/x", "ftp"),
    ],
)
def test_folders_elsewhere_are_refused_where_they_cannot_be(kind: Any, text: str, sentence: str) -> None:
    result = run_command(print, "--folder", text, options=[click.option("--folder", type=kind)])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_options_stand_under_their_headings() -> None:
    @click.command(cls=KdantCommand)
    @click.option("--size", cls=GroupedOption, group="Network", shown_default="8", shown_range="positive")
    @click.option("--out", help="Folder.")
    def command(**values: Any) -> None:
        """Does it."""

    text = CliRunner().invoke(command, ["--help"]).stdout
    assert text.index("Options:") < text.index("--out") < text.index("--verbose") < text.index("Network:")
    assert text.index("Network:") < text.index("--size")
    assert "[default: 8; positive]" in text


def test_no_line_of_help_breaks_within_a_word_of_hyphens() -> None:
    words = "--batch-size frame-mlp " * 9

    @click.command(cls=KdantCommand, help=words)
    @click.option("--out", help=words)
    def command(**values: Any) -> None:
        pass

    text = CliRunner().invoke(command, ["--help"], terminal_width=80).stdout
    assert text.count("--batch-size") == text.count("frame-mlp") == 18
    assert max(map(len, text.splitlines())) < 80


def test_commands_stand_in_their_order_under_their_headings() -> None:
    first, second = click.Command("zeta", short_help="Last letter."), click.Command("a", short_help="First.")
    group = KdantGroup("group", headings={"Data": [first], "Use": [second]})
    lines = CliRunner().invoke(group, ["--help"]).stdout.splitlines()
    assert lines[-5:] == ["Data:", "  zeta  Last letter.", "", "Use:", "  a     First."]


def test_a_command_to_go_on_with_can_be_typed_as_it_is() -> None:
    typed = command_line("evaluate", Path("my runs/a"), "--records", "r")
    assert typed == "kdant evaluate 'my runs/a' --records r"
    assert shlex.split(typed) == ["kdant", "evaluate", "my runs/a", "--records", "r"]


@pytest.mark.parametrize("text", ["1_0", "_1", "nan", "1_0.5"])
def test_what_python_alone_takes_for_a_number_is_refused(text: str) -> None:
    @click.command(cls=KdantCommand)
    @click.option("--rate", type=click.FloatRange(0))
    @click.option("--factor", type=float)
    @click.option("--count", type=int)
    @click.option("--sizes", type=NUMBERS)
    @click.option("--seeds", type=SEEDS, multiple=True)
    @click.option("--names", type=NAMES)
    def command(**values: Any) -> None:
        click.echo(values["names"])

    for option in ("--rate", "--count", "--sizes", "--seeds", *(["--factor"] if "_" in text else [])):
        result = CliRunner().invoke(command, [option, text])
        assert (result.exit_code, result.stdout) == (2, ""), option
        assert f"{text!r}" in result.stderr
    assert CliRunner().invoke(command, ["--names", text]).stdout == f"('{text}',)\n"
    assert CliRunner().invoke(command, ["--rate", "1e1", "--count", "-5", "--sizes", "1,2.5"]).exit_code == 0
