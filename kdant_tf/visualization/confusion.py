"""How often networks are correct and how sure they are: confusion, accuracy by class, reliability, results.

Drawn from predictions or accuracies alone. No TensorFlow here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kdant_tf.evaluation.metrics import (
    Interval,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    per_class_accuracy,
    wilson_interval,
)
from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.visualization.style import GREY, OKABE_ITO, mark_of, save, shorten, wrap

# Classes up to which a confusion matrix has names and counts.
_NAMED = 30
# White is none; one hue, so that only lightness differs.
_SHADES = matplotlib.colormaps["Blues"]
_BINS = 10
_DIAGRAMS_PER_ROW = 3
_PAPER = OKABE_ITO[1]
_METHOD_WIDTH = 26


def plot_confusion(name: str, predictions: Predictions, classes: Sequence[str], path: Path) -> Path:
    """Rows by label, columns by first class, coloured by the share of the row; counts up to 30 classes.

    Args:
        name: of the network, for the title.
        predictions: of it.
        classes: names in index order; without samples and never predicted they are left out.
        path: PNG to write.

    Returns:
        `path`.
    """
    counts = confusion_matrix(predictions.probabilities, predictions.labels)
    occurring = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    counts = counts[np.ix_(occurring, occurring)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = len(occurring) <= _NAMED
    side = max(2.2, 0.36 * len(occurring)) if named else 6.0
    figure = Figure(figsize=(side + 3.2, side + 2.2), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    ticks = [shorten(classes[i]) for i in occurring] if named else []
    places = range(len(occurring)) if named else []
    axis.set_xticks(places, ticks, rotation=90, fontsize=8.5)
    axis.set_yticks(places, ticks, fontsize=8.5)
    axis.set_xlabel("prediction" if named else f"prediction, {len(occurring)} classes in index order")
    axis.set_ylabel("label")
    for (y, x), count in np.ndenumerate(counts) if named else ():
        if count:
            colour = "white" if shares[y, x] > 0.55 else "black"
            axis.text(x, y, str(count), ha="center", va="center", fontsize=8, color=colour)
    left_out = len(classes) - len(occurring)
    note = f"; {left_out} classes that do not occur are left out" if left_out else ""
    figure.suptitle(wrap(f"{name}: {len(predictions.labels)} samples{note}", 60), fontsize=10)
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the label's samples")
    return save(figure, path)


def plot_per_class(networks: Mapping[str, Predictions], classes: Sequence[str], path: Path) -> Path:
    """Accuracy of each class with its 95 % interval, a bar a network; samples beside the name.

    Args:
        networks: name → predictions, of the same classes.
        classes: names in index order; those without samples are left out.
        path: PNG to write.

    Returns:
        `path`.
    """
    support = np.max([per_class_accuracy(p.probabilities, p.labels)[1] for p in networks.values()], axis=0)
    occurring = [int(i) for i in np.flatnonzero(support)]
    thick = 0.8 / len(networks)
    height = len(occurring) * max(0.3, 0.15 * len(networks)) + 1.1
    figure = Figure(figsize=(8.5, height), layout="constrained")
    axis = figure.subplots()
    for number, (name, predictions) in enumerate(networks.items()):
        intervals = [_class_interval(predictions, label) for label in occurring]
        places = np.arange(len(occurring)) + (number - (len(networks) - 1) / 2) * thick
        _draw_bars(axis, places, intervals, thick, name, number)
    axis.set_yticks(
        range(len(occurring)), [f"{shorten(classes[i])} ({support[i]})" for i in occurring], fontsize=9
    )
    axis.set(xlim=(0, 1), ylim=(len(occurring) - 0.5, -0.5), xlabel="top-1 accuracy, with 95 % interval")
    axis.set_ylabel("class (samples)")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return save(figure, path)


def plot_reliability(networks: Mapping[str, Predictions], path: Path) -> Path:
    """A diagram a network: accuracy against confidence in 10 bins, and the number of samples in each.

    Args:
        networks: name → predictions.
        path: PNG to write.

    Returns:
        `path`.
    """
    columns = min(_DIAGRAMS_PER_ROW, len(networks))
    rows = -(-len(networks) // columns)
    figure = Figure(figsize=(3.4 * columns, 4.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 1] * rows)
    for number in range(rows * columns):
        pair = axes[number // columns * 2 : number // columns * 2 + 2, number % columns]
        if number < len(networks):
            _draw_reliability(pair, *list(networks.items())[number], number % columns == 0)
        else:
            for axis in pair:
                axis.axis("off")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return save(figure, path)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One method in one column of a table.

    Args:
        title: of the method.
        values: accuracy of each training, shares of 1; none of what was not trained.
        published: by the paper, where it has it.
    """

    title: str
    values: Sequence[float]
    published: float | None


