"""Training curves: they are written whole, and show what they are given."""

import numpy as np
import pytest
from PIL import Image

from kdant_tf.visualization import curves
from kdant_tf.visualization.curves import activation_magnitude, heat_map_pixels, plot_curves


def metrics(epochs: int, feature_loss: float = 0.0) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "learning_rate": 0.1,
            "loss": 2 / epoch,
            "classification_loss": 1 / epoch,
            "feature_loss": feature_loss,
            "accuracy": 0.5,
        }
        for epoch in range(1, epochs + 1)
    ]


def pixels_of(path) -> np.ndarray:
    """The PNG's pixels; nothing else may lie beside it."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "runs",
    [
        {"teacher": metrics(3)},
        {"teacher": metrics(3), "student": metrics(5, feature_loss=0.2)},
        {"student": metrics(1, feature_loss=0.2)},
    ],
)
def test_curves_are_a_picture_with_lines(runs, tmp_path):
    plot_curves(runs, tmp_path / "curves.png")
    pixels = pixels_of(tmp_path / "curves.png")
    assert min(pixels.shape[:2]) > 100
    # Each run has a colour of its own, at full strength somewhere.
    for color in [(0, 114, 178), (213, 94, 0)][: len(runs)]:
        assert (np.abs(pixels - color).sum(axis=-1) < 12).any()


def test_a_picture_is_replaced(tmp_path):
    path = tmp_path / "curves.png"
    path.write_text("an old one")
    plot_curves({"run": metrics(2)}, path)
    assert pixels_of(path).size > 0


def test_activation_magnitude_is_the_length_averaged_over_time():
    feature_map = np.zeros((2, 2, 3, 2))
    feature_map[0, 0, 1] = (3, 4)
    feature_map[1, 0, 1] = (0, 1)
    magnitude = activation_magnitude(feature_map)
    assert magnitude.shape == (2, 3)
    np.testing.assert_allclose(magnitude, [[0, 3, 0], [0, 0, 0]])


def test_heat_maps_are_redder_where_the_network_is_more_active():
    frame = np.full((8, 8, 3), 0.5)
    magnitude = np.zeros((2, 2))
    magnitude[:, 1] = 1.0
    panels = {"clip": (frame, None), "teacher": (frame, magnitude)}
    pixels = heat_map_pixels([{"title": "clap", "panels": panels}]).astype(int)
    redness = (pixels[..., 0] - pixels[..., 2]).mean(axis=0)
    half = len(redness) // 2
    assert redness[:half].max() < 1
    right = np.flatnonzero(redness > 1)
    assert right.size > 0
    middle = (right.min() + right.max()) // 2
    assert redness[middle:].mean() > redness[half:middle].mean()


def test_a_constant_map_draws_without_warning():
    panels = {"teacher": (np.zeros((4, 4, 3)), np.ones((2, 2)))}
    rows = [{"title": name, "panels": panels} for name in ("clap", "golf")]
    pixels = heat_map_pixels(rows)
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_validation_is_dashed_and_learning_rates_are_marked(tmp_path, monkeypatch):
    rows = metrics(6, feature_loss=0.2)
    for row in rows:
        row["learning_rate"] = 0.1 if row["epoch"] < 4 else 0.01
        row |= {"validation_loss": 1.0, "validation_accuracy": 0.3 + 0.1 * (row["epoch"] == 2)}
    figures = []
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure))
    plot_curves({"run": rows}, tmp_path / "curves.png")
    loss, accuracy, features = figures[0].axes
    for axis, column in ((loss, "validation_loss"), (accuracy, "validation_accuracy")):
        (dashed,) = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert list(dashed.get_ydata()) == [row[column] for row in rows]
        (ring,) = [line for line in axis.lines if line.get_markerfacecolor() == "none"]
        assert list(ring.get_xdata()) == [2]
    for axis in (loss, accuracy, features):
        (rate,) = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert list(rate.get_xdata()) == [3.5, 3.5]
        assert [text.get_text().strip() for text in axis.texts] == ["learning rate 0.01"]
