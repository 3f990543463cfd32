"""The pictures of a page that need no records: training, classes, confidence, curves. No TensorFlow here."""

import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from kdant_tf.evaluation.metrics import CurvePoint, confusion_matrix, expected_calibration_error
from kdant_tf.evaluation.predictions import EvaluatedRun, Predictions, read_curves
from kdant_tf.report.group import Group
from kdant_tf.report.page import Picture, Table, draw_inline
from kdant_tf.report.tables import curve_table
from kdant_tf.runs import METRICS_NAME, Run, read_metrics
from kdant_tf.studies.drift import PICTURE_NAME
from kdant_tf.visualization.confusion import plot_confusion, plot_per_class, plot_reliability
from kdant_tf.visualization.curves import AGAINST, plot_accuracy_against, plot_curves

_CONFUSIONS = 3


def study_pictures(folder: Path) -> list[Picture]:
    """What `kdant reproduce drift` drew; its table has the numbers."""
    drawn = folder / PICTURE_NAME
    if not drawn.is_file():
        return []
    picture = draw_inline(
        partial(shutil.copyfile, drawn),
        alt="Gain of each feature loss over the student without one, against the drift between the clips. "
        "The table below has the numbers.",
        caption="What each feature loss gains over none, against how far things move between the clips.",
    )
    return [picture]


def training_picture(runs: Mapping[str, Run]) -> Picture | None:
    """Losses and accuracy against the epoch; None where no run has kept any of the network that it has."""
    kept = {name: run for name, run in runs.items() if not run.has_other_network}
    rows = {name: read_metrics(run.folder / METRICS_NAME) for name, run in kept.items()}
    rows = {name: own for name, own in rows.items() if own}
    if not rows:
        return None
    ends = [
        f"{name}: accuracy {_describe_accuracy(own[-1]['accuracy'])}, classification loss "
        f"{own[-1]['classification_loss']:.3g} after epoch {own[-1]['epoch']}"
        for name, own in rows.items()
    ]
    return draw_inline(
        lambda path: plot_curves(rows, path),
        alt=f"Classification loss, accuracy and feature loss against the epoch. {'; '.join(ends)}.",
        caption="On training samples; dashed on those held out for validation, where there are any.",
    )


def _describe_accuracy(share: float) -> str:
    """As a share of 1; without a labelled sample there is none."""
    return "none" if math.isnan(share) else f"{share:.2f}"


def confusion_pictures(group: Group) -> list[Picture]:
    """Of each network where there are up to three, else of the main one."""
    drawn = group.predictions
    if len(drawn) > _CONFUSIONS:
        drawn = {group.main.title: drawn[group.main.title]}
    return [
        draw_inline(
            partial(plot_confusion, title, predictions, group.classes),
            alt=f"Confusion matrix of {title}. {_describe_confusion(predictions, group.classes)}",
            caption=f"Labels against first classes of {title}.",
        )
        for title, predictions in drawn.items()
    ]


def _describe_confusion(predictions: Predictions, classes: tuple[str, ...]) -> str:
    counts = confusion_matrix(predictions.probabilities, predictions.labels)
    correct = int(np.trace(counts))
    np.fill_diagonal(counts, 0)
    label, named = np.unravel_index(int(np.argmax(counts)), counts.shape)
    most = int(counts[label, named])
    worst = f" Most often, {most} times, {classes[label]} is taken for {classes[named]}." if most else ""
    return f"{correct} of {len(predictions.labels)} samples lie on the diagonal.{worst}"


def class_picture(group: Group) -> Picture:
    """Accuracy of each class, a bar a network."""
    return draw_inline(
        partial(plot_per_class, group.predictions, group.classes),
        alt="Bars of top-1 accuracy with intervals, for each class and network. The table of each class has "
        "the numbers.",
        caption="Top-1 accuracy of each class, with Wilson's 95 % interval over its videos.",
    )


def reliability_picture(group: Group) -> Picture:
    """Whether networks are right as often as they say."""
    errors = [
        f"{title}: {100 * expected_calibration_error(each.probabilities, each.labels, 10):.1f} %"
        for title, each in group.predictions.items()
    ]
    return draw_inline(
        partial(plot_reliability, group.predictions),
        alt=f"Reliability diagrams: accuracy against confidence. Calibration errors: {'; '.join(errors)}.",
        caption="Above: how often a network is right, by how sure it was. Below: how many samples that were. "
        "Bars below the dashed line: surer than right.",
    )


def curve_blocks(networks: Sequence[EvaluatedRun]) -> list[Table | Picture]:
    """A picture and a table where `evaluate --observe` was asked for, and where `--tau` was."""
    blocks: list[Table | Picture] = []
    for name in AGAINST:
        curves = {
            # Such as "student, val, records 1a2b3c4d".
            f"{each.name}{result.removeprefix(name)}": points
            for each in networks
            for result, points in read_curves(each.run, name).items()
        }
        if curves := {run: points for run, points in curves.items() if points}:
            # Heads have a chance each.
            several = any(each.run.heads for each in networks)
            chance = None if several else 1 / max(len(each.run.classes) for each in networks)
            blocks += [_curve_picture(name, curves, chance), curve_table(name, curves)]
    return blocks


def _curve_picture(name: str, curves: Mapping[str, Sequence[CurvePoint]], chance: float | None) -> Picture:
    ends = [
        f"{network}: {100 * points[0].top1.value:.1f} % at {points[0].x:g}, "
        f"{100 * points[-1].top1.value:.1f} % at {points[-1].x:g}"
        for network, points in curves.items()
    ]
    return draw_inline(
        partial(plot_accuracy_against, curves, xlabel=AGAINST[name], chance=chance),
        alt=f"Top-1 accuracy against {AGAINST[name]}. {'; '.join(ends)}.",
        caption=f"Top-1 accuracy against {AGAINST[name]}; bands are intervals of 95 %.",
    )
