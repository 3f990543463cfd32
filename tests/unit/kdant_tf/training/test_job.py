"""What a training needs, prepared: the clips it reads, its networks' inputs, what a resumed run keeps."""

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from kdant_tf.config import TrainConfig
from kdant_tf.runs import load_run, weights_sha256
from kdant_tf.training.job import Job, check_same_run, prepare_job, remove_run, resumable_run
from tf_records.augment import Augmentation
from tf_records.errors import KdantError, RunError
from tf_records.records import Records
from tf_records.schema import PER_CLIP, ClipSpec, FeatureInfo

SETTINGS = {"crop": 32, "width": 0.0625, "batch_size": 8, "epochs": 2}


def prepare(record_folder: Path, out: Path, teacher: Path | None = None, **settings) -> Job:
    run = None if teacher is None else load_run(teacher)
    return prepare_job(Records.open(record_folder), out, TrainConfig(**{**SETTINGS, **settings}), run)


@pytest.mark.parametrize(
    ("view", "expected"), [("future", ("future",)), ("both", ("either",)), ("observed", ("observed",))]
)
def test_a_teacher_reads_the_clips_it_is_told_to(record_folder, tmp_path, view, expected):
    job = prepare(record_folder, tmp_path, teacher_view=view)
    assert job.views == expected
    assert (job.run.role, job.run.teacher, job.samples) == ("teacher", None, 16)


def test_a_student_reads_both_and_unlabelled_pairs_too(record_folder, tmp_path, finished_run):
    job = prepare(record_folder, tmp_path, finished_run)
    assert job.views == ("observed", "future")
    assert (job.run.role, job.run.teacher, job.samples) == ("student", str(finished_run), 20)


def test_networks_see_clips_or_the_maps_of_features(record_folder, tmp_path):
    job = prepare(record_folder, tmp_path)
    assert job.clip_shape == job.input_shape == (8, 32, 32, 3)
    features = FeatureInfo(shape=(2, None, None, 192), source="I3D", per=PER_CLIP)
    job = dataclasses.replace(job, run=dataclasses.replace(job.run, features=features))
    assert job.clip_shape == (8, 32, 32, 3)
    assert job.input_shape == (2, 2, 2, 192)


@pytest.mark.parametrize("settings", [{}, {"label_fraction": 0.5}, {"validation_fraction": 0.3}])
def test_classes_are_counted_among_the_labels_that_are_trained_on(record_folder, tmp_path, settings):
    job = prepare(record_folder, tmp_path, class_balance="inverse", batch_size=4, **settings)
    labels = job.records.labels_and_videos("train")[0] if job.labels is None else job.labels
    kept = labels[~job.held_out] if job.held_out is not None else labels
    expected = [int(np.sum(kept == label)) for label in range(len(job.run.classes))]
    assert list(job.class_counts) == expected
    assert sum(expected) == job.samples
    if not settings:
        assert prepare(record_folder, tmp_path).class_counts is None


def test_a_teacher_of_other_clips_is_refused(record_folder, tmp_path, finished_run):
    other = dataclasses.replace(load_run(finished_run), short_side=48)
    with pytest.raises(RunError, match=r"short side of 48 pixels.*64"):
        prepare_job(Records.open(record_folder), tmp_path, TrainConfig(**SETTINGS), other)


def test_a_validation_split_needs_labels(record_folder, tmp_path):
    with pytest.raises(KdantError, match=r"no records in split 'val'"):
        prepare(record_folder, tmp_path, validation_split="val")


def test_a_run_is_resumed_as_it_was_begun_but_for_its_epochs(record_folder, tmp_path):
    begun = prepare(record_folder, tmp_path).run
    check_same_run(begun, prepare(record_folder, tmp_path, epochs=3).run)
    cosine = prepare(record_folder, tmp_path, schedule="cosine").run
    with pytest.raises(RunError, match=r"other settings: epochs 2 → 3\."):
        check_same_run(cosine, prepare(record_folder, tmp_path, schedule="cosine", epochs=3).run)
    now = prepare(record_folder, tmp_path, learning_rate=0.5, seed=1).run
    with pytest.raises(RunError, match=r"other settings: .*learning_rate 0\.01 → 0\.5.*seed 0 → 1.*--out"):
        check_same_run(begun, now)
    with pytest.raises(RunError, match=r"records_sha256 .* → 'other'"):
        check_same_run(begun, dataclasses.replace(begun, records_sha256="other"))


