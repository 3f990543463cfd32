"""Curves: of a training against the epoch, and of accuracy against how much of a video a network sees."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdant_tf.evaluation.metrics import CurvePoint
from kdant_tf.runs import best_epoch
from kdant_tf.visualization.style import DASHES, GREY, mark_of, save

_CURVES = {
    "classification_loss": "classification loss",
    "accuracy": "accuracy",
    "feature_loss": "feature loss, unweighted",
}
# Beside it, dashed, where epochs were validated.
_VALIDATED = {"classification_loss": "validation_loss", "accuracy": "validation_accuracy"}
# What accuracy is drawn against: the name in evaluation.json → in words.
AGAINST = {
    "share": "share of the video seen",
    "tau": "seconds from the clip's end to the action",
    "latency": "seconds that an answer takes",
}


def plot_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Classification loss, accuracy and feature loss against the epoch, a line a run.

    Validation is dashed, its best epoch ringed; dotted lines stand where a learning rate begins.

    Args:
        runs: name → rows of its metrics.csv.
        path: PNG to write.
    """
    figure = Figure(figsize=(12, 3.9))
    axes = figure.subplots(1, len(_CURVES))
    for axis, (column, title) in zip(axes, _CURVES.items(), strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            values = [row[column] for row in rows]
            if all(math.isnan(value) for value in values) or (column == "feature_loss" and not any(values)):
                continue
            epochs, (color, marker) = [row["epoch"] for row in rows], mark_of(number)
            every = max(1, len(rows) // 10)
            axis.plot(epochs, values, marker=marker, markevery=every, ms=4, label=name, color=color)
            _draw_validation(axis, rows, column, name, color)
            _draw_rate_steps(axis, rows, color, named=len(runs) == 1)
        axis.set(xlabel="epoch")
        axis.set_title(title, y=1.0)  # where it is anyway, without a search
        axis.set_ylim(bottom=0, top=1 if column == "accuracy" else None)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if not axis.lines:
            axis.text(0.5, 0.5, "none in this run", ha="center", transform=axis.transAxes)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8.5)
    # Places by hand, in inches: a layout of Matplotlib's takes as long as all the rest.
    legend = 0.12 + 0.19 * math.ceil(len(labels) / 4)
    height = 3.5 + legend
    figure.set_figheight(height)
    figure.subplots_adjust(0.6 / 12, (0.5 + legend) / height, 11.9 / 12, 1 - 0.32 / height, wspace=0.19)
    save(figure, path)


def _draw_validation(
    axis: Axes, rows: Sequence[Mapping[str, float]], column: str, name: str, color: str
) -> None:
    validated = [row for row in rows if _VALIDATED.get(column) in row]
    if not validated:
        return
    epochs = [row["epoch"] for row in validated]
    values = {row["epoch"]: row[_VALIDATED[column]] for row in validated}
    axis.plot(epochs, [*values.values()], "--", label=f"{name}, validation", color=color)
    best = best_epoch(validated)
    if best is not None:
        axis.plot([best], [values[best]], "o", markersize=8, markerfacecolor="none", color=color)


def _draw_rate_steps(axis: Axes, rows: Sequence[Mapping[str, float]], color: str, *, named: bool) -> None:
    """A dotted line between the last epoch of a rate and the first of the next, where there are steps."""
    pairs = list(itertools.pairwise(rows))
    changes = [(before, row) for before, row in pairs if row["learning_rate"] != before["learning_rate"]]
    if len(changes) > len(rows) / 2:
        return  # It changes all the time.
    for before, row in changes:
        epoch = (before["epoch"] + row["epoch"]) / 2
        axis.axvline(epoch, linestyle=":", linewidth=1, color=color, alpha=0.6)
        if named:
            text = f" learning rate {row['learning_rate']:.3g}"
            place = axis.get_xaxis_transform()
            axis.text(
                epoch, 0.98, text, rotation=90, va="top", ha="right", fontsize=7, color="0.4", transform=place
            )


def plot_accuracy_against(
    networks: Mapping[str, Sequence[CurvePoint]],
    path: Path,
    *,
    xlabel: str,
    ylabel: str = "top-1 accuracy",
    chance: float | None = None,
) -> Path:
    """A curve a network, with its 95 % interval as a band; of one point, a mark with a line.

    Args:
        networks: name → points.
        path: PNG to write.
        xlabel, ylabel: what the points are.
        chance: accuracy of guessing, for a line.

    Returns:
        `path`.
    """
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axis = figure.subplots()
    for number, (name, points) in enumerate(networks.items()):
        ordered = sorted(points, key=lambda point: point.x)
        xs = [point.x for point in ordered]
        values, low, high = (
            np.array([getattr(point.top1, end) for point in ordered]) for end in ("value", "low", "high")
        )
        colour, marker = mark_of(number)
        axis.plot(xs, values, DASHES[number % len(DASHES)], marker=marker, ms=5, color=colour, label=name)
        if len(ordered) == 1:
            axis.vlines(xs, low, high, color=colour, lw=1)
        axis.fill_between(xs, low, high, color=colour, alpha=0.12, lw=0)
    if chance is not None:
        axis.axhline(chance, color=GREY, lw=1, ls=(0, (1, 2)))
        axis.annotate(
            "chance",
            (1, chance),
            (-4, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=GREY,
        )
    axis.set(ylim=(0, 1), xlabel=xlabel, ylabel=ylabel)
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8.5, frameon=False)
    return save(figure, path)
