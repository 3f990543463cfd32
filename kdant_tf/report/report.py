"""One page about runs or a study."""

from collections.abc import Sequence
from pathlib import Path

from kdant_tf.report.content import Page, Picture, Section, Table
from kdant_tf.report.page import write_page
from kdant_tf.report.pictures import training_picture
from kdant_tf.report.result_tables import class_table, curve_tables, difference_table, result_table
from kdant_tf.report.setting_tables import setting_tables
from kdant_tf.report.study_tables import about_tables, study_tables
from kdant_tf.report.subject import Subject, load_subject
from kdant_tf.version import __version__
from tf_records.errors import KdantError


def write_report(folders: Sequence[Path], out: Path, *, overwrite: bool = False) -> tuple[int, int]:
    """Writes a page about runs or a study.

    Args:
        folders: of runs, or of one study.
        out: HTML file, made whole or not at all.
        overwrite: replace it where it is there.

    Returns:
        Its size in bytes, and the number of samples that it shows.

    Raises:
        RunError: see `load_subject`.
        KdantError: `out` is there already, or cannot be written.
    """
    check_out(out, overwrite=overwrite)
    page = compose(load_subject(folders))
    return write_page(page, out), page.clips


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuses a file that cannot be made, before anything is drawn."""
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else f"lies in {out.parent}, which does not exist"
        raise KdantError(f"--out should be a file such as report.html. {out} {what}.")
    if out.exists() and not overwrite:
        raise KdantError(f"File {out} is there already. Choose another, or add --overwrite to replace it.")


def compose(subject: Subject) -> Page:
    """All sections of the page."""
    sections = [_results(subject), _classes(subject), _training(subject), _settings(subject)]
    return Page(
        title=subject.title,
        lead="How well networks name an action before it happens, what they were trained with, and what they "
        "say of single videos.",
        sections=[section for section in sections if section.blocks or section.text],
        version=__version__,
    )


def _results(subject: Subject) -> Section:
    blocks: list[Table] = []
    if subject.study is not None:
        blocks += study_tables(subject.study, subject.tables)
    if subject.networks:
        blocks.append(result_table(subject.networks))
    difference = None if subject.study is not None else difference_table(subject.networks)
    blocks += [] if difference is None else [difference]
    blocks += curve_tables(subject.networks)
    return Section(id="results", title="Results", blocks=blocks)


def _classes(subject: Subject) -> Section:
    table = class_table(subject.networks)
    return Section(id="classes", title="Classes", blocks=[] if table is None else [table])


def _training(subject: Subject) -> Section:
    picture = training_picture(subject.runs)
    blocks: list[Picture] = [] if picture is None else [picture]
    text = [] if blocks else ["No run has kept its metrics.csv, so there are no training curves."]
    return Section(id="training", title="Training", blocks=blocks, text=text)


def _settings(subject: Subject) -> Section:
    blocks = [*about_tables(subject.tables), *setting_tables(subject.runs)]
    return Section(id="settings", title="Settings", blocks=blocks)
