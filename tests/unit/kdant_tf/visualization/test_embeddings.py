"""Projections to two dimensions, and the picture of them."""

import numpy as np
import pytest
from pixels import near, pixels_of

from kdant_tf.runs import load_run
from kdant_tf.visualization.embeddings import plot_projection, pooled_features, project
from kdant_tf.visualization.run_view import RunView
from kdant_tf.visualization.style import OKABE_ITO
from tf_records.errors import KdantError
from tf_records.records import Records


def test_pca_finds_the_directions_of_largest_variance():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * (5, 2)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    shown, words = project(plane @ basis + 3.0, "pca")
    assert words == "PCA, 100 % of the variance"
    centred = plane - plane.mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(shown, axis=1), np.linalg.norm(centred, axis=1), rtol=1e-9)
    assert np.ptp(shown[:, 0]) > np.ptp(shown[:, 1])
    # A mirrored basis, as another library may give it, shows the same picture.
    np.testing.assert_allclose(project(-(-plane @ basis), "pca")[0], shown, rtol=1e-6, atol=1e-9)


def test_few_samples_can_be_projected(tmp_path):
    for number in (1, 2, 3):
        shown, words = project(np.eye(3)[:number], "pca")
        assert shown.shape == (number, 2)
        assert np.isfinite(shown).all()
        labels = np.arange(number)
        plot_projection({"run": (shown, words)}, labels, "abc", tmp_path / "features.png")
    with pytest.raises(KdantError, match="at least 4"):
        project(np.eye(3), "tsne")


@pytest.mark.slow
def test_tsne_keeps_neighbours_and_is_seeded():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 12)
    features = rng.normal(size=(24, 5)) + 20 * groups[:, None]
    shown, _ = project(features, "tsne", seed=1)
    distances = np.linalg.norm(shown[:, None] - shown[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    np.testing.assert_array_equal(project(features, "tsne", seed=1)[0], shown)


def test_tsne_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(KdantError, match=r"kdant-tf\[plots\]"):
        project(np.eye(5), "tsne")


def test_classes_are_drawn_where_their_points_are(tmp_path):
    points = np.array([[-1.0, 0.0], [-0.9, 0.1], [1.0, 0.0], [0.9, 0.1]])
    networks, labels = {"run": (points, "PCA")}, np.array([0, 0, 1, 1])
    pixels = pixels_of(plot_projection(networks, labels, ("a", "b"), tmp_path / "features.png"))
    panel = pixels[: int(0.8 * len(pixels))]  # The legend stands below.
    first, second = (np.flatnonzero(near(panel, color, 60).any(axis=0)) for color in OKABE_ITO[:2])
    assert first.max() < second.min()


def test_features_are_the_mean_of_the_map_for_each_sample(tiny_run, record_folder):
    view = RunView("run", load_run(tiny_run), Records.open(record_folder), "test")
    features, labels = pooled_features(view)
    assert features.shape == (8, 6)
    np.testing.assert_array_equal(np.bincount(labels), [2, 2, 2, 2])
    assert (features >= 0).all()  # after ReLU
    assert np.ptp(features, axis=0).max() > 0