@pytest.mark.slow
def test_a_teacher_is_known_by_its_weights_wherever_it_lies(record_folder, finished_run, tmp_path):
    begun = prepare(record_folder, tmp_path, finished_run).run
    assert begun.teacher_sha256 == weights_sha256(finished_run / "model.keras")
    moved = Path(shutil.copytree(finished_run, tmp_path / "moved"))
    now = prepare(record_folder, tmp_path, moved).run
    assert now.teacher == str(moved)
    check_same_run(begun, now)
    # Trained anew at the same path.
    network = keras.saving.load_model(moved / "model.keras")
    network.weights[0].assign_add(keras.ops.ones_like(network.weights[0]))
    network.save(moved / "model.keras")
    with pytest.raises(RunError, match=r"the weights of teacher .*moved, which are not those it"):
        check_same_run(now, prepare(record_folder, tmp_path, moved).run)


def test_a_teacher_of_an_earlier_versions_run_is_known_by_its_path(record_folder, finished_run, tmp_path):
    now = prepare(record_folder, tmp_path, finished_run).run
    begun = dataclasses.replace(now, teacher_sha256=None)
    check_same_run(begun, now)
    with pytest.raises(RunError, match=r"teacher 'elsewhere' → "):
        check_same_run(dataclasses.replace(begun, teacher="elsewhere"), now)


def test_a_run_begun_in_a_folder_is_found_there(record_folder, tmp_path):
    assert resumable_run(tmp_path) is None
    run = prepare(record_folder, tmp_path).run
    run.save()
    assert resumable_run(tmp_path) == run


def test_overwriting_removes_what_a_training_made_and_nothing_else(tmp_path):
    for folder in ("checkpoints", "best", "tensorboard", "teacher-cache", "notes"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    for name in (
        "metrics.csv",
        "curves.png",
        "evaluation.json",
        "predictions.npz",
        "model.keras",
        "mine.txt",
    ):
        (tmp_path / name).touch()
    remove_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "notes"]


def test_a_teacher_needs_a_label(record_folder, tmp_path):
    with pytest.raises(KdantError, match=r"learns from labels alone, and none of .* with --label-fraction 0"):
        prepare(record_folder, tmp_path, label_fraction=0.0)


def test_colours_are_changed_of_rgb_frames_alone(record_folder, tmp_path):
    job = prepare(record_folder, tmp_path, jitter_hue=0.1, jitter_contrast=0.5)
    assert job.augmentation == Augmentation(hue=0.1, contrast=0.5)
    assert prepare(record_folder, tmp_path).augmentation == Augmentation()
    with pytest.raises(KdantError, match=r"`jitter_…`.* frame-mlp learns from features, which are computed"):
        prepare(record_folder, tmp_path, model="frame-mlp", jitter_hue=0.1)


def test_colours_of_flow_are_not_changed(record_folder, tmp_path, edit_manifest):
    flow = Path(shutil.copytree(record_folder, tmp_path / "flow"))
    edit_manifest(flow, modality="flow")
    with pytest.raises(KdantError, match=r"`jitter_…`.* i3d learns from optical flow"):
        prepare(flow, tmp_path, jitter_brightness=0.1)


def test_a_share_is_drawn_of_whole_videos_for_what_anticipates(
    record_folder, tmp_path, finished_run, edit_manifest
):
    drawn = {"observed_share": "random"}
    with pytest.raises(KdantError, match=r"`observed_share` is for networks that anticipate.*'future'"):
        prepare(record_folder, tmp_path, **drawn)
    with pytest.raises(
        KdantError, match=r"`observed_share` needs records of frames whose training pairs reach"
    ):
        prepare(record_folder, tmp_path, finished_run, **drawn)
    whole = Path(shutil.copytree(record_folder, tmp_path / "whole"))
    edit_manifest(whole, options={"observed_fraction": 0.2})
    assert prepare(whole, tmp_path, finished_run, **drawn).augmentation == Augmentation(observed_share=True)
    assert prepare(whole, tmp_path, teacher_view="observed", **drawn).augmentation.observed_share
    edit_manifest(whole, clip=ClipSpec(clip_frames=8, anticipation_s=1.0))
    with pytest.raises(
        KdantError, match=r"`observed_share` needs records of frames whose training pairs reach"
    ):
        prepare(whole, tmp_path, teacher_view="observed", **drawn)
