"""The list of commands, and that each of them explains itself on 80 columns."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from kdant_cli.main import main

HEADINGS = {
    "Data:": ["build-records", "inspect", "extract-features"],
    "Training:": ["train-teacher", "distill"],
    "Results:": ["evaluate", "visualize", "report", "runs"],
    "Use:": ["export", "predict", "benchmark"],
    "Reproduce:": ["demo", "reproduce", "presets"],
}


def commands(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands, with what is typed for them."""
    for name, command in group.commands.items():
        yield prefix + name, command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} ")


COMMANDS = list(commands())


def help_of(*words: str) -> list[str]:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=80)
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_commands_are_listed_in_the_order_of_work_under_headings() -> None:
    listed: dict[str, list[str]] = {}
    for line in help_of():
        if line in HEADINGS:
            listed[line] = []
        elif listed and line.startswith("  "):
            next(reversed(listed.values())).append(line.split()[0])
    assert listed == HEADINGS
    assert set(main.commands) == {name for names in HEADINGS.values() for name in names}


@pytest.mark.parametrize("group", [(), ("reproduce",)])
def test_summaries_are_whole_and_of_one_line(group: tuple[str, ...]) -> None:
    parent = main.commands[group[0]] if group else main
    assert isinstance(parent, click.Group)
    lines = help_of(*group)
    for name, command in parent.commands.items():
        assert command.short_help is not None
        assert any(line.split() == [name, *command.short_help.split()] for line in lines), name


@pytest.mark.parametrize("words", ["", *(words for words, _ in COMMANDS)])
def test_help_fits_80_columns(words: str) -> None:
    assert [line for line in help_of(*words.split()) if len(line) > 80] == []


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_every_option_is_explained_and_shows_its_default(words: str, command: click.Command) -> None:
    assert command.help
    context = click.Context(command, show_default=main.context_settings["show_default"])
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        assert option.help, option.name
        record = option.get_help_record(context)
        assert record is not None
        if isinstance(option.default, (str, int, float, list)) and not option.is_flag:
            assert "[default: " in record[1], option.name
