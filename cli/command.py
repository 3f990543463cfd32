"""What every verb shares: --verbose, one-line errors, exit codes, logs on stderr."""

import logging
import os
from collections.abc import Callable
from typing import Any

import click

from tf_records.errors import KdantError


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
