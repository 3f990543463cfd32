"""Options with commas in them."""

from collections.abc import Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner
from kdant_cli.command import NAMES, NUMBERS, SEEDS, CommaList, NameList


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
