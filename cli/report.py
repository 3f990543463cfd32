"""kdant report"""

from pathlib import Path

import click

from tf_records.remote_path import RecordPath
from tf_records.start_tensorflow import start_tensorflow

from .command import FOLDER, RECORD_FOLDER, KdantCommand, json_option


@click.command("report", cls=KdantCommand, short_help="Write one page about runs or a study, for a browser.")
@click.argument("folders", type=FOLDER, nargs=-1, required=True, metavar="RUN_OR_STUDY...")
@click.option(
    "--records",
    multiple=True,
    type=RECORD_FOLDER,
    help="Folder that the runs were evaluated on, for clips and heat maps; repeat it for each split.",
)
@click.option("--out", required=True, type=FOLDER, help="HTML file to write, such as report.html.")
@click.option("--overwrite", is_flag=True, help="Replace --out where it is there.")
@json_option
def report(
    folders: tuple[Path, ...], records: tuple[RecordPath, ...], out: Path, overwrite: bool, as_json: bool
) -> None:
    """Write one page about runs or a study, to look at in a browser.

    RUN_OR_STUDY... are evaluated runs, in any number, or the folder of one study. The page needs no other
    file and no network.
    """
    if records:
        start_tensorflow()
    from kdant_tf.report.report import write_report

    from .output import print_fields, print_json

    size, samples = write_report(folders, out, records=records, overwrite=overwrite)
    if as_json:
        print_json({"path": str(out), "bytes": size, "samples": samples})
        return
    print_fields("Report", {"file": str(out), "size": f"{size / 1e6:.1f} MB", "samples shown": str(samples)})
