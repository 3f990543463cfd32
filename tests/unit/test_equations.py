"""Equations of the documentation are drawn into its pages."""

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def equations():
    spec = importlib.util.spec_from_file_location("equations", ROOT / "docs" / "equations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def height_and_depth(svg: str) -> tuple[float, float]:
    """How far an equation reaches above and below the line of its letters, in sizes of a letter."""
    element = ElementTree.fromstring(svg)
    _, top, _, height = (float(value) / 200 for value in element.get("viewBox").split())
    return -top, top + height


def test_an_equation_stands_on_the_line_of_its_text(equations):
    height, depth = height_and_depth(equations.draw("x"))
    assert 0.4 < height < 0.6
    assert 0 < depth < 0.1
    assert height_and_depth(equations.draw("x^2"))[0] > height
    assert height_and_depth(equations.draw("x_2"))[1] > depth


def test_outlines_are_paths_that_svg_knows(equations):
    outline = ElementTree.fromstring(equations.draw(r"\sum_{k} \omega_k")).find("path").get("d")
    assert re.fullmatch(r"([MLQC](-?\d+ ?)+|Z ?)+", outline)
    assert outline.count("M") == outline.count("Z") >= 4


def test_the_text_of_an_equation_is_kept_for_who_cannot_see_it(equations):
    svg = ElementTree.fromstring(equations.draw(r"a < b"))
    assert (svg.get("role"), svg.get("aria-label")) == ("img", "a < b")


def test_what_mathtext_does_not_know_is_refused(equations):
    with pytest.raises(ValueError, match="Unknown symbol"):
        equations.draw(r"\unheardof")
