"""Options that more than one verb has."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tf_records.errors import RecordError
from tf_records.remote_path import record_path

from .command import add_options


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