def plot_results(columns: Mapping[str, Sequence[Bar]], path: Path) -> Path:
    """A panel a column, a bar a method: the mean, with a dot for each training, and the paper's mark.

    Args:
        columns: name → the same methods in the same order.
        path: PNG to write.

    Returns:
        `path`.
    """
    bars = next(iter(columns.values()))
    figure = Figure(figsize=(1.9 + 3.1 * len(columns), 0.9 + 0.42 * max(2, len(bars))), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False).ravel()
    for axis, (name, own) in zip(axes, columns.items(), strict=True):
        _draw_column(axis, own)
        axis.set_title(name, fontsize=10)
    axes[0].set_yticks(range(len(bars)), [wrap(bar.title, _METHOD_WIDTH) for bar in bars], fontsize=8.5)
    axes[0].invert_yaxis()
    drawn = [each for axis in axes for each in zip(*axis.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in drawn}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False
    )
    return save(figure, path)


def _class_interval(predictions: Predictions, label: int) -> Interval:
    own = predictions.labels == label
    return wilson_interval(predictions.correct()[own], predictions.sources[own])


def _draw_bars(
    axis: Any, places: np.ndarray, intervals: Sequence[Interval], thick: float, name: str, number: int
) -> None:
    colour, marker = mark_of(number)
    values = np.array([each.value for each in intervals])
    axis.barh(places, values, height=thick * 0.92, color=colour, alpha=0.35)
    ends = [[each.value - each.low for each in intervals], [each.high - each.value for each in intervals]]
    style = {"elinewidth": 1, "capsize": 0, "markersize": 4.5, "ls": "none"}
    axis.errorbar(
        values, places, xerr=np.maximum(ends, 0), fmt=marker, color=colour, label=name, clip_on=False, **style
    )


def _draw_reliability(axes: Any, name: str, predictions: Predictions, first: bool) -> None:
    confidence, accuracy, counts = calibration_bins(predictions.probabilities, predictions.labels, _BINS)
    error = expected_calibration_error(predictions.probabilities, predictions.labels, _BINS)
    middles, full = (np.arange(_BINS) + 0.5) / _BINS, counts > 0
    upper, lower = axes
    upper.bar(middles[full], accuracy[full], 0.94 / _BINS, color=OKABE_ITO[5], label="accuracy")
    upper.plot([0, 1], [0, 1], "--", color=GREY, lw=1, label="as often right as sure")
    upper.plot(
        confidence[full], accuracy[full], "o", color="black", ms=4, label="at the mean confidence of the bin"
    )
    upper.set_title(f"{wrap(name, 34)}\ncalibration error {100 * error:.1f} %", fontsize=9)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.bar(middles, counts, 0.94 / _BINS, color=GREY)
    for x, count in zip(middles, counts, strict=True):
        if count:
            lower.text(x, count, str(count), ha="center", va="bottom", fontsize=7)
    lower.set(xlim=(0, 1), xlabel="confidence", yticks=[], ylim=(0, 1.3 * counts.max()))
    upper.set_xticklabels([])
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    if first:
        upper.set_ylabel("accuracy")
        lower.set_ylabel("samples")


def _draw_column(axis: Any, bars: Sequence[Bar]) -> None:
    ours = [(place, 100 * np.asarray(bar.values)) for place, bar in enumerate(bars) if len(bar.values)]
    paper = [(place, 100 * bar.published) for place, bar in enumerate(bars) if bar.published is not None]
    if ours:
        places, means = [place for place, _ in ours], [values.mean() for _, values in ours]
        axis.barh(places, means, height=0.62, color=OKABE_ITO[5], alpha=0.55, label="ours, mean")
        dots = np.array([(value, place) for place, values in ours for value in values])
        axis.scatter(*dots.T, s=16, color=OKABE_ITO[0], lw=0, label="ours, each training", zorder=3)
    if paper:
        style = {"s": 34, "marker": "D", "facecolors": "white", "edgecolors": _PAPER, "linewidths": 1.5}
        axis.scatter(*np.array(paper).T[::-1], label="the paper", zorder=4, **style)
    axis.set_xlim(0, 100)
    axis.set_ylim(-0.6, len(bars) - 0.4)
    axis.set_xlabel("accuracy, %", fontsize=9)
    axis.tick_params(axis="x", labelsize=8.5)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color(GREY)
