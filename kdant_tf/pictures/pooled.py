"""Features of networks, pooled over the positions of their maps, and the picture of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kdant_tf.models.networks import feature_map_name
from kdant_tf.pictures.projection import plot_projection, project
from kdant_tf.pictures.shown import ShownRun
from tf_records.reader import evaluation_batches
from tf_records.records import iterate_batches

# At most: the picture has no room for more, and t-SNE takes minutes.
SAMPLES = 1000
_BATCH = 16


def draw_features(
    shown: Sequence[ShownRun], classes: Sequence[str], path: Path, *, projection: str = "pca", seed: int = 0
) -> Path:
    """The split's samples in two dimensions, a panel a network.

    Args:
        shown: at least one run.
        classes: names in index order.
        path: PNG to write.
        projection: "pca" or "tsne".
        seed: of t-SNE, and of the draw of 1,000 samples where there are more.

    Raises:
        KdantError: t-SNE cannot be made (says why).
    """
    points = {}
    for each in shown:
        features, labels = pooled_features(each, seed=seed)
        points[each.name] = project(features, projection, seed)
    return plot_projection(points, labels, classes, path)


def pooled_features(shown: ShownRun, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the feature vectors of each sample's middle clip, in the segment that the run is to see.

    Args:
        shown: a run.
        seed: draws 1,000 samples where there are more.

    Returns:
        float `(N, d)`, and labels int `(N,)`, in record order.
    """
    records = shown.own_records
    total = records.split(shown.split).records
    chosen = np.zeros(total, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(total)[:SAMPLES]] = True
    batches = evaluation_batches(
        records,
        split=shown.split,
        view=shown.view,
        batch_size=_BATCH,
        crop=shown.run.config.crop,
        windows=1,
        chosen=chosen,
    )
    network, name = shown.network, feature_map_name(shown.network)

    @tf.function(reduce_retracing=True, autograph=False)
    def pool(clips: tf.Tensor) -> tf.Tensor:
        maps = network(clips, training=False)[name]
        return tf.reduce_mean(maps, axis=list(range(1, len(maps.shape) - 1)))

    features, labels = [], []
    for batch in iterate_batches(batches, records, shown.split):
        features.append(pool(batch["clip"]).numpy())
        labels.append(batch["label"].numpy())
    return np.concatenate(features), np.concatenate(labels)
