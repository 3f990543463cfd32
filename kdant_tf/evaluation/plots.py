"""Pictures: training curves, and where the networks look (Figure 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_records.files import atomic_path

_CURVES = {"loss": "loss", "accuracy": "training accuracy", "feature_loss": "feature loss, unweighted"}


def plot_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Loss, accuracy and feature loss against the epoch, a line a run.

    Args:
        runs: name → rows of its metrics.csv.
        path: PNG to write.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, (column, title) in zip(figure.subplots(1, len(_CURVES)), _CURVES.items(), strict=True):
        for name, rows in runs.items():
            values = [row[column] for row in rows]
            if column == "feature_loss" and not any(values):
                continue
            axis.plot([row["epoch"] for row in rows], values, marker=".", label=name)
        axis.set(xlabel="epoch", title=title)
        axis.set_ylim(bottom=0, top=1 if column == "accuracy" else None)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
        else:
            axis.text(0.5, 0.5, "none in this run", ha="center", transform=axis.transAxes)
    _save(figure, path)


def activation_magnitude(feature_map: np.ndarray) -> np.ndarray:
    """Length of the feature vector at each place, averaged over time (§4.2, Figure 3).

    Args:
        feature_map: float `(T, H, W, d)`.

    Returns:
        float `(H, W)`.
    """
    return np.linalg.norm(feature_map, axis=-1).mean(axis=0)


def plot_heat_maps(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A row a sample: the frame shown and, over it, each network's activation magnitude.

    Each map is scaled to its own range, as in Figure 3: it shows where, not how much.

    Args:
        rows: dicts with "title", and "panels": name → (frame float `(H, W, 3)` in [0, 1],
            magnitude `(h, w)` or None for the bare frame).
        path: PNG to write.
    """
    columns = len(rows[0]["panels"])
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row_axes, row in zip(axes, rows, strict=True):
        for axis, (name, (frame, magnitude)) in zip(row_axes, row["panels"].items(), strict=True):
            axis.imshow(frame, extent=(0, 1, 0, 1))
            if magnitude is not None:
                axis.imshow(magnitude, extent=(0, 1, 0, 1), cmap="inferno", alpha=0.55, interpolation="bilinear")
            axis.set(xticks=[], yticks=[])
            if row is rows[0]:
                axis.set_title(name, fontsize=9)
        row_axes[0].set_ylabel(row["title"], fontsize=9)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
