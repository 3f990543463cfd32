"""Accuracy against how much of each video a network sees."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kdant_tf.evaluation.protocols import ObservedShare
from kdant_tf.pictures.style import DASHES, GREY, mark_of, save


def plot_observed_shares(
    networks: Mapping[str, Sequence[ObservedShare]], path: Path, *, chance: float | None = None
) -> Path:
    """A curve a network, with its 95 % interval as a band.

    Args:
        networks: name → points.
        path: PNG to write.
        chance: accuracy of guessing, for a line.

    Returns:
        `path`.
    """
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axis = figure.subplots()
    for number, (name, points) in enumerate(networks.items()):
        ordered = sorted(points, key=lambda point: point.share)
        shares = [100 * point.share for point in ordered]
        values, low, high = (
            np.array([getattr(point.top1, end) for point in ordered]) for end in ("value", "low", "high")
        )
        colour, marker = mark_of(number)
        axis.plot(shares, values, DASHES[number % len(DASHES)], marker=marker, ms=5, color=colour, label=name)
        axis.fill_between(shares, low, high, color=colour, alpha=0.12, lw=0)
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
    axis.set(xlim=(0, 102), ylim=(0, 1), xlabel="share of the video seen, %", ylabel="top-1 accuracy")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8.5, frameon=False)
    return save(figure, path)
