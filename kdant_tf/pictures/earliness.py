"""Accuracy against how much of each video a network sees, or how long before the action it has to say.

No TensorFlow here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kdant_tf.evaluation.statistics import CurvePoint
from kdant_tf.pictures.style import DASHES, GREY, mark_of, save

# Names in evaluation.json of what accuracy is drawn against, and in words.
AGAINST = {"share": "share of the video seen", "tau": "seconds from the clip's end to the action"}


def plot_accuracy_against(
    networks: Mapping[str, Sequence[CurvePoint]], path: Path, *, xlabel: str, chance: float | None = None
) -> Path:
    """A curve a network, with its 95 % interval as a band.

    Args:
        networks: name → points.
        path: PNG to write.
        xlabel: what the points' x is.
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
    axis.set(ylim=(0, 1), xlabel=xlabel, ylabel="top-1 accuracy")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8.5, frameon=False)
    return save(figure, path)
