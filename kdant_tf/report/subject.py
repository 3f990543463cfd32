"""What a page is about: runs, or the finished runs of a study. No TensorFlow here."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdant_tf.report.evaluated import Evaluated, describe_advice, read_evaluated
from kdant_tf.runs import MODEL_NAME, Run, load_run
from kdant_tf.studies.study import run_folder
from kdant_tf.studies.study_folder import STUDY_NAME, StudyFile
from tf_records.errors import RunError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Runs and what they were evaluated on.

    Args:
        title: of the page.
        runs: name on the page → run.
        networks: these runs on the segments that they were evaluated on.
        study: its folder; None for runs that were given one by one.
        tables: of the study → what study.json says of each.
    """

    title: str
    runs: Mapping[str, Run]
    networks: Sequence[Evaluated]
    study: Path | None = None
    tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load_subject(folders: Sequence[Path]) -> Subject:
    """Reads run folders, or one study's folder.

    Raises:
        RunError: no run or study, a run that has not finished or was not evaluated, a study without finished
            runs, or a study beside others.
    """
    studies = [folder for folder in folders if (folder / STUDY_NAME).is_file()]
    if studies and len(folders) > 1:
        raise RunError(
            f"A page is about runs or about one study. Received {len(folders)} folders, of which "
            f"{studies[0]} is a study. Give it alone."
        )
    return _load_study(studies[0]) if studies else _load_runs(folders)


def _load_runs(folders: Sequence[Path]) -> Subject:
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"Each run should be given once. Received: {', '.join(map(str, folders))}.")
    runs = {str(folder): load_run(folder) for folder in folders}
    networks: list[Evaluated] = []
    for name, run in runs.items():
        found = read_evaluated(run, name)
        if not found:
            raise RunError(
                f"Run {run.folder} was not evaluated yet. Evaluate it first: {describe_advice(run.folder)}."
            )
        networks += found
    title = f"Run {folders[0]}" if len(folders) == 1 else f"{len(folders)} runs"
    return Subject(title=title, runs=runs, networks=networks)


def _load_study(folder: Path) -> Subject:
    tables = StudyFile(folder).fields["tables"]
    try:
        names = list(dict.fromkeys(run["name"] for about in tables.values() for run in about["runs"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / STUDY_NAME} cannot be read: {error!r}. Run the study again.") from error
    finished = [name for name in names if (run_folder(folder, name) / MODEL_NAME).is_file()]
    if not finished:
        raise RunError(
            f"Study {folder} has no finished run yet. Go on with it: kdant reproduce … --out {folder} "
            f"--resume."
        )
    runs = {name: load_run(run_folder(folder, name)) for name in finished}
    networks = [each for name, run in runs.items() for each in read_evaluated(run, name)]
    return Subject(title=f"Study {folder}", runs=runs, networks=networks, study=folder, tables=tables)
