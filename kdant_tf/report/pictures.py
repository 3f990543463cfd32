"""Pictures of what networks learned and say, from their run folders. No TensorFlow here."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from kdant_tf.evaluation.metrics import confusion_matrix, expected_calibration_error
from kdant_tf.evaluation.plots import plot_curves
from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.metrics_csv import read_metrics
from kdant_tf.pictures.calibration import plot_reliability
from kdant_tf.pictures.classes import plot_confusion, plot_per_class
from kdant_tf.report.content import Picture
from kdant_tf.report.group import Group
from kdant_tf.report.inline import draw_inline
from kdant_tf.runs import METRICS_NAME, Run
from kdant_tf.studies.drift_plot import PICTURE_NAME

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
    """Losses and accuracy against the epoch; None where no run has kept any."""
    rows = {name: read_metrics(run.folder / METRICS_NAME) for name, run in runs.items()}
    rows = {name: own for name, own in rows.items() if own}
    if not rows:
        return None
    ends = [
        f"{name}: accuracy {own[-1]['accuracy']:.2f}, classification loss "
        f"{own[-1]['classification_loss']:.3g} after epoch {own[-1]['epoch']}"
        for name, own in rows.items()
    ]
    return draw_inline(
        lambda path: plot_curves(rows, path),
        alt=f"Classification loss, accuracy and feature loss against the epoch. {'; '.join(ends)}.",
        caption="On training samples; dashed on those held out for validation, where there are any.",
    )


def confusion_pictures(group: Group) -> list[Picture]:
    """What the network that samples are chosen by confuses, or each of up to three."""
    said = group.predictions
    if len(said) > _CONFUSIONS:
        said = {group.judge.title: said[group.judge.title]}
    return [
        draw_inline(
            partial(plot_confusion, title, predictions, group.classes),
            alt=f"Confusion matrix of {title}. {_describe_confusion(predictions, group.classes)}",
            caption=f"Labels against first classes of {title}.",
        )
        for title, predictions in said.items()
    ]


def _describe_confusion(predictions: Predictions, classes: tuple[str, ...]) -> str:
    counts = confusion_matrix(predictions.probabilities, predictions.labels)
    right = int(np.trace(counts))
    np.fill_diagonal(counts, 0)
    label, named = np.unravel_index(int(np.argmax(counts)), counts.shape)
    most = int(counts[label, named])
    worst = f" Most often, {most} times, {classes[label]} is taken for {classes[named]}." if most else ""
    return f"{right} of {len(predictions.labels)} samples lie on the diagonal.{worst}"


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
