"""What the commands share.

`KdantCommand` has --verbose, errors of one line, exit codes, logs on stderr, and options under headings;
`CommaList` and the folders are types of options; what follows them are options that several commands have.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdant_tf.models.inference import ENGINES, FLOAT32, PRECISIONS, TENSORFLOW, Engine
from tf_records.errors import KdantError, RecordError
from tf_records.remote_path import RecordPath, record_path

# click 8.2 and 8.3 know no generic types.
if TYPE_CHECKING:
    _ListType = click.ParamType[tuple[Any, ...]]
    _FolderType = click.ParamType[RecordPath]
else:
    _ListType = _FolderType = click.ParamType

Decorator = Callable[[Any], Any]
# Heading of the options that have none of their own.
_OPTIONS = "Options"
_NON_BREAKING_HYPHEN = "\N{NON-BREAKING HYPHEN}"
# C0 but for tab and line feed, delete, and C1: what a terminal may take for a command.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Text of files and labels as a terminal may have it: control characters written out, as `\\x1b`."""
    return text.translate(_CONTROL)


def command_line(*words: object) -> str:
    """A kdant command as one types it into a shell: words with spaces are quoted."""
    return shlex.join(["kdant", *map(str, words)])


def _prepare_streams() -> None:
    """What a stream's encoding lacks becomes "?", and a stream that is closed takes what it is given."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lives
            # TensorFlow's C++ code and its children write to the descriptor.
            if nowhere.fileno() != descriptor and not _is_open(descriptor):
                os.dup2(nowhere.fileno(), descriptor)
            setattr(sys, name, nowhere)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class _HelpFormatter(click.HelpFormatter):
    """Breaks no line within `--batch-size` or `frame-mlp`."""

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _NON_BREAKING_HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        unbroken = [(name, text.replace("-", _NON_BREAKING_HYPHEN)) for name, text in rows]
        super().write_dl(unbroken, col_max, col_spacing)

    def getvalue(self) -> str:
        return super().getvalue().replace(_NON_BREAKING_HYPHEN, "-")


class KdantContext(click.Context):
    """Where a command's help is written."""

    formatter_class = _HelpFormatter


