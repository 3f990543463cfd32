"""The rendered videos of the demo."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from video_frames import stored_frames

from tf_records.errors import AnnotationError
from tf_records.sources.synthetic import (
    ACTION_START_S,
    CLASSES,
    FPS,
    FRAMES,
    HEIGHT,
    WIDTH,
    SyntheticSpec,
    read_synthetic,
    render_frames,
)


def test_the_videos_have_the_splits_and_labels_asked_for(videos: Path) -> None:
    annotations = read_synthetic(videos)
    counts = Counter((sample.split, sample.label is not None) for sample in annotations.samples)
    assert counts == {("train", True): 16, ("train", False): 4, ("test", True): 8}
    assert annotations.dataset == "synthetic"
    assert annotations.classes == CLASSES
    assert annotations.skipped == ()


def test_every_class_has_as_many_test_videos(videos: Path) -> None:
    labels = Counter(sample.label for sample in read_synthetic(videos).samples if sample.split == "test")
    assert set(labels.values()) == {2}


def test_a_second_reading_renders_nothing_anew(videos: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}
    read_synthetic(videos, SyntheticSpec(train=1, unlabeled=0, test=0))
    assert {path.name: path.stat().st_mtime_ns for path in videos.iterdir()} == before


def test_the_same_spec_gives_the_same_frames_and_another_seed_others(tmp_path: Path) -> None:
    def render(name: str, seed: int) -> np.ndarray:
        read_synthetic(tmp_path / name, SyntheticSpec(train=1, unlabeled=0, test=0, seed=seed))
        return np.stack(list(stored_frames(tmp_path / name / "00000.mp4")))

    first = render("a", 3)
    assert first.shape == (FRAMES, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(first, render("b", 3))
    assert np.any(first != render("c", 4))


def test_classes_differ_in_motion_alone() -> None:
    """The first frame, before anything has moved far, is drawn from the same numbers."""
    first = {label: render_frames(label, np.random.default_rng(5)).astype(int) for label in CLASSES}
    assert np.abs(first["rise"][0] - first["fall"][0]).mean() < 2
    assert np.abs(first["rise"][-1] - first["fall"][-1]).mean() > 5


def test_classes_keep_only_those_named(videos: Path) -> None:
    annotations = read_synthetic(videos, classes=("rise",))
    assert Counter(sample.label for sample in annotations.samples) == {"rise": 6, None: 4}


def test_a_folder_with_other_things_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(AnnotationError, match="holds other things than rendered videos"):
        read_synthetic(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AnnotationError, match="is a file"):
        read_synthetic(tmp_path / "file")


def test_a_rendering_cut_off_before_its_annotations_starts_again(tmp_path: Path) -> None:
    spec = SyntheticSpec(train=2, unlabeled=0, test=0)
    whole = [sample.video for sample in read_synthetic(tmp_path, spec).samples]
    (tmp_path / "annotations.csv").unlink()
    (tmp_path / "00001.mp4").unlink()
    assert [sample.video for sample in read_synthetic(tmp_path, spec).samples] == whole


def ring_places(frames: np.ndarray) -> list[float]:
    """Mean x of the yellow pixels of each frame, as a share of the width."""
    yellow = (frames[..., 0] > 230) & (frames[..., 2] < 90)
    return [float(np.mean(np.nonzero(frame)[1])) / frames.shape[2] for frame in yellow]


@pytest.mark.parametrize("drift", [0.0, 0.3, 0.6])
def test_the_ring_stands_as_far_away_as_asked_once_the_action_begins(drift: float) -> None:
    for seed, label in enumerate(CLASSES):
        frames = render_frames(label, np.random.default_rng(seed), drift)
        assert frames.shape == (FRAMES, HEIGHT, HEIGHT, 3)
        places = ring_places(frames)
        start = round(ACTION_START_S * FPS)
        before, after = np.array(places[:start]), np.array(places[start:])
        assert np.ptp(before) < 0.06
        assert abs(after[0] - before[-1]) == pytest.approx(drift, abs=0.04)


def test_videos_of_another_drift_are_refused(tmp_path: Path) -> None:
    few = {"train": 1, "unlabeled": 0, "test": 0}
    read_synthetic(tmp_path, SyntheticSpec(**few, drift=0.3))
    assert len(read_synthetic(tmp_path, SyntheticSpec(**few, drift=0.3)).samples) == 1
    for other in (None, 0.2):
        with pytest.raises(AnnotationError, match=r"rendered with drift 0\.3"):
            read_synthetic(tmp_path, SyntheticSpec(**few, drift=other))


def test_a_weaker_hint_moves_less_before_the_action(tmp_path: Path) -> None:
    def moved(hint: float) -> float:
        """How much higher the ring stands just before the action than at first."""
        frames = render_frames("rise", np.random.default_rng(3), 0.0, hint)
        yellow = (frames[..., 0] > 230) & (frames[..., 2] < 90)
        first, last = (float(np.mean(np.nonzero(yellow[number])[0])) for number in (0, 23))
        return first - last

    # 23 frames of 1.5 pixels, in full or a part of it, but for a jitter of 0.3.
    assert [moved(hint) for hint in (0.0, 0.2, 0.4)] == pytest.approx([0, 6.9, 13.8], abs=1.5)
    read_synthetic(tmp_path, SyntheticSpec(train=1, unlabeled=0, test=0, hint=0.2))
    with pytest.raises(AnnotationError, match=r"rendered with hint 0\.2, not 0\.25"):
        read_synthetic(tmp_path, SyntheticSpec(train=1, unlabeled=0, test=0))
    with pytest.raises(AnnotationError, match="`hint` should be from 0 to 1"):
        SyntheticSpec(hint=1.1)


@pytest.mark.parametrize("drift", [-0.1, 0.61])
def test_a_drift_out_of_the_frame_is_refused(drift: float) -> None:
    with pytest.raises(AnnotationError, match=r"should be from 0 to 0\.6"):
        SyntheticSpec(drift=drift)
