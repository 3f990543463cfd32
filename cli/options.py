"""Options that more than one verb has."""

from pathlib import Path
from typing import Any

import click

from kdant_tf.version import __version__

from .command import add_options


class _LocalPath(click.Path):
    """A path of this machine; `s3://…` and the like are refused rather than misread as folders."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(
                f"{value!r} is no local path; kdant {__version__} reads and writes local paths only.",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


FOLDER = _LocalPath(path_type=Path)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object in place of a table."
)
records_option = click.option("--records", required=True, type=FOLDER, help="Folder made by build-records.")

folder_options = add_options(
    click.option("--resume", is_flag=True, help="Go on with what was begun in --out."),
    click.option("--overwrite", is_flag=True, help="Replace what is in --out."),
)
