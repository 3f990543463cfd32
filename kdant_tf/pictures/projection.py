"""Pooled features of networks in two dimensions, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kdant_tf.pictures.style import mark_of, save, shorten, wrap
from tf_records.errors import KdantError

METHODS = ("pca", "tsne")
_COLUMNS = 3
_LISTED = 40


def project(features: np.ndarray, method: str, seed: int = 0) -> tuple[np.ndarray, str]:
    """Features `(N, d)` → `(N, 2)`, and in words what the two dimensions are.

    Args:
        features: float, one vector a sample.
        method: "pca", the two directions of largest variance, or "tsne", which keeps neighbours.
        seed: of t-SNE.

    Raises:
        KdantError: t-SNE without scikit-learn, or of fewer than four samples.
    """
    centred = features.astype(np.float64) - features.mean(axis=0)
    if method == "pca":
        return _project_linearly(centred)
    if len(features) < 4:
        raise KdantError(f"t-SNE wants at least 4 samples. Received: {len(features)}. Take --projection pca.")
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise KdantError(
            "t-SNE needs scikit-learn, which is not installed. Install it: pip install 'kdant-tf[plots]', or "
            "take --projection pca."
        ) from error
    perplexity = min(30.0, (len(features) - 1) / 3)
    shown = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(centred)
    return shown, f"t-SNE, perplexity {perplexity:.0f}"


def _project_linearly(centred: np.ndarray) -> tuple[np.ndarray, str]:
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    shown = np.zeros((len(centred), 2))
    kept = min(2, len(values))
    shown[:, :kept] = left[:, :kept] * values[:kept]
    # The sign of a singular vector is arbitrary; here its largest entry is positive.
    largest = np.argmax(np.abs(shown), axis=0)
    shown *= np.where(shown[largest, [0, 1]] < 0, -1, 1)
    share = float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-12))
    return shown, f"PCA, {100 * share:.0f} % of the variance"


def plot_projection(
    networks: Mapping[str, tuple[np.ndarray, str]], labels: np.ndarray, classes: Sequence[str], path: Path
) -> Path:
    """A panel a network, of the same samples; classes differ in colour and marker.

    Args:
        networks: name → `project`'s result.
        labels: int `(N,)`.
        classes: names in index order.
        path: PNG to write.

    Returns:
        `path`.
    """
    met = [int(label) for label in np.unique(labels)]
    columns = min(_COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    listed = met[:_LISTED]
    legend_rows = -(-len(listed) // (2 * columns))
    figure = Figure(figsize=(3.6 * columns, 3.6 * rows + 0.25 * legend_rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, (points, words)) in zip(axes, networks.items(), strict=False):
        for number, label in enumerate(met):
            _draw_class(axis, points[labels == label], number, shorten(classes[label]))
        axis.set_title(f"{wrap(name, 40)}\n{words}", fontsize=9)
        axis.set(xticks=[], yticks=[])
    for axis in axes[len(networks) :]:
        axis.axis("off")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(
        handles[0][:_LISTED],
        handles[1][:_LISTED],
        loc="outside lower center",
        ncols=2 * columns,
        fontsize=8.5,
        frameon=False,
    )
    return save(figure, path)


def _draw_class(axis: Any, points: np.ndarray, number: int, name: str) -> None:
    colour, marker = mark_of(number)
    axis.scatter(
        *points.T,
        s=26,
        color=colour,
        marker=marker,
        alpha=0.8,
        linewidths=0.4,
        edgecolors="white",
        label=name,
    )
