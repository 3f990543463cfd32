"""What `kdant train-teacher` and `kdant distill` share: their options, and the call behind them."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from kdant_tf.config import FEATURE_LOSS_NAMES
from tf_records.remote_path import RecordPath
from tf_records.start_tensorflow import start_tensorflow

from .command import FOLDER, KdantCommand, add_options, folder_options, json_option, records_option

# Each is a field of Execution.
execution_options = add_options(
    click.option(
        "--devices",
        default="auto",
        show_default=True,
        help="auto, cpu, gpu, cpu:N or gpu:N; of each worker where there are several.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["auto", "one", "mirrored", "multiworker"]),
        default="auto",
        show_default=True,
        help="auto: the workers that TF_CONFIG lists, else mirrored over the devices.",
    ),
    click.option(
        "--checkpoint-minutes",
        type=float,
        default=10.0,
        show_default=True,
        help="Save this often within an epoch, besides at its end; 0 never does.",
    ),
    click.option(
        "--deterministic",
        is_flag=True,
        help="The same bits each time on one device, also when killed and resumed; somewhat slower.",
    ),
    click.option(
        "--xla",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Compile the whole step (on), nothing (off), or the whole step on GPUs and the attention "
        "pooling alone on CPUs (auto).",
    ),
)

training_options = add_options(
    records_option,
    click.option("--out", required=True, type=FOLDER, help="Run folder to make."),
    click.option("--preset", help="Settings that ship with kdant, such as jhmdb-small."),
    click.option(
        "--config", "config_file", type=FOLDER, help="TOML file with settings; see kdant_tf/presets."
    ),
    click.option(
        "--modality",
        type=click.Choice(["rgb", "flow"]),
        help="What the network sees, where records hold both; default: rgb, or the teacher's.",
    ),
    click.option("--model", help="i3d, tsn, frame-mlp, or MODULE:FUNCTION for a network of your own."),
    click.option(
        "--init",
        help="First weights: kinetics (i3d), imagenet (tsn, frame-mlp), random, or the path of a DeepMind "
        "checkpoint, a run folder or a .keras file.",
    ),
    click.option(
        "--backbone",
        "--tsn-backbone",
        "backbone",
        help="Of tsn (ResNet50) or frame-mlp (ResNet152), from keras.applications.",
    ),
    click.option("--segments", type=int, help="Frames that tsn sees of a clip."),
    click.option("--epochs", type=int),
    click.option("--batch-size", type=int, help="Pairs an update, over all devices."),
    click.option(
        "--gradient-accumulation",
        type=int,
        help="Micro-batches that a batch is computed in, one after the other, in less memory.",
    ),
    click.option("--crop", type=int, help="Pixels of the square that the network sees."),
    click.option(
        "--views",
        type=int,
        help="Starts, crops and flips drawn of each pair, once, in place of new ones each epoch.",
    ),
    click.option("--learning-rate", type=float),
    click.option("--clip-norm", type=float, help="Largest norm of a batch's gradient."),
    click.option(
        "--precision", help="float32, or on a GPU mixed_bfloat16 or mixed_float16 (with loss scaling)."
    ),
    click.option("--width", type=float, help="Multiplies I3D's channels; 1 is the published network."),
    click.option(
        "--sync-batch-norm", is_flag=True, default=None, help="Batch normalisation over all devices."
    ),
    click.option(
        "--freeze-batch-norm",
        is_flag=True,
        default=None,
        help="Keep the batch normalisation of the first weights, for fine-tuning on small batches.",
    ),
    click.option("--label-fraction", type=float, help="Share of the training labels to use, seeded."),
    click.option(
        "--validation-fraction",
        type=float,
        help="Share of the labelled training videos to keep out and validate on after each epoch, seeded.",
    ),
    click.option(
        "--validation-split",
        help="Or the records' split to validate on, such as val. The best epoch's network is kept.",
    ),
    click.option("--seed", type=int, help="Of weights, order, crops and dropout."),
    click.option(
        "--skip-damaged", is_flag=True, help="Train without the shards whose bytes have changed, and say so."
    ),
    execution_options,
    folder_options,
    json_option,
)


def run_training(
    *,
    records: RecordPath,
    out: Path,
    preset: str | None,
    config_file: Path | None,
    resume: bool,
    overwrite: bool,
    skip_damaged: bool,
    as_json: bool,
    teacher: Path | None = None,
    **options: Any,
) -> None:
    """Trains a teacher, or with `teacher` a student, and prints the result.

    `options` are settings and, where Execution has a field of the name, ways to run.
    """
    from kdant_tf.config import STUDENT, TEACHER, Execution, resolve_config
    from kdant_tf.runs import inherited_settings, load_run

    names = {field.name for field in dataclasses.fields(Execution)} & set(options)
    ways = {name: options.pop(name) for name in names}
    run = None if teacher is None else load_run(teacher)
    config = resolve_config(
        TEACHER if run is None else STUDENT,
        inherited={} if run is None else inherited_settings(run),
        preset=preset,
        file=config_file,
        options=options,
    )
    start_tensorflow()
    from kdant_tf.training.train import train

    from .progress import TrainingProgress

    name = "teacher" if run is None else f"student ({config.feature_loss})"
    with TrainingProgress(config.epochs, name) as progress:
        result = train(
            records,
            out,
            config,
            teacher=run,
            execution=Execution(**ways),
            resume=resume,
            overwrite=overwrite,
            skip_damaged=skip_damaged,
            callbacks=[progress],
            report=lambda line: click.echo(line, err=True),
        )
    if result.worker > 0:
        click.echo(f"Worker {result.worker} has finished; worker 0 wrote {out}.", err=True)
    elif run is None:
        _print_result(result, as_json, f"kdant distill --records {records} --teacher {out} --out student")
    else:
        _print_result(result, as_json, f"kdant evaluate {out} --records {records}")


def _print_result(result: Any, as_json: bool, next_command: str) -> None:
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
            **_describe_best(result),
            "clips per second": f"{result.clips_per_second:.1f}",
            "next": next_command,
        },
    )


def _describe_best(result: Any) -> dict[str, str]:
    from .output import percent

    if result.best_epoch is None:
        return {}
    return {
        "best epoch": f"{result.best_epoch}, kept as model.keras",
        "its validation accuracy": percent(result.validation_accuracy),
    }


# kdant train-teacher


@click.command("train-teacher", cls=KdantCommand)
@training_options
def train_teacher(**options: Any) -> None:
    """Train the recognition network R on the clips in which the actions happen."""
    run_training(**options)


# kdant distill


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
