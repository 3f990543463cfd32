"""Predictions are kept exactly, and fused by their logits."""

import concurrent.futures
import dataclasses

import numpy as np
import pytest

from kdant_tf.evaluation.evaluate import summarize
from kdant_tf.evaluation.predictions import Predictions, fuse, load_predictions, save_predictions
from tf_records.errors import RunError


def predictions_of(logits: np.ndarray, labels: list[int]) -> Predictions:
    exponentials = np.exp(logits)
    names = np.array([f"clip-{number}" for number in range(len(labels))])
    return Predictions(
        probabilities=exponentials / exponentials.sum(axis=1, keepdims=True),
        labels=np.array(labels),
        ids=names,
        videos=np.array(["golf/Ä (1).avi", "b"])[np.arange(len(labels)) % 2],
    )


@pytest.fixture
def rgb() -> Predictions:
    return predictions_of(np.random.default_rng(0).standard_normal((3, 4)), [0, 1, 3])


@pytest.fixture
def flow() -> Predictions:
    return predictions_of(np.random.default_rng(1).standard_normal((3, 4)), [0, 1, 3])


def test_fusion_adds_logits():
    a, b = (np.random.default_rng(seed).standard_normal((5, 3)) for seed in (0, 1))
    labels = [0, 1, 2, 0, 1]
    fused = fuse([predictions_of(a, labels), predictions_of(b, labels)], (1.0, 1.0))
    expected = np.exp(a + b) / np.exp(a + b).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fused.probabilities, expected, rtol=1e-12)
    weighted = fuse([predictions_of(a, labels), predictions_of(b, labels)], (1.0, 0.5))
    expected = np.exp(a + b / 2) / np.exp(a + b / 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weighted.probabilities, expected, rtol=1e-12)


def test_a_stream_of_weight_zero_is_left_out(rgb, flow):
    fused = fuse([rgb, flow], (1.0, 0.0))
    np.testing.assert_allclose(fused.probabilities, rgb.probabilities, rtol=1e-12)


def test_a_probability_of_zero_can_be_fused(rgb):
    sure = dataclasses.replace(rgb, probabilities=np.eye(4)[:3])
    fused = fuse([sure, rgb], (1.0, 1.0))
    assert np.isfinite(fused.probabilities).all()
    np.testing.assert_allclose(fused.probabilities.sum(axis=1), 1)


def test_streams_of_other_samples_are_refused(rgb, flow):
    for change, words in (
        ({"ids": np.array(["clip-0", "clip-9", "clip-2"])}, "sample 1 is 'clip-1' for one and 'clip-9'"),
        ({"labels": np.array([0, 1, 2])}, "sample 2"),
        ({"probabilities": np.full((3, 5), 0.2)}, "number of classes differs, 4 and 5"),
        ({"ids": np.array(["clip-0"]), "labels": np.array([0])}, "number of samples differs, 3 and 1"),
    ):
        with pytest.raises(RunError, match=words):
            fuse([rgb, dataclasses.replace(flow, **change)], (1.0, 1.0))


def test_what_was_saved_is_loaded_exactly(rgb, flow, tmp_path):
    path = tmp_path / "predictions.npz"
    save_predictions(path, "observed/test", rgb)
    save_predictions(path, "future/test", flow)
    save_predictions(path, "observed/test", rgb)
    for name, expected in (("observed/test", rgb), ("future/test", flow)):
        loaded = load_predictions(path, name)
        for field in dataclasses.fields(Predictions):
            np.testing.assert_array_equal(getattr(loaded, field.name), getattr(expected, field.name))
    assert load_predictions(path, "observed/val") is None
    assert load_predictions(tmp_path / "absent.npz", "observed/test") is None
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.npz"]


def test_a_damaged_file_is_named(rgb, tmp_path):
    path = tmp_path / "predictions.npz"
    save_predictions(path, "observed/test", rgb)
    path.write_bytes(path.read_bytes()[:200])
    for use in (lambda: load_predictions(path, "x"), lambda: save_predictions(path, "x", rgb)):
        with pytest.raises(RunError, match="Delete it and evaluate again"):
            use()


def test_a_file_with_pickles_is_not_opened(rgb, tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, **{"x/ids": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(RunError, match="cannot be read"):
        load_predictions(path, "x")


def test_probabilities_that_are_not_finite_are_counted_and_named(rgb, tmp_path):
    rgb.check_finite("R")
    probabilities = np.repeat(rgb.probabilities[:1], 6, axis=0)
    probabilities[[1, 2, 4, 5], [0, 1, 2, 3]] = (np.nan, np.inf, np.nan, -np.inf)
    names = np.array([f"clip-{number}" for number in range(6)])
    wrong = Predictions(probabilities=probabilities, labels=np.zeros(6, int), ids=names, videos=names)
    sentence = r"^R gives outputs that are not finite for 4 of 6 samples: clip-1, clip-2, clip-4 …\. "
    with pytest.raises(RunError, match=sentence + r"Its training diverged"):
        wrong.check_finite("R")
    save_predictions(tmp_path / "predictions.npz", "x", wrong)
    with pytest.raises(RunError, match=r"The network of .* gives outputs that are not finite for 4 of 6"):
        load_predictions(tmp_path / "predictions.npz", "x")


def test_predictions_saved_at_once_are_all_kept(rgb, tmp_path):
    path, names = tmp_path / "predictions.npz", [f"share {number}/test" for number in range(24)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: save_predictions(path, name, rgb), names))
    assert all(load_predictions(path, name) is not None for name in names)


def test_intervals_take_the_clips_of_one_video_together():
    """JHMDB's clips come of fewer videos, by their names; other files stand for themselves."""
    labels, correct = np.zeros(12, np.int64), np.repeat([True, False, True, False], 3)
    probabilities = np.where(correct[:, None], [0.9, 0.1], [0.1, 0.9])
    names = {
        "clips": [f"{video}_walk_f_cm_np1_ba_med_{clip}.avi" for video in "abcd" for clip in range(3)],
        "videos": [f"{video}.avi" for video in "abcd" for clip in range(3)],
        "files": [f"{video}_{clip}.avi" for video in "abcd" for clip in range(3)],
    }
    found = {}
    for name, videos in names.items():
        given = Predictions(probabilities=probabilities, labels=labels, ids=labels, videos=np.array(videos))
        result = summarize(given, ("a", "b"), view="observed", split="test", train_counts={})
        found[name] = (result.videos, result.top1_interval.low, result.top1_interval.high)
    assert found["clips"] == found["videos"] == (4, 0, 1)
    assert found["files"][0] == 12
    assert 0 < found["files"][1] < found["files"][2] < 1
