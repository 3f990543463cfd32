"""The pictures of a page that need no records: which are drawn, and the text in place of each."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from run_folders import evaluated

from kdant_tf.report.group import Group
from kdant_tf.report.page import Picture, Table
from kdant_tf.report.plots import (
    class_picture,
    confusion_pictures,
    curve_blocks,
    reliability_picture,
    study_pictures,
    training_picture,
)


def pixels_in(picture: Picture) -> np.ndarray:
    """Of the picture that stands in the page itself."""
    kind, data = picture.source.split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (picture.width, picture.height)
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def group(tmp_path) -> Group:
    networks = [evaluated(tmp_path / f"run{number}", [0, 1, 2, 0]) for number in range(3)]
    return Group(networks=networks, records=None)


def test_training_is_drawn_with_where_each_run_ended(group):
    picture = training_picture(group.runs)
    assert np.ptp(pixels_in(picture)) == 255
    assert "run1: accuracy 0.75, classification loss 1 after epoch 2" in picture.alt
    other = dataclasses.replace(group.runs["run1"], network_sha256="0" * 64)
    assert "run1" not in training_picture({**group.runs, "run1": other}).alt
    for each in group.networks:
        (each.run.folder / "metrics.csv").unlink()
    assert training_picture(group.runs) is None


@pytest.mark.slow
def test_up_to_three_networks_have_a_confusion_matrix_of_their_own(group, tmp_path):
    pictures = confusion_pictures(group)
    assert len(pictures) == 3
    assert pictures[0].alt == (
        "Confusion matrix of run0, observed clip. 3 of 4 samples lie on the diagonal. "
        "Most often, 1 times, shrink is taken for fall."
    )
    more = [*group.networks, evaluated(tmp_path / "last", [0, 1, 2, 3])]
    (picture,) = confusion_pictures(Group(networks=more, records=None))
    assert picture.alt.endswith("last, observed clip. 4 of 4 samples lie on the diagonal.")


@pytest.mark.slow
def test_classes_and_reliability_are_drawn(group):
    for picture in (class_picture(group), reliability_picture(group)):
        assert np.ptp(pixels_in(picture)) == 255
    # Confidence 0.7, accuracy 0.75.
    assert "run0, observed clip: 5.0 %" in reliability_picture(group).alt


def test_curves_are_drawn_and_listed_where_they_were_asked_for(group):
    assert curve_blocks(group.networks) == []
    run = group.networks[1].run
    results = json.loads((run.folder / "evaluation.json").read_text())
    points = [{"tau": tau_s, "value": 0.5, "low": 0.25, "high": 0.75} for tau_s in (0.5, 1.0)]
    results["tau"] = results["tau, val, records 1a2b3c4d"] = {"split": "test", "top1": points}
    (run.folder / "evaluation.json").write_text(json.dumps(results))
    picture, table = curve_blocks(group.networks)
    assert isinstance(table, Table)
    assert "run1: 50.0 % at 0.5, 50.0 % at 1; run1, val" in picture.alt
    # Curves of other splits and records are not taken for one another.
    names = ("run1", "run1, val, records 1a2b3c4d")
    assert table.columns == ("seconds from the clip's end to the action", *names)


def test_a_drift_study_shows_its_own_picture(tmp_path):
    assert study_pictures(tmp_path) == []
    colours = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "drift.png")
    (picture,) = study_pictures(tmp_path)
    np.testing.assert_array_equal(pixels_in(picture), colours)
