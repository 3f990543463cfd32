"""Options that more than one verb has."""

from pathlib import Path
from typing import Any

import click

from kdant_tf.config import FEATURE_LOSS_NAMES
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

training_options = add_options(
    records_option,
    click.option("--out", required=True, type=FOLDER, help="Run folder to make."),
    click.option("--preset", help="Settings that ship with kdant, such as jhmdb-small."),
    click.option(
        "--config", "config_file", type=FOLDER, help="TOML file with settings; see kdant_tf/presets."
    ),
    click.option("--epochs", type=int),
    click.option("--batch-size", type=int, help="Pairs a step, over all devices."),
    click.option("--crop", type=int, help="Pixels of the square that the network sees."),
    click.option("--learning-rate", type=float),
    click.option("--width", type=float, help="Multiplies I3D's channels; 1 is the published network."),
    click.option("--label-fraction", type=float, help="Share of the training labels to use, seeded."),
    click.option("--seed", type=int, help="Of weights, order, crops and dropout."),
    click.option("--devices", default="auto", show_default=True, help="auto, cpu, gpu, cpu:N or gpu:N."),
    folder_options,
    json_option,
)

distillation_options = add_options(
    click.option("--feature-loss", type=click.Choice(FEATURE_LOSS_NAMES), help="Default: bidirectional."),
    click.option("--feature-weight", type=float, help="The paper's lambda."),
)


def print_training(result: Any, as_json: bool, next_command: str) -> None:
    """A TrainResult on stdout."""
    from .output import print_fields, print_json

    if as_json:
        print_json(result.to_dict())
        return
    print_fields(
        f"Trained {result.run}",
        {
            "epochs": str(result.epochs),
            "final loss": f"{result.final_loss:.4f}",
            "clips per second": f"{result.clips_per_second:.1f}",
            "next": next_command,
        },
    )
