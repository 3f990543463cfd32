"""Colours, markers, names and files that all pictures share."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from pixels import pixels_of

from kdant_tf.visualization.correspondence import COLOURS
from kdant_tf.visualization.style import (
    OKABE_ITO,
    contrast,
    describe_prediction,
    fit_note,
    mark_of,
    save,
    shorten,
    text_on,
    unique_names,
    wrap,
)


def test_a_figure_is_saved_in_the_same_bytes_each_time(tmp_path):
    def draw() -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.text(0.5, 0.5, "kdant")
        return figure

    path = save(draw(), tmp_path / "figure.png")
    assert path == tmp_path / "figure.png"
    again = save(draw(), tmp_path / "again.png")
    assert path.read_bytes() == again.read_bytes()
    assert (pixels_of(path) < 255).any()


def test_texts_are_cut_and_broken_to_their_width():
    assert shorten("a" * 22) == "a" * 22
    assert shorten("a" * 23) == "a" * 21 + "…"
    assert wrap("one two", 4) == "one\ntwo"
    assert wrap("abcdef", 4) == "abcd\nef"
    assert wrap("", 4) == ""
    assert max(map(len, fit_note("word " * 40, 2).splitlines())) <= 33


def test_right_and_wrong_differ_without_colour():
    classes = ("clap", "golf")
    assert describe_prediction(classes, np.array([0.8, 0.2]), 0) == "✓ clap 0.80"
    assert describe_prediction(classes, np.array([0.8, 0.2]), 1) == "✗ clap 0.80"


def test_marks_differ_by_more_than_colour():
    marks = [mark_of(number) for number in range(40)]
    assert len(set(marks)) == 40
    assert len({marker for _, marker in marks[:8]}) == 8


def test_names_are_as_short_as_they_can_be():
    paths = [Path("a/run"), Path("b/run"), Path("c/other")]
    assert unique_names(paths[1:]) == {paths[1]: "run", paths[2]: "other"}
    assert list(unique_names(paths).values()) == ["a/run", "b/run", "c/other"]
    study = [Path("runs") / f"rgb-split1-seed0-{name}" for name in ("none", "direct", "not")]
    assert list(unique_names(study).values()) == ["none", "direct", "not"]
    assert list(unique_names(study[:1]).values()) == ["rgb-split1-seed0-none"]
    assert list(unique_names([Path("run-"), Path("run-b")]).values()) == ["run-", "run-b"]


# Linear RGB as a person without green, or without red, cones sees it.
# Source: Machado, Oliveira and Fernandes 2009, severity 1.
SIMULATIONS = {
    "deuteranopia": [
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.01182, 0.04294, 0.968881),
    ],
    "protanopia": [
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ],
}


def lab_of(colors: list[str], simulation: str) -> np.ndarray:
    """CIELAB (D65) of colours as they are seen: float `(N, 3)`."""
    values = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(SIMULATIONS[simulation]), 0, 1)
    to_xyz = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
    xyz = seen @ to_xyz.T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("simulation", SIMULATIONS)
@pytest.mark.parametrize(("colors", "least"), [(COLOURS, 15), (OKABE_ITO, 15)])
def test_colours_differ_for_colour_blind_people(simulation, colors, least):
    """2.3 is a difference that is just seen; targets also have numbers, networks and classes markers."""
    lab = lab_of(list(colors), simulation)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(len(lab))
    assert distances.min() > least


def test_numbers_can_be_read_on_their_discs_and_lines_on_white():
    for color in COLOURS:
        assert contrast(color, {"black": "#000000", "white": "#ffffff"}[text_on(color)]) > 4.5
        assert contrast(color, "#ffffff") > 2.9
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
