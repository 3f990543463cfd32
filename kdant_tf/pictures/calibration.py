"""Whether networks are right as often as they say they are: reliability diagrams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kdant_tf.evaluation.metrics import calibration_bins, expected_calibration_error
from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.pictures.style import GREY, OKABE_ITO, save, wrap

BINS = 10
_COLUMNS = 3


def plot_reliability(networks: Mapping[str, Predictions], path: Path) -> Path:
    """A diagram a network: accuracy against confidence in 10 bins, and how many samples each bin has.

    Args:
        networks: name → predictions.
        path: PNG to write.

    Returns:
        `path`.
    """
    columns = min(_COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    figure = Figure(figsize=(3.4 * columns, 4.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 1] * rows)
    for number in range(rows * columns):
        pair = axes[number // columns * 2 : number // columns * 2 + 2, number % columns]
        if number < len(networks):
            _draw(pair, *list(networks.items())[number], number % columns == 0)
        else:
            for axis in pair:
                axis.axis("off")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return save(figure, path)


def _draw(axes: Any, name: str, predictions: Predictions, first: bool) -> None:
    confidence, accuracy, counts = calibration_bins(predictions.probabilities, predictions.labels, BINS)
    error = expected_calibration_error(predictions.probabilities, predictions.labels, BINS)
    middles, full = (np.arange(BINS) + 0.5) / BINS, counts > 0
    upper, lower = axes
    upper.bar(middles[full], accuracy[full], 0.94 / BINS, color=OKABE_ITO[5], label="accuracy")
    upper.plot([0, 1], [0, 1], "--", color=GREY, lw=1, label="as often right as sure")
    upper.plot(
        confidence[full], accuracy[full], "o", color="black", ms=4, label="at the mean confidence of the bin"
    )
    upper.set_title(f"{wrap(name, 34)}\ncalibration error {100 * error:.1f} %", fontsize=9)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.bar(middles, counts, 0.94 / BINS, color=GREY)
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
