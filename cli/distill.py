"""kdant distill"""

from pathlib import Path
from typing import Any

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand
from .options import FOLDER, distillation_options, print_training, training_options


@click.command("distill", cls=KdantCommand)
@click.option("--teacher", required=True, type=FOLDER, help="Run folder of train-teacher.")
@distillation_options
@training_options
def distill(
    records: Path,
    teacher: Path,
    out: Path,
    preset: str | None,
    config_file: Path | None,
    devices: str,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the anticipation network A on the earlier clips, with R as its teacher.

    Width, crop and batch-norm momentum are the teacher's unless they are given.
    """
    from kdant_tf.config import STUDENT, resolve_config
    from kdant_tf.runs import inherited_settings, load_run

    run = load_run(teacher)
    config = resolve_config(
        STUDENT, inherited=inherited_settings(run), preset=preset, file=config_file, options=options
    )
    start_tensorflow()
    from kdant_tf.training.train import train

    from .progress import TrainingProgress

    with TrainingProgress(config.epochs, f"student ({config.feature_loss})") as progress:
        result = train(
            records,
            out,
            config,
            teacher=run,
            devices=devices,
            resume=resume,
            overwrite=overwrite,
            callbacks=[progress],
        )
    print_training(result, as_json, f"kdant evaluate {out} --records {records}")