class KdantCommand(click.Command):
    """A command. What a user can mend becomes one line on stderr and exit code 1."""

    context_class = KdantContext

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.main`; every text can be printed."""
        _prepare_streams()
        return super().main(*args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--verbose"], is_flag=True, help="Show TensorFlow's logs, and tracebacks on errors."
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`; what Python alone takes for a number is refused: 0_1, nan."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for param in self.get_params(ctx):
            values = given.get(param.name or "")
            for value in values if isinstance(values, list) else [values]:
                if isinstance(value, str) and not _is_plain_number(value, param.type):
                    raise click.BadParameter(f"{value!r} is not a valid {param.type.name}.", ctx, param)
        try:
            return super().parse_args(ctx, args)
        except KdantError as error:  # of a run that had to be fetched
            if "--verbose" in args:
                raise
            click.echo(f"Error: {printable(str(error))}", err=True)
            raise click.exceptions.Exit(1) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options without a heading first, then the others under theirs, in the order of these."""
        sections: dict[str, list[tuple[str, str]]] = {_OPTIONS: []}
        for param in self.get_params(ctx):
            record = None if isinstance(param, click.Argument) else param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "group", _OPTIONS), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        verbose = ctx.params.pop("verbose")
        _configure_logs(verbose)
        try:
            return super().invoke(ctx)
        except KdantError as error:
            message = str(error)
            cause: BaseException = error
        except KeyboardInterrupt as error:
            hint = " Go on with the same command and --resume." if "resume" in ctx.params else ""
            message, cause = f"Interrupted.{hint}", error
        except BrokenPipeError:  # Whoever read our output has seen enough; click ends quietly.
            raise
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            message, cause = f"The system refused{where}: {error.strerror or error}.", error
        if verbose:
            raise cause
        click.echo(f"Error: {printable(message)}", err=True)
        raise click.exceptions.Exit(1)


def _is_plain_number(text: str, kind: click.ParamType[Any]) -> bool:
    """False of `1_000`, and of what is in no range; what is meant for no number is left alone."""
    if not isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return True
    # No comparison with NaN holds, so that click finds it in every range.
    return "_" not in text and not (
        isinstance(kind, click.FloatRange) and text.strip().lower().endswith("nan")
    )


class KdantGroup(click.Group):
    """Commands, listed in the order they were added; under headings where `headings` has any.

    Args:
        headings: heading → the commands under it.
    """

    context_class = KdantContext

    def __init__(
        self, *args: Any, headings: Mapping[str, Sequence[click.Command]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.headings = headings or {}
        for commands in self.headings.values():
            for command in commands:
                self.add_command(command)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.main`; every text can be printed."""
        _prepare_streams()
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under each heading its commands, all summaries in one column."""
        headings = self.headings or {"Commands": list(self.commands.values())}
        width = max(map(len, self.commands))
        for heading, commands in headings.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (str(each.name).ljust(width), each.get_short_help_str(formatter.width))
                        for each in commands
                    ]
                )


class GroupedOption(click.Option):
    """An option under a heading of its own, whose default is known elsewhere.

    Args:
        group: the heading.
        shown_default: what holds where it is not given, for the help.
        shown_range: which values there are, for the help.
    """

    def __init__(self, *args: Any, group: str, shown_default: str, shown_range: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        self.shown_default = shown_default
        self.shown_range = shown_range

    def get_help_extra(self, ctx: click.Context) -> Any:
        shown = {"default": self.shown_default, "range": self.shown_range}
        return {**super().get_help_extra(ctx), **{name: text for name, text in shown.items() if text}}


def _configure_logs(verbose: bool) -> None:
    """Sends Python's logs to stderr through rich, and quiets TensorFlow's C++ ones."""
    from rich.console import Console
    from rich.logging import RichHandler

    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=verbose)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)
    for name in ("tensorflow", "jax", "matplotlib", "h5py", "apache_beam"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)


def add_options(*options: Decorator) -> Decorator:
    """Several click decorators as one, in the order given."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class CommaList(_ListType):
    """Values in one option with commas between them, `0,1,2`, as a tuple; in quotes, a name may hold commas.

    Give the option `default=()` where none given means none.

    Args:
        parse: makes a value of one part; raises ValueError where it cannot.
        expected: completes the sentence "should be …".
        accepts: whether a list of such values will do.
        name: of one value, in the help.
        ranges: a part FROM:TO:STEP stands for the numbers from FROM to TO, both ends among them.
    """

    def __init__(
        self,
        parse: Callable[[str], Any],
        expected: str,
        accepts: Callable[[tuple[Any, ...]], bool] = bool,
        *,
        name: str = "number",
        ranges: bool = False,
    ) -> None:
        self.parse = parse
        self.expected = expected
        self.accepts = accepts
        self.name = name
        self.ranges = ranges

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{self.name.upper()},…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            values = tuple(self._parse(part) for part in self._parts(value))
            accepted = self.accepts(values)
        except (ValueError, ArithmeticError, csv.Error):
            accepted = False
        if not accepted:
            self.fail(f"should be {self.expected}. Received: {value!r}.", param, ctx)
        return values

    def _parse(self, part: str) -> Any:
        if "_" in part:  # Python takes 1_0 for 10
            raise ValueError(part)
        return self.parse(part)

    def _parts(self, value: str) -> Iterator[str]:
        for part in next(csv.reader([value], skipinitialspace=True, strict=True), []):
            if self.ranges and ":" in part:
                first, last, step = map(Fraction, part.split(":"))
                for number in range(int((last - first) / step) + 1):
                    yield str(float(first + number * step))
            else:
                yield part.strip()


def parse_not_negative(part: str) -> float:
    """A finite number >= 0."""
    number = float(part)
    if not 0 <= number < math.inf:
        raise ValueError(part)
    return number


