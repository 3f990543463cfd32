"""kdant train-teacher"""

from typing import Any

import click

from .command import KdantCommand
from .training import run_training, training_options


@click.command("train-teacher", cls=KdantCommand)
@training_options
def train_teacher(**options: Any) -> None:
    """Train the recognition network R on the clips in which the actions happen."""
    run_training(**options)
