"""Runs and samples as pictures need them: which samples, their clips and times, maps and predictions."""

import dataclasses
import shutil

import numpy as np
import pytest
from pixels import predictions

from kdant_tf.evaluation.predictions import load_predictions, save_predictions
from kdant_tf.runs import load_run
from kdant_tf.visualization.run_view import (
    PictureError,
    RunView,
    choose_samples,
    read_clip_pairs,
    split_roles,
    teacher_of,
)
from tf_records.errors import RecordError, RunError
from tf_records.records import Records
from tf_records.schema import ClipSpec


@pytest.fixture
def view(tiny_run, record_folder, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    return RunView("run", load_run(folder), Records.open(record_folder), "test")


def test_samples_are_the_first_of_each_class_or_drawn_or_named():
    shown = predictions([2, 0, 0, 1, 2, 1, 0], [0] * 7)
    assert choose_samples(shown) == [1, 3, 0]
    drawn = choose_samples(shown, count=3, seed=5)
    assert sorted(shown.labels[drawn]) == [0, 1, 2]
    assert drawn == choose_samples(shown, count=3, seed=5)
    assert len({tuple(choose_samples(shown, count=3, seed=seed)) for seed in range(20)}) > 3
    assert sorted(choose_samples(shown, count=50)) == list(range(7))
    assert choose_samples(shown, ids=("s4", "s1")) == [4, 1]
    with pytest.raises(RecordError, match=r"no sample with the id 's55'.*Did you mean 's5'"):
        choose_samples(shown, ids=("s1", "s55"))


def test_clips_of_a_pair_are_the_offset_apart_in_the_order_asked_for(record_folder):
    records = Records.open(record_folder)
    pairs = read_clip_pairs(records, "test", [5, 0])
    assert [pair.number for pair in pairs] == [5, 0]
    for pair in pairs:
        apart_s = pair.times_s["future"] - pair.times_s["observed"]
        np.testing.assert_allclose(apart_s, records.manifest.clip.offset_frames / records.manifest.fps)
        assert pair.clip("observed", "rgb", 32).shape == (1, 8, 32, 32, 3)
        frames = pair.frames("future")
        assert frames.shape == (8, 56, 56, 3)  # 7/8 of the short side
        assert 0 <= frames.min() < frames.max() <= 1


def test_a_run_is_evaluated_where_it_was_not_and_kept_predictions_are_used(view, monkeypatch):
    path = view.run.folder / "predictions.npz"
    assert not path.exists()
    own = view.predictions("observed")
    np.testing.assert_array_equal(load_predictions(path, "observed/test").ids, own.ids)
    monkeypatch.setattr("kdant_tf.visualization.run_view.evaluate_run", None)
    again = RunView("run", view.run, view.records, "test").predictions("observed")
    np.testing.assert_array_equal(again.probabilities, own.probabilities)
    (pair,) = read_clip_pairs(view.records, "test", [3])
    np.testing.assert_array_equal(view.probabilities(pair, "observed"), own.probabilities[3])
    with pytest.raises(RunError, match="is of other records"):
        view.probabilities(dataclasses.replace(pair, id="another"), "observed")


@pytest.mark.slow
@pytest.mark.parametrize("field", ["weights_sha256", "records_sha256"])
def test_predictions_of_another_network_or_other_records_are_made_anew(view, field):
    path = view.run.folder / "predictions.npz"
    own = view.predictions("observed")
    other = dataclasses.replace(own, probabilities=np.full_like(own.probabilities, 0.25), **{field: "0" * 64})
    save_predictions(path, "observed/test", other)
    again = RunView("run", view.run, view.records, "test").predictions("observed")
    np.testing.assert_array_equal(again.probabilities, own.probabilities)
    np.testing.assert_array_equal(load_predictions(path, "observed/test").probabilities, own.probabilities)


@pytest.mark.slow
def test_predictions_that_cannot_be_kept_are_drawn_all_the_same(view, full_disk):
    with full_disk():
        own = view.predictions("observed")
    assert not (view.run.folder / "predictions.npz").exists()
    again = RunView("run", view.run, view.records, "test").predictions("observed")
    np.testing.assert_array_equal(again.probabilities, own.probabilities)


def test_records_of_another_offset_have_to_be_insisted_on_and_the_title_says_so(
    view, edit_manifest, tmp_path
):
    student = dataclasses.replace(view.run, role="student", teacher="teacher")
    other = shutil.copytree(view.records.folder, tmp_path / "other")
    edit_manifest(other, clip=ClipSpec(clip_frames=8, offset_frames=20))
    records = Records.open(other)
    with pytest.raises(RunError, match=r"their clips have offset 20, the run's offset 16.*add --insist"):
        RunView("student", student, records, "test")
    insisted = RunView("student", student, records, "test", insist=True)
    assert insisted.title == "student, not as trained"
    assert len(insisted.predictions("observed").labels) == 8
    assert RunView("student", student, view.records, "test", insist=True).title == "student"


def test_maps_are_of_the_network_and_projected_ones_have_the_teachers_channels(view):
    (pair,) = read_clip_pairs(view.records, "test", [0])
    feature_map = view.map_of(pair, "observed")
    assert feature_map.shape == (4, 8, 8, 6)
    np.testing.assert_array_equal(view.projected_map(pair, "observed", 6), feature_map)
    with pytest.raises(PictureError, match=r"has 6 channels, the teacher's 9.*Distil with --projection"):
        view.projected_map(pair, "observed", 9)


def with_role(view, folder, role, teacher=None):
    run = dataclasses.replace(view.run, folder=folder, role=role, teacher=teacher)
    return RunView(folder.name, run, view.records, view.split)


def test_a_student_finds_the_teacher_that_it_names(view, tmp_path):
    first, second = (with_role(view, tmp_path / name, "teacher") for name in ("first", "second"))
    student = with_role(view, tmp_path / "student", "student", str(tmp_path / "second"))
    assert split_roles([student, first, second]) == ([first, second], [student])
    assert teacher_of(student, [first, second]) is second
    assert teacher_of(student, [first]) is first
    with pytest.raises(PictureError, match="No teacher was given"):
        teacher_of(student, [])
    other = with_role(view, tmp_path / "other", "student", str(tmp_path / "third"))
    with pytest.raises(PictureError, match="None of the given teachers is that of other"):
        teacher_of(other, [first, second])
