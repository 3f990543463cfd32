"""Networks that a page shows side by side, since they saw the same samples. No TensorFlow here."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.report.evaluated import Evaluated, describe_advice
from kdant_tf.report.subject import Subject
from kdant_tf.runs import Run, manifest_sha256
from tf_records.errors import RunError
from tf_records.manifest import load_manifest
from tf_records.remote_path import RecordPath

MOST_NETWORKS = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Networks with predictions of the same samples, and the records that hold these, where given.

    Args:
        networks: at least one, each with predictions.
        records: their folder, or None.
    """

    networks: Sequence[Evaluated]
    records: RecordPath | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.networks[0].run.classes

    @property
    def split(self) -> str:
        return str(self.networks[0].result["split"])

    @property
    def runs(self) -> dict[str, Run]:
        """Name → run, each once."""
        return {each.name: each.run for each in self.networks}

    @property
    def predictions(self) -> dict[str, Predictions]:
        """Title → what the network said."""
        return {each.title: each.predictions for each in self.networks if each.predictions is not None}

    @property
    def judge(self) -> Evaluated:
        """By whose answers samples are chosen: the last student of the paper's loss, or the last student."""
        students = [each for each in self.networks if each.run.role == "student"]
        proposed = [each for each in students if each.run.config.feature_loss == "bidirectional"]
        return (proposed or students or list(self.networks))[-1]


def group_networks(subject: Subject, records: Sequence[RecordPath]) -> list[Group]:
    """A group for each record folder, or one group without records; none where no predictions are kept.

    Of a study, the runs of the first seed stand for all.

    Raises:
        RunError: records that do not fit, or of which no predictions are kept.
    """
    if records:
        return [_fit(subject, folder) for folder in records]
    networks = [each for each in subject.networks if each.predictions is not None]
    if subject.study is not None and networks:
        networks = _first_seed(
            [each for each in networks if each.run.records_sha256 == networks[0].run.records_sha256]
        )
    networks = _same_samples(networks)
    return [Group(networks=networks[:MOST_NETWORKS], records=None)] if networks else []


def _fit(subject: Subject, folder: RecordPath) -> Group:
    manifest = load_manifest(folder)
    sha256 = manifest_sha256(folder)
    own = [each for each in subject.networks if each.run.records_sha256 == sha256]
    if subject.study is not None and not own:
        raise RunError(
            f"No evaluated run of study {subject.study} is of records {folder}. Give the records that "
            f"it was made with; {subject.study / 'study.json'} names them."
        )
    own = _first_seed(own) if subject.study is not None else own or list(subject.networks)
    for each in own:
        each.run.check_records(manifest, folder)
    networks = [each for each in own if each.predictions is not None]
    if not networks:
        raise RunError(
            f"Run {own[0].run.folder} has kept no predictions. Evaluate it again: "
            f"{describe_advice(own[0].run.folder, str(folder))}."
        )
    group = Group(networks=_same_samples(networks)[:MOST_NETWORKS], records=folder)
    info, kept = manifest.splits.get(group.split), len(next(iter(group.predictions.values())).labels)
    if info is None or info.records != kept:
        there = 0 if info is None else info.records
        raise refuse_records(group, f"{kept} {group.split} samples there, {there} here")
    return group


def refuse_records(group: Group, difference: str) -> RunError:
    """The error for records that are not those of a group's predictions."""
    first = group.networks[0]
    return RunError(
        f"The predictions of run {first.run.folder} are of other records than {group.records}: {difference}. "
        f"Evaluate it on these: {describe_advice(first.run.folder, str(group.records))} --view {first.view}."
    )


def _first_seed(networks: Sequence[Evaluated]) -> list[Evaluated]:
    first = min(each.run.config.seed for each in networks)
    return [each for each in networks if each.run.config.seed == first]


def _same_samples(networks: Sequence[Evaluated]) -> list[Evaluated]:
    """Those that saw the samples of the first one, with the same classes."""
    return [
        each
        for each in networks
        if each.predictions is not None
        and networks[0].predictions is not None
        and each.run.classes == networks[0].run.classes
        and np.array_equal(each.predictions.ids, networks[0].predictions.ids)
        and np.array_equal(each.predictions.labels, networks[0].predictions.labels)
    ]
