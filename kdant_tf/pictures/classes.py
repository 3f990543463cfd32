"""Which classes a network gets right, and which it takes for which."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kdant_tf.evaluation.metrics import confusion_matrix, per_class_accuracy
from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.evaluation.statistics import Interval
from kdant_tf.pictures.style import mark_of, save, shorten, wrap

_NAMED = 30
# White is none; one hue, so that only lightness has to be told apart.
_COLOURS = matplotlib.colormaps["Blues"]


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
    met = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    counts = counts[np.ix_(met, met)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = len(met) <= _NAMED
    side = max(2.2, 0.36 * len(met)) if named else 6.0
    figure = Figure(figsize=(side + 3.2, side + 2.2), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap=_COLOURS, vmin=0, vmax=1)
    ticks = [shorten(classes[i]) for i in met] if named else []
    places = range(len(met)) if named else []
    axis.set_xticks(places, ticks, rotation=90, fontsize=8.5)
    axis.set_yticks(places, ticks, fontsize=8.5)
    axis.set_xlabel("prediction" if named else f"prediction, {len(met)} classes in index order")
    axis.set_ylabel("label")
    for (y, x), count in np.ndenumerate(counts) if named else ():
        if count:
            colour = "white" if shares[y, x] > 0.55 else "black"
            axis.text(x, y, str(count), ha="center", va="center", fontsize=8, color=colour)
    left_out = len(classes) - len(met)
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
    met = [int(i) for i in np.flatnonzero(support)]
    thick = 0.8 / len(networks)
    height = len(met) * max(0.3, 0.15 * len(networks)) + 1.1
    figure = Figure(figsize=(8.5, height), layout="constrained")
    axis = figure.subplots()
    for number, (name, predictions) in enumerate(networks.items()):
        intervals = [class_interval(predictions, i) for i in met]
        places = np.arange(len(met)) + (number - (len(networks) - 1) / 2) * thick
        _draw_bars(axis, places, intervals, thick, name, number)
    axis.set_yticks(range(len(met)), [f"{shorten(classes[i])} ({support[i]})" for i in met], fontsize=9)
    axis.set(xlim=(0, 1), ylim=(len(met) - 0.5, -0.5), xlabel="top-1 accuracy, with 95 % interval")
    axis.set_ylabel("class (samples)")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return save(figure, path)


def class_interval(predictions: Predictions, label: int) -> Interval:
    """Accuracy of a class with Wilson's 95 % interval, for as many trials as there are videos of it.

    Samples of one video are alike, and where all of a few are right the bootstrap has no width at all.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    own = predictions.labels == label
    share, trials = float(np.mean(predictions.right()[own])), len(np.unique(predictions.videos[own]))
    z = 1.959964
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


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
