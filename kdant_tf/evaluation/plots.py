"""Pictures: training curves, and where the networks look (Figure 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tf_records.files import atomic_path

_CURVES = {
    "classification_loss": "classification loss",
    "accuracy": "training accuracy",
    "feature_loss": "feature loss, unweighted",
}
_UNIT_SQUARE = (0, 1, 0, 1)


def plot_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Classification loss, accuracy and feature loss against the epoch, a line a run.

    Args:
        runs: name → rows of its metrics.csv.
        path: PNG to write.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, (column, title) in zip(figure.subplots(1, len(_CURVES)), _CURVES.items(), strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            values = [row[column] for row in rows]
            if column == "feature_loss" and not any(values):
                continue
            epochs = [row["epoch"] for row in rows]
            axis.plot(epochs, values, marker=".", label=name, color=f"C{number}")
        axis.set(xlabel="epoch", title=title)
        axis.set_ylim(bottom=0, top=1 if column == "accuracy" else None)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
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

    The redder, the larger, as in Figure 3. Each map is scaled to its own range: it shows where, not
    how much.

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
            axis.imshow(frame if magnitude is None else _grey(frame), extent=_UNIT_SQUARE)
            if magnitude is not None:
                axis.imshow(_red(magnitude), extent=_UNIT_SQUARE, interpolation="bilinear")
            axis.set(xticks=[], yticks=[])
            if row is rows[0]:
                axis.set_title(name, fontsize=9)
        row_axes[0].set_ylabel(row["title"], fontsize=9)
    _save(figure, path)


def _grey(frame: np.ndarray) -> np.ndarray:
    return np.repeat(frame.mean(axis=-1, keepdims=True), 3, axis=-1)


def _red(magnitude: np.ndarray) -> np.ndarray:
    """`(h, w)` → RGBA `(h, w, 4)`: pure red, the more opaque the larger."""
    span = np.ptp(magnitude)
    share = (magnitude - magnitude.min()) / span if span > 0 else np.zeros_like(magnitude)
    red = np.broadcast_to((0.9, 0.0, 0.0), (*magnitude.shape, 3))
    return np.concatenate([red, 0.8 * share[..., None]], axis=-1)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
