"""Confusion, accuracy of each class, reliability and results show what they are given."""

import numpy as np
import pytest
from pixels import near, pixels_of, predictions

from kdant_tf.visualization import confusion
from kdant_tf.visualization.confusion import (
    Bar,
    plot_confusion,
    plot_per_class,
    plot_reliability,
    plot_results,
)
from kdant_tf.visualization.style import OKABE_ITO


@pytest.mark.parametrize("classes", [3, 31])
def test_a_confusion_matrix_is_darkest_where_the_share_is_largest(tmp_path, classes):
    labels = [number for number in range(classes) for _ in range(4)]
    right = predictions(labels, labels, classes)
    names = [f"a class with a long name {number}" for number in range(classes)]
    pixels = pixels_of(plot_confusion("run", right, names, tmp_path / "confusion.png"))
    dark = near(pixels, "#08306b")
    assert dark.sum() > 200
    off = predictions(labels, [0] * len(labels), classes)
    pixels = pixels_of(plot_confusion("run", off, names, tmp_path / "confusion.png"))
    columns = np.flatnonzero(near(pixels, "#08306b").sum(axis=0) > 30)
    assert columns.size  # one column is dark, and the bar


def test_a_bar_is_as_long_as_the_mean_and_what_was_not_trained_has_none(tmp_path):
    bars = [
        Bar(title="twice", values=[0.7, 0.9], published=None),
        Bar(title="once", values=[0.4], published=0.6),
        Bar(title="published only", values=[], published=0.5),
    ]
    pixels = pixels_of(plot_results({"RGB": bars}, tmp_path / "results.png"))
    shades = np.array([int("56B4E9"[i : i + 2], 16) for i in (0, 2, 4)]) * 0.55 + 255 * 0.45
    bar = np.abs(pixels - shades).max(axis=-1) <= 3
    lengths = bar.sum(axis=1)[: int(0.8 * len(bar))]  # The legend stands below.
    long, short = np.unique(lengths[lengths > 50])[[-1, 0]]
    assert long / short == pytest.approx(2, rel=0.05)
    assert near(pixels, OKABE_ITO[0]).sum() > 3 * 15
    diamonds = near(pixels, OKABE_ITO[1]).any(axis=1).astype(int)
    assert (np.diff(diamonds) == 1).sum() == 3  # two methods, and the legend


@pytest.mark.slow
def test_pictures_of_predictions_are_the_same_bytes_each_time(tmp_path):
    networks = {
        "teacher": predictions([0, 1, 2, 3] * 5, [0, 1, 2, 0] * 5),
        "student": predictions([0, 1, 2, 3] * 5, [0, 2, 1, 3] * 5),
    }
    classes = ("fall", "grow", "rise", "shrink")
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        plot_per_class(networks, classes, folder / "per_class.png")
        plot_reliability(networks, folder / "reliability.png")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["per_class.png", "reliability.png"]
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert b"Software" not in content
        assert b"tEXt" not in content
    for number in (0, 1):
        assert near(pixels_of(tmp_path / "a" / "per_class.png"), OKABE_ITO[number]).sum() > 50


def test_bars_of_classes_are_as_long_as_their_accuracy(tmp_path, monkeypatch):
    """Half of the first class is correct, all of the second, and the third has no samples."""
    figures = []
    monkeypatch.setattr(confusion, "save", lambda figure, path: figures.append(figure))
    network = predictions([0, 0, 1, 1], [0, 1, 1, 1], classes=3)
    plot_per_class({"run": network}, ("a", "b", "c"), tmp_path / "per_class.png")
    (axis,) = figures[0].axes
    assert [bar.get_width() for bar in axis.patches] == [0.5, 1.0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a (2)", "b (2)"]
