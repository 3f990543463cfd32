"""What every verb shares: --verbose, one-line errors, exit codes, logs on stderr."""

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tf_records.errors import KdantError, RecordError
from tf_records.remote_path import record_path


class KdantCommand(click.Command):
    """A verb. What a user can mend becomes one line on stderr and exit code 1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--verbose"], is_flag=True, help="Show TensorFlow's logs, and tracebacks on errors."
            )
        )

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
        click.echo(f"Error: {message}", err=True)
        raise click.exceptions.Exit(1)


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


def split_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Callback for a comma-separated option."""
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


def add_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click decorators as one, in the order given."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# Options that more than one verb has.


class _LocalPath(click.Path):
    """A path of this machine; `s3://…` and the like are refused rather than misread as folders."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(
                f"{value!r} is no local path; only record folders may lie elsewhere.",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


class _RecordFolder(click.ParamType):
    """A local path, or a URL that TensorFlow's gfile reads."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return record_path(value)
        except RecordError as error:
            self.fail(str(error), param, ctx)


FOLDER = _LocalPath(path_type=Path)
RECORD_FOLDER = _RecordFolder()

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object in place of a table."
)
records_option = click.option(
    "--records",
    required=True,
    type=RECORD_FOLDER,
    help="Folder made by build-records; may be s3://… or gs://….",
)


def _parse_weights(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    if value is None:
        return ()
    try:
        weights = tuple(float(part) for part in value.split(","))
    except ValueError:
        weights = ()
    if not any(weights) or not all(weight >= 0 and math.isfinite(weight) for weight in weights):
        raise click.BadParameter(
            f"should be a number >= 0 for each run, not all 0, such as 1,1.5. Received: {value!r}.",
            ctx,
            param,
        )
    return weights


def weights_option(text: str) -> Callable[[Any], Any]:
    """--fusion-weights, with `text` as its help."""
    return click.option("--fusion-weights", callback=_parse_weights, help=text)


folder_options = add_options(
    click.option("--resume", is_flag=True, help="Go on with what was begun in --out."),
    click.option("--overwrite", is_flag=True, help="Replace what is in --out."),
)
