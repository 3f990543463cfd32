"""Features of networks, pooled over the positions of their maps, projected to two dimensions and drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from kdant_tf.models.networks import feature_map_name
from kdant_tf.visualization.run_view import RunView
from kdant_tf.visualization.style import mark_of, save, shorten, wrap
from tf_records.errors import KdantError
from tf_records.reader import evaluation_batches
from tf_records.records import iterate_batches

# At most: the picture has no room for more, and t-SNE takes minutes.
_SAMPLES = 1000
_BATCH_SIZE = 16
# Of an I3D, tracing takes as long as some ten calls of its layers one by one.
_TRACED_FROM = 10 * _BATCH_SIZE
_PANELS_PER_ROW = 3
_CLASSES_LISTED = 40


def draw_features(
    views: Sequence[RunView], classes: Sequence[str], path: Path, *, projection: str = "pca", seed: int = 0
) -> Path:
    """The split's samples in two dimensions, a panel a network.

    Args:
        views: of at least one run.
        classes: names in index order.
        path: PNG to write.
        projection: "pca" or "tsne".
        seed: of t-SNE, and of the draw of 1,000 samples where there are more.

    Raises:
        KdantError: t-SNE cannot be made (says why).
    """
    points = {}
    for each in views:
        features, labels = pooled_features(each, seed=seed)
        points[each.title] = project(features, projection, seed)
    return plot_projection(points, labels, classes, path)


def pooled_features(run_view: RunView, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the feature vectors of each sample's middle clip, in the segment that the run was trained on.

    Args:
        run_view: of a run.
        seed: draws 1,000 samples where there are more.

    Returns:
        float `(N, d)`, and labels int `(N,)`, in record order.
    """
    records = run_view.own_records
    total = records.split(run_view.split).records
    chosen = np.zeros(total, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(total)[:_SAMPLES]] = True
    batches = evaluation_batches(
        records,
        split=run_view.split,
        view=run_view.view,
        batch_size=1 if run_view.run.crop is None else _BATCH_SIZE,
        crop=run_view.run.crop,
        windows=1,
        chosen=chosen,
    )
    network, name = run_view.network, feature_map_name(run_view.network)

    def pool(clips: tf.Tensor) -> tf.Tensor:
        maps = network(clips, training=False)[name]
        return tf.reduce_mean(maps, axis=list(range(1, len(maps.shape) - 1)))

    if chosen.sum() > _TRACED_FROM:
        pool = tf.function(pool, reduce_retracing=True, autograph=False)
    features, labels = [], []
    for batch in iterate_batches(batches, records, run_view.split):
        features.append(pool(batch["clip"]).numpy())
        labels.append(batch["label"].numpy())
    return np.concatenate(features), np.concatenate(labels)


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
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(centred)
    return points, f"t-SNE, perplexity {perplexity:.0f}"


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
    occurring = [int(label) for label in np.unique(labels)]
    columns = min(_PANELS_PER_ROW, len(networks))
    rows = -(-len(networks) // columns)
    listed = occurring[:_CLASSES_LISTED]
    legend_rows = -(-len(listed) // (2 * columns))
    figure = Figure(figsize=(3.6 * columns, 3.6 * rows + 0.25 * legend_rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, (points, words)) in zip(axes, networks.items(), strict=False):
        for number, label in enumerate(occurring):
            _draw_class(axis, points[labels == label], number, shorten(classes[label]))
        axis.set_title(f"{wrap(name, 40)}\n{words}", fontsize=9)
        axis.set(xticks=[], yticks=[])
    for axis in axes[len(networks) :]:
        axis.axis("off")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(
        handles[0][:_CLASSES_LISTED],
        handles[1][:_CLASSES_LISTED],
        loc="outside lower center",
        ncols=2 * columns,
        fontsize=8.5,
        frameon=False,
    )
    return save(figure, path)


def _project_linearly(centred: np.ndarray) -> tuple[np.ndarray, str]:
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(centred), 2))
    kept = min(2, len(values))
    points[:, :kept] = left[:, :kept] * values[:kept]
    # The sign of a singular vector is arbitrary; here its largest entry is positive.
    largest = np.argmax(np.abs(points), axis=0)
    points *= np.where(points[largest, [0, 1]] < 0, -1, 1)
    share = float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-12))
    return points, f"PCA, {100 * share:.0f} % of the variance"


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
