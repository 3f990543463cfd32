"""kdant distill"""

from typing import Any

import click

from kdant_tf.config import FEATURE_LOSS_NAMES

from .command import KdantCommand, add_options
from .options import FOLDER
from .training import run_training, training_options

distillation_options = add_options(
    click.option("--teacher", required=True, type=FOLDER, help="Run folder of train-teacher."),
    click.option("--feature-loss", type=click.Choice(FEATURE_LOSS_NAMES), help="Default: bidirectional."),
    click.option("--feature-weight", type=float, help="The paper's lambda."),
    click.option(
        "--projection",
        is_flag=True,
        default=None,
        help="Learn a 1x1x1 convolution to the teacher's channels, where they differ.",
    ),
    click.option(
        "--cache-teacher",
        is_flag=True,
        help="Compute the teacher's outputs once and read them back; needs --views.",
    ),
)


@click.command("distill", cls=KdantCommand)
@distillation_options
@training_options
def distill(**options: Any) -> None:
    """Train the anticipation network A on the earlier clips, with R as its teacher.

    Model, width, crop and batch-norm momentum are the teacher's unless they are given.
    """
    run_training(**options)