def is_distinct(values: Sequence[Any]) -> bool:
    """Whether there are values, and none of them twice."""
    return 0 < len(values) == len(set(values))


class NameList(CommaList):
    """Names, if need be of `choices` alone and each once; what is empty between two commas does not count."""

    def __init__(self, choices: Sequence[str] = (), *, distinct: bool = False) -> None:
        expected = f"of {', '.join(choices)}" if choices else "names such as a,b"
        if distinct:
            expected += ", each once"

        def accepts(names: Sequence[str]) -> bool:
            return (not choices or set(names) <= set(choices)) and (not distinct or is_distinct(names))

        super().__init__(str, expected, accepts, name="name")

    def _parse(self, part: str) -> Any:
        return part

    def _parts(self, value: str) -> Iterator[str]:
        return filter(None, super()._parts(value))


NAMES = NameList()
NUMBERS = CommaList(parse_not_negative, "numbers >= 0, such as 1,3,10")
SEEDS = CommaList(
    int,
    "different whole numbers >= 0, such as 0,1,2",
    lambda seeds: is_distinct(seeds) and min(seeds) >= 0,
    name="integer",
)


def _check_utf8(
    kind: click.ParamType[Any], path: str, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    """TensorFlow and JSON take no other names."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        readable = os.fsencode(path).decode("utf-8", "backslashreplace")
        kind.fail(f"{readable!r} is not UTF-8, as a path has to be here. Rename it.", param, ctx)


class _LocalPath(click.Path):
    """A path of this machine; `s3://…` and the like are refused rather than misread as folders."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(
                f"{value!r} is no local path; only record folders may lie elsewhere.",
                param,
                ctx,
            )
        _check_utf8(self, str(value), param, ctx)
        return super().convert(value, param, ctx)


class _RecordFolder(_FolderType):
    """A local path, or a URL that TensorFlow's gfile reads."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RecordPath:
        _check_utf8(self, str(value), param, ctx)
        try:
            return record_path(value)
        except RecordError as error:
            self.fail(str(error), param, ctx)


class _RunFolder(_LocalPath):
    """A run folder, or an archive of one, which is fetched and unpacked."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from kdant_tf.archive import is_address, local_run

        _check_utf8(self, str(value), param, ctx)
        if not is_address(value):
            return super().convert(value, param, ctx)
        return local_run(value, report=lambda line: click.echo(printable(line), err=True))


FOLDER = _LocalPath(path_type=Path)
RUN = _RunFolder(path_type=Path)
RECORD_FOLDER = _RecordFolder()

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object in place of a table."
)
insist_option = click.option(
    "--insist",
    is_flag=True,
    help="Take records of another offset, frame rate or flow than those of the training, or another "
    "model.keras than it left; the result says so.",
)
records_option = click.option(
    "--records",
    required=True,
    type=RECORD_FOLDER,
    help="Folder made by build-records; may be s3://… or gs://….",
)


def weights_option(text: str) -> Decorator:
    """--fusion-weights, with `text` as its help."""
    weights = CommaList(parse_not_negative, "a number >= 0 for each run, not all 0, such as 1,1.5", any)
    return click.option("--fusion-weights", type=weights, default=(), help=text)


def make_engine(name: str, precision: str) -> Engine:
    """What --engine and --precision name; what there is to say of it goes to stderr."""
    return Engine(name=name, precision=precision, report=lambda line: click.echo(printable(line), err=True))


engine_options = add_options(
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default=TENSORFLOW,
        show_default=True,
        help="What computes a run's answers; openvino needs the extra of that name.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default=FLOAT32,
        show_default=True,
        help="In which a run's answers are computed; auto: bfloat16 where the processor has it.",
    ),
)
folder_options = add_options(
    click.option("--resume", is_flag=True, help="Go on with what was begun in --out."),
    click.option("--overwrite", is_flag=True, help="Replace what is in --out."),
)
