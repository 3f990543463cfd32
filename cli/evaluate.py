"""kdant evaluate"""

from pathlib import Path

import click

from tf_records.quiet import start_tensorflow
from tf_records.remote_path import RecordPath

from .command import KdantCommand
from .options import FOLDER, json_option, records_option


@click.command("evaluate", cls=KdantCommand)
@click.argument("run", type=FOLDER)
@records_option
@click.option(
    "--view",
    type=click.Choice(["observed", "future"]),
    help="What the network sees of each record; default: future for a teacher, observed for a student.",
)
@click.option("--split", type=click.Choice(["test", "val"]), default="test", show_default=True)
@json_option
def evaluate(run: Path, records: RecordPath, view: str | None, split: str, as_json: bool) -> None:
    """Measure a run's accuracy. The result is also kept in the run folder's evaluation.json."""
    from kdant_tf.runs import load_run

    loaded = load_run(run)
    start_tensorflow()
    from kdant_tf.evaluation.protocols import evaluate_run
    from tf_records.records import Records

    from .bars import CountProgress
    from .output import percent, print_fields, print_json

    opened = Records.open(records, split=split)
    with CountProgress("evaluating windows", None) as progress:
        result = evaluate_run(loaded, opened, view=view, split=split, on_batch=progress.advance)
    if as_json:
        print_json(result.to_dict())
        return
    print_fields(
        f"{run} on the {result.view} segments of {records} ({split})",
        {
            "top-1": percent(result.top1),
            "top-5": percent(result.top5),
            "mean class accuracy": percent(result.mean_class_accuracy),
            "samples": str(result.samples),
            "chance": percent(1 / len(result.classes)),
        },
    )
