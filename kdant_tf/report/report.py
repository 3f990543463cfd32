"""One HTML page about runs or a study."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdant_tf.evaluation.predictions import describe_stale
from kdant_tf.report.group import MOST_NETWORKS, Group, ReportedRuns, group_networks, load_reported_runs
from kdant_tf.report.page import Page, Picture, Section, Table, write_page
from kdant_tf.report.plots import (
    class_picture,
    confusion_pictures,
    curve_blocks,
    reliability_picture,
    study_pictures,
    training_picture,
)
from kdant_tf.report.tables import (
    about_tables,
    class_table,
    difference_table,
    result_table,
    setting_tables,
    study_blocks,
)
from kdant_tf.runs import Run
from kdant_tf.version import __version__
from tf_records.errors import KdantError
from tf_records.files import check_apart
from tf_records.remote_path import RecordPath, record_path

_LEAD = (
    "How well networks name an action before it happens, what they say of single videos, and what they were "
    "trained with."
)
_NO_RECORDS = (
    "There are no clips and no heat maps here, since this page was made without --records. Clips come from "
    "records: kdant report … --records REC."
)


def write_report(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    records: Sequence[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> tuple[int, int]:
    """Writes a page about runs or a study. The same input gives the same bytes.

    Args:
        folders: of runs, or of one study.
        out: HTML file, made whole or not at all.
        records: folders that the runs were evaluated on, one a split; without any the page has no clips
            and imports no TensorFlow.
        overwrite: replace `out` where it is there.

    Returns:
        Its size in bytes, and the number of samples that it shows.

    Raises:
        RunError: see `load_reported_runs` and `group_networks`.
        RecordError: records that are none, or damaged.
        KdantError: `out` is there already, or cannot be written.
    """
    path = Path(out)
    _check_out(path, overwrite=overwrite)
    check_apart(path, *map(Path, folders), *map(record_path, records), may_lie_in=True)
    reported = load_reported_runs([Path(folder) for folder in folders])
    page = compose(reported, [record_path(folder) for folder in records])
    return write_page(page, path), page.clips


def _check_out(out: Path, *, overwrite: bool) -> None:
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else f"lies in {out.parent}, which is no folder"
        raise KdantError(f"--out should be a file such as report.html. {out} {what}.")
    # A page takes minutes to make.
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise KdantError(
            f"Folder {out.parent} of --out cannot be written. Choose another, or make it writable."
        )
    if out.exists() and not overwrite:
        raise KdantError(f"File {out} is there already. Choose another, or add --overwrite to replace it.")


def compose(reported: ReportedRuns, records: Sequence[RecordPath]) -> Page:
    """All sections of the page."""
    groups = group_networks(reported, records)
    sections = [
        _results(reported),
        *_samples(groups),
        *(_classes(group, number, len(groups)) for number, group in enumerate(groups)),
        _training(groups[0].runs if groups else dict(list(reported.runs.items())[:MOST_NETWORKS])),
        Section(
            id="settings",
            title="Settings",
            blocks=[*about_tables(reported.tables), *setting_tables(reported.runs)],
        ),
    ]
    return Page(title=reported.title, lead=_LEAD, sections=sections, version=__version__)


def _results(reported: ReportedRuns) -> Section:
    blocks: list[Table | Picture] = []
    if reported.study is not None:
        blocks += [*study_pictures(reported.study), *study_blocks(reported.study, reported.tables)]
    if reported.networks:
        blocks.append(result_table(reported.networks))
    if several := [each for each in reported.networks if each.several]:
        blocks += [table for table in (class_table(several),) if table is not None]
    difference = None if reported.study is not None else difference_table(reported.networks)
    blocks += [] if difference is None else [difference]
    blocks += curve_blocks(reported.networks)
    text = [] if blocks else ["No run of this study was evaluated, and it has no table yet."]
    stale = [describe_stale(run) for run in reported.runs.values()]
    text += [f"Left out: {sentence}" for sentence in stale if sentence]
    return Section(id="results", title="Results", blocks=blocks, text=text)


def _samples(groups: Sequence[Group]) -> list[Section]:
    sections: list[Section] = []
    for number, group in enumerate(groups):
        if group.records is not None:
            from kdant_tf.report.samples import sample_sections  # imports TensorFlow

            sections += sample_sections(group, group.records, number, len(groups))
    return sections or [Section(id="samples", title="Samples", blocks=(), text=(_NO_RECORDS,))]


def _classes(group: Group, number: int, of: int) -> Section:
    table = class_table(group.networks)
    blocks: list[Table | Picture] = [] if table is None else [table]
    blocks += [class_picture(group), *confusion_pictures(group), reliability_picture(group)]
    where = "" if of == 1 else f": {group.records}"
    return Section(
        id="classes" if of == 1 else f"classes-{number + 1}",
        title=f"Classes and confidence{where}",
        blocks=blocks,
    )


def _training(runs: Mapping[str, Run]) -> Section:
    picture = training_picture(runs)
    text = ("No run has kept its metrics.csv, so there are no training curves.",)
    return Section(
        id="training",
        title="Training",
        blocks=() if picture is None else [picture],
        text=text if picture is None else (),
    )
