"""What a page is about: runs or a study, and their networks in groups of the same samples.

No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.evaluation.predictions import (
    EvaluatedRun,
    Predictions,
    describe_stale,
    evaluate_command,
    read_evaluated,
)
from kdant_tf.runs import MODEL_NAME, Run, load_run, manifest_sha256
from kdant_tf.studies.study_folder import STUDY_NAME, StudyFile
from kdant_tf.studies.study_plan import run_folder
from tf_records.errors import RunError
from tf_records.heads import are_times
from tf_records.manifest import load_manifest
from tf_records.remote_path import RecordPath

# That a page compares.
MOST_NETWORKS = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRuns:
    """The runs that a page is about, and what they were evaluated on.

    Args:
        title: of the page.
        runs: name on the page → run.
        networks: these runs on the segments that they were evaluated on.
        study: its folder; None for runs that were given one by one.
        tables: of the study → what study.json says of each.
    """

    title: str
    runs: Mapping[str, Run]
    networks: Sequence[EvaluatedRun]
    study: Path | None = None
    tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load_reported_runs(folders: Sequence[Path]) -> ReportedRuns:
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


def _load_runs(folders: Sequence[Path]) -> ReportedRuns:
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"Each run should be given once. Received: {', '.join(map(str, folders))}.")
    runs = {str(folder): load_run(folder) for folder in folders}
    networks: list[EvaluatedRun] = []
    for name, run in runs.items():
        found = read_evaluated(run, name)
        if not found:
            never = f"Run {run.folder} was not evaluated yet. Evaluate it first: "
            raise RunError(describe_stale(run) or f"{never}{evaluate_command(run.folder)}.")
        networks += found
    title = f"Run {folders[0]}" if len(folders) == 1 else f"{len(folders)} runs"
    return ReportedRuns(title=title, runs=runs, networks=networks)


def _load_study(folder: Path) -> ReportedRuns:
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
    return ReportedRuns(title=f"Study {folder}", runs=runs, networks=networks, study=folder, tables=tables)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Networks with predictions of the same samples, and the records that hold these, where given.

    Args:
        networks: at least one, each with predictions.
        records: their folder, or None.
    """

    networks: Sequence[EvaluatedRun]
    records: RecordPath | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.networks[0].classes

    @property
    def split(self) -> str:
        return str(self.networks[0].result["split"])

    @property
    def runs(self) -> dict[str, Run]:
        """Name → run, each once."""
        return {each.name: each.run for each in self.networks}

    @property
    def predictions(self) -> dict[str, Predictions]:
        """Title → predictions."""
        return {each.title: each.predictions for each in self.networks if each.predictions is not None}

    @property
    def main(self) -> EvaluatedRun:
        """Its predictions choose the samples: the last student of the paper's loss, or the last student."""
        students = [each for each in self.networks if each.run.role == "student"]
        proposed = [each for each in students if each.run.config.feature_loss == "bidirectional"]
        return (proposed or students or list(self.networks))[-1]


def group_networks(reported: ReportedRuns, records: Sequence[RecordPath]) -> list[Group]:
    """A group for each record folder, or one group without records; none where no predictions are kept.

    Of a study, the runs of the first seed stand for all.

    Raises:
        RunError: records that do not fit, or of which no predictions are kept.
    """
    if records:
        return [_fit(reported, folder) for folder in records]
    networks = [each for each in reported.networks if each.predictions is not None and not each.several]
    if reported.study is not None and networks:
        networks = _first_seed(
            [each for each in networks if each.run.records_sha256 == networks[0].run.records_sha256]
        )
    networks = _same_samples(networks)
    return [Group(networks=networks[:MOST_NETWORKS], records=None)] if networks else []


def _fit(reported: ReportedRuns, folder: RecordPath) -> Group:
    manifest = load_manifest(folder)
    sha256 = manifest_sha256(folder)
    own = [each for each in reported.networks if each.run.records_sha256 == sha256]
    if reported.study is not None and not own:
        raise RunError(
            f"No evaluated run of study {reported.study} is of records {folder}. Give the records that "
            f"it was made with; {reported.study / 'study.json'} names them."
        )
    own = _first_seed(own) if reported.study is not None else own or list(reported.networks)
    for each in own:
        each.run.check_records(manifest, folder, insist=True)
    networks = [each for each in own if each.predictions is not None]
    if networks and all(each.several for each in networks):
        raise RunError(
            f"Run {own[0].run.folder} gives several labels a clip, and a page shows no clips of such. Leave "
            f"--records out."
        )
    if any(are_times(each.run.heads) for each in networks):
        raise RunError(
            f"Run {own[0].run.folder} names what comes at several times, and a page shows no clips of "
            f"such. Leave --records out."
        )
    networks = [each for each in networks if not each.several]
    if not networks:
        raise RunError(
            f"Run {own[0].run.folder} has kept no predictions. Evaluate it again: "
            f"{evaluate_command(own[0].run.folder, str(folder))}."
        )
    fitting = [each for each in networks if _is_of(each, sha256)]
    if not fitting:
        raise refuse_records(Group(networks=networks, records=folder), "their manifest is another")
    group = Group(networks=_same_samples(fitting)[:MOST_NETWORKS], records=folder)
    info, kept = manifest.splits.get(group.split), len(next(iter(group.predictions.values())).labels)
    if info is None or info.records != kept:
        there = 0 if info is None else info.records
        raise refuse_records(group, f"{kept} {group.split} samples there, {there} here")
    return group


def _is_of(evaluated: EvaluatedRun, records_sha256: str) -> bool:
    """Whether its predictions are of the records with this manifest, as far as they tell."""
    return evaluated.predictions is not None and evaluated.predictions.records_sha256 in ("", records_sha256)


def refuse_records(group: Group, difference: str) -> RunError:
    """The error for records that are not those of a group's predictions."""
    first = group.networks[0]
    view = first.view.partition(",")[0]
    return RunError(
        f"The predictions of run {first.run.folder} are of other records than {group.records}: {difference}. "
        f"Evaluate it on these: {evaluate_command(first.run.folder, str(group.records))} --view {view}."
    )


def _first_seed(networks: Sequence[EvaluatedRun]) -> list[EvaluatedRun]:
    first = min(each.run.config.seed for each in networks)
    return [each for each in networks if each.run.config.seed == first]


def _same_samples(networks: Sequence[EvaluatedRun]) -> list[EvaluatedRun]:
    """Those with predictions of the same samples as the first one's, of the same classes."""
    return [
        each
        for each in networks
        if each.predictions is not None
        and networks[0].predictions is not None
        and not each.several
        and each.classes == networks[0].classes
        and np.array_equal(each.predictions.ids, networks[0].predictions.ids)
        and np.array_equal(each.predictions.labels, networks[0].predictions.labels)
    ]
