"""All pictures of some runs from Python: folders or opened ones, what was drawn and what could not be."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pixels import pixels_of

from kdant_tf.runs import load_run
from kdant_tf.visualization.run_view import PictureError
from kdant_tf.visualization.visualize import DrawnPicture, PictureOptions, draw_evaluation, visualize
from tf_records.errors import RunError
from tf_records.records import Records


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.mark.slow
def test_a_run_given_by_its_folder_is_drawn_like_an_opened_one(run, record_folder, tmp_path):
    options = PictureOptions(pictures=("heat-maps", "drift"), samples=1)
    by_text, _ = visualize([str(run)], str(record_folder), str(tmp_path / "a"), options)
    opened, _ = visualize([load_run(run)], Records.open(record_folder), tmp_path / "b", options)
    assert [each.kind for each in by_text] == [each.kind for each in opened] == ["heat-maps", "drift"]
    for one, other in zip(by_text, opened, strict=True):
        np.testing.assert_array_equal(pixels_of(one.path), pixels_of(other.path))


@pytest.mark.slow
def test_what_cannot_be_drawn_is_omitted_unless_it_was_asked_for(run, record_folder, tmp_path):
    drawn, omitted = visualize([run], record_folder, tmp_path / "out", PictureOptions(samples=1))
    assert {each.kind for each in omitted} == {"earliness", "curves"}
    assert DrawnPicture(kind="confusion", path=tmp_path / "out" / "confusion_run.png", of="run") in drawn
    with pytest.raises(PictureError, match=r"No run has a metrics.csv"):
        visualize([run], record_folder, tmp_path / "other", PictureOptions(pictures=("curves",)))
    with pytest.raises(RunError, match="given once"):
        visualize([run, run], record_folder, tmp_path / "third")


@pytest.mark.slow
def test_pictures_of_an_evaluation_replace_earlier_ones(run, record_folder):
    for _ in range(2):
        drawn = draw_evaluation(load_run(run), Records.open(record_folder), "test")
    assert {each.path.name for each in drawn} == {"confusion_run.png", "per_class.png", "reliability.png"}
    assert {each.path.parent for each in drawn} == {run / "pictures"}
