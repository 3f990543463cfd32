"""kdant train-teacher"""

from pathlib import Path
from typing import Any

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand
from .options import print_training, training_options


@click.command("train-teacher", cls=KdantCommand)
@training_options
def train_teacher(
    records: Path,
    out: Path,
    preset: str | None,
    config_file: Path | None,
    devices: str,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the recognition network R on the clips in which the actions happen."""
    from kdant_tf.config import TEACHER, resolve_config

    config = resolve_config(TEACHER, preset=preset, file=config_file, options=options)
    start_tensorflow()
    from kdant_tf.training.train import train

    from .progress import TrainingProgress

    with TrainingProgress(config.epochs, "teacher") as progress:
        result = train(
            records,
            out,
            config,
            devices=devices,
            resume=resume,
            overwrite=overwrite,
            callbacks=[progress],
        )
    print_training(result, as_json, f"kdant distill --records {records} --teacher {out} --out student")
