"""A model behind a server: the options of the commands that can ask one in place of loading a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdant_tf.models.inference import DEFAULT, Engine
from tf_records.errors import KdantError
from tf_records.start_tensorflow import start_tensorflow

from .command import add_options

if TYPE_CHECKING:
    from kdant_tf.serving.model import AnticipationModel
    from kdant_tf.serving.server import Server


def _parse_server(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    from kdant_tf.serving.server import parse_address

    try:
        return None if value is None else parse_address(value)
    except KdantError as error:
        raise click.BadParameter(str(error), ctx, param) from error


server_options = add_options(
    click.option(
        "--server",
        callback=_parse_server,
        metavar="HOST:PORT",
        help="Ask a TensorFlow Serving. The model is then the exported folder that it serves, or a copy of "
        "its config.json, which tells classes and clips; no network is loaded.",
    ),
    click.option("--model-name", default="kdant", show_default=True, help="That the server has it under."),
    click.option("--grpc", is_flag=True, help="Speak gRPC (extra serving) with the server, not REST."),
    click.option("--tls", is_flag=True, help="Speak TLS with the server, or with what stands before it."),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="PEM file of the authorities that may vouch for the server, with --tls. Default: those that the "
        "system trusts, or over gRPC its own list.",
    ),
    click.option(
        "--timeout-s",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        show_default=True,
        help="Seconds that an answer of the server may take.",
    ),
)


def make_server(server: tuple[str, int] | None, *, grpc: bool, tls: bool, **options: Any) -> Server | None:
    """The server that the options name, or None."""
    if server is None:
        if grpc or tls:
            raise click.UsageError(f"--{'grpc' if grpc else 'tls'} goes with --server HOST:PORT.")
        return None
    if options["ca_file"] is not None and not tls:
        raise click.UsageError("--ca-file goes with --tls.")
    from kdant_tf.serving.server import Server

    host, port = server
    return Server(host=host, port=port, tls=tls, **options)


def open_model(folder: Path, *, grpc: bool, engine: Engine = DEFAULT, **options: Any) -> AnticipationModel:
    """The model of `folder`, or the one that a server has of it.

    Args:
        folder: of a run or an export.
        engine: that computes a run's answers here.
        grpc, options: the values of `server_options`.
    """
    server = make_server(grpc=grpc, **options)
    if server is None:
        from kdant_tf.serving.model import load_model, needs_tensorflow

        from .output import warn_of_other_network

        warn_of_other_network(folder)
        if needs_tensorflow(folder):
            start_tensorflow()
        return load_model(folder, engine)
    if not engine.is_default:
        raise click.UsageError("--engine and --precision go with a run, --server with what it has loaded.")
    if grpc:
        start_tensorflow()
    from kdant_tf.serving.client import connect

    return connect(server, folder, grpc=grpc)
