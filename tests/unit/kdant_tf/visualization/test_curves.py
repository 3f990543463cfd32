"""Curves are written whole, and show what they are given."""

import numpy as np
import pytest
from PIL import Image

from kdant_tf.evaluation.metrics import CurvePoint, Interval
from kdant_tf.visualization import curves
from kdant_tf.visualization.curves import plot_accuracy_against, plot_curves


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
    for row in rows:  # as a cosine schedule
        row["learning_rate"] = 0.1 / row["epoch"]
    plot_curves({"run": rows}, tmp_path / "curves.png")
    assert not any(line.get_linestyle() == ":" for axis in figures[1].axes for line in axis.lines)


def test_accuracy_is_drawn_in_the_order_of_x_with_its_interval(tmp_path, monkeypatch):
    points = [CurvePoint(x=x, top1=Interval(value=x / 2, low=x / 4, high=x)) for x in (1.0, 0.5)]
    figures = []
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure))
    plot_accuracy_against({"R": points, "A": points[:1]}, tmp_path / "x.png", xlabel="share", chance=0.25)
    (axis,) = figures[0].axes
    first, second, chance = axis.lines
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([0.5, 1.0], [0.25, 0.5])
    assert (first.get_marker(), first.get_linestyle()) != (second.get_marker(), second.get_linestyle())
    assert list(chance.get_ydata()) == [0.25, 0.25]
    band = axis.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.125, 1.0)


def test_a_run_without_labels_has_no_line_of_accuracy(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure))
    unlabelled = [{**row, "accuracy": float("nan")} for row in metrics(3, feature_loss=0.2)]
    plot_curves({"student": unlabelled}, tmp_path / "curves.png")
    loss, accuracy, _ = figures[0].axes
    assert len(loss.lines) == 1
    assert not accuracy.lines
    assert [text.get_text() for text in accuracy.texts] == ["none in this run"]
