"""kdant demo"""

from pathlib import Path

import click

from tf_records.start_tensorflow import start_tensorflow

from .command import FOLDER, KdantCommand, command_line


@click.command("demo", cls=KdantCommand, short_help="See a network learn to anticipate, on rendered videos.")
@click.option(
    "--size", type=click.Choice(["small", "tiny"]), default="small", help="Of the videos and the networks."
)
@click.option("--out", type=FOLDER, default="kdant-demo", help="Folder of videos, records and runs.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in --out.")
def demo(size: str, out: Path, overwrite: bool) -> None:
    """See an anticipation network learn from a recognition network, on videos made on the spot.

    small takes about two minutes on two cores, tiny about one; tiny's networks learn next to nothing.
    """
    start_tensorflow()
    from kdant_tf.demo import run_demo

    from .output import percent, print_table
    from .progress import TrainingProgress

    result = run_demo(
        out,
        size,
        overwrite=overwrite,
        on_stage=lambda stage: click.echo(f"{stage} …", err=True),
        make_callbacks=lambda epochs, name: [TrainingProgress(epochs, name)],
    )
    rows = [
        (
            _title(name),
            evaluation.view,
            percent(evaluation.top1),
            percent(evaluation.mean_class_accuracy),
            f"{evaluation.top1 / result.chance:.2f}",
        )
        for name, evaluation in result.evaluations.items()
    ]
    samples = next(iter(result.evaluations.values())).samples
    title = f"{samples} test videos; chance is {percent(result.chance)}"
    print_table(title, ("network", "sees", "top-1", "mean class\naccuracy", "times\nchance"), rows)
    click.echo(f"Pictures: {result.pictures}")
    click.echo(f"SavedModel: {result.exported}")
    command = command_line("evaluate", out / "teacher", "--records", out / "records", "--view", "observed")
    click.echo(f"Next: {command}")


def _title(name: str) -> str:
    return name if name == "teacher" else f"student {name}"
