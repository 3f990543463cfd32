"""Each `kdant …` line in README and docs parses: the command exists, and takes these options and values."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from kdant_cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    *(
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not {"_build", "decisions"} & set(path.parts)
    ),
)
FENCED = re.compile(r"^ *```(?:bash|console|sh|shell|text)?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
ANY_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}|\t).*\n?)+", re.MULTILINE)
# Before the command: prompts, the body of a loop, a folder of programs.
BEFORE = re.compile(r"^\s*(?:[$>]\s+|do\s+|exec\s+|.*\|\s+(?=kdant)|\S+/bin/(?=kdant))*")


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after `kdant` of each command in the blocks of code; continued lines are joined."""
    for block in [*FENCED.findall(text), *INDENTED.findall(ANY_FENCED.sub("", text))]:
        for line in re.sub(r"\\\n>?", " ", block).splitlines():
            command = re.split(r" # |\||;|&&|'$", BEFORE.sub("", line))[0]
            if re.match(r"kdant (--)?[a-z]", command):
                yield shlex.split(command)[1:]


def parse(words: list[str]) -> None:
    """Lets click parse a command without running it; what is left out, `…`, may have been required."""
    command: click.Command = main
    context = click.Context(main, info_name="kdant")
    while isinstance(command, click.Group) and words:
        if words[0].startswith("-"):
            break
        if words[0] not in command.commands:
            raise click.UsageError(f"No such command {words[0]!r}.")
        command = command.commands[words.pop(0)]
        context = click.Context(command, parent=context, info_name=command.name)
    whole = "…" not in words
    given, rest, _ = command.make_parser(context).parse_args([word for word in words if word != "…"])
    if rest and not context.allow_extra_args:
        raise click.UsageError(f"Unexpected arguments: {rest}.")
    for param in command.params:
        value = given.get(param.name)
        placeholder = isinstance(value, str) and re.fullmatch(r"\$\w+|[A-Z]+", value)
        if isinstance(param.type, click.Choice | click.types.IntParamType) and value and not placeholder:
            param.type_cast_value(context, value)
        if whole and param.required and not value:
            raise click.MissingParameter(ctx=context, param=param)


COMMANDS = [
    pytest.param(words, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, words in enumerate(commands_in(path.read_text(encoding="utf-8")))
]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 100


@pytest.mark.parametrize("words", COMMANDS)
def test_the_command_parses(words: list[str]) -> None:
    if words not in (["--help"], ["--version"]) and not {"--help", "-h"} & set(words):
        parse(list(words))


@pytest.mark.parametrize(
    "line",
    [
        "$ kdant evaluate student",
        "$ kdant evaluate student --records records --pictues",
        "> kdant distil --records records --teacher teacher --out student",
        "$ kdant distill --records records --teacher teacher --out student --feature-loss l2",
        "$ kdant inspect records other",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    (words,) = commands_in(f"```console\n{line}\n```\n")
    with pytest.raises(click.UsageError):
        parse(words)
