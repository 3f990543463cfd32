"""Which videos are kept out of training, and what that leaves."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.config import TrainConfig
from kdant_tf.training.job import choose_labels, hold_out
from tf_records.errors import RecordError
from tf_records.reader import training_batches
from tf_records.records import Records

samples = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 9)), min_size=1, max_size=60)


@given(samples, st.floats(0.01, 0.99), st.integers(0, 5), st.randoms(use_true_random=False))
def test_whole_videos_are_held_out_whatever_the_order(pairs, fraction, seed, random):
    labels, videos = (np.array(column) for column in zip(*pairs, strict=True))
    videos = np.array([f"video-{number}".encode() for number in videos])
    named = np.unique(videos[labels >= 0])
    count = max(1, round(fraction * len(named)))
    if count >= len(named):
        with pytest.raises(RecordError, match=r"`validation_fraction` should leave videos"):
            hold_out(labels, videos, fraction, seed)
        return
    held_out = hold_out(labels, videos, fraction, seed)
    assert not set(videos[held_out]) & set(videos[~held_out])
    assert len(set(videos[held_out])) == count
    assert set(videos[held_out]) <= set(named)
    order = random.sample(range(len(labels)), len(labels))
    np.testing.assert_array_equal(hold_out(labels[order], videos[order], fraction, seed), held_out[order])


def test_clips_cut_from_one_video_are_held_out_together():
    names = [f"walk/{video}_walk_f_cm_np1_ba_med_{clip}.avi" for video in "abcd" for clip in range(3)]
    records = mock.create_autospec(Records, instance=True)
    records.labels_and_videos.return_value = (np.zeros(12, np.int64), np.array(names, dtype="S"))
    chosen = choose_labels(records, TrainConfig(validation_fraction=0.5))
    by_video = chosen.held_out.reshape(4, 3)
    assert sorted(by_video.sum(axis=1)) == [0, 0, 3, 3]


def test_labels_are_dropped_of_what_remains(record_folder):
    records = Records.open(record_folder)
    chosen = choose_labels(records, TrainConfig(validation_fraction=0.25, label_fraction=0.5))
    recorded = records.labels_and_videos("train")[0]
    assert np.sum(chosen.held_out) == 4
    assert np.all(recorded[chosen.held_out] >= 0)
    np.testing.assert_array_equal(chosen.labels[chosen.held_out], recorded[chosen.held_out])
    assert (chosen.samples, chosen.labeled) == (16, 6)


@pytest.mark.parametrize("labeled_only", [True, False])
def test_held_out_samples_are_in_no_batch(record_folder, labeled_only):
    records = Records.open(record_folder)
    chosen = choose_labels(records, TrainConfig(validation_fraction=0.25))
    # In place of the labels: each record's number.
    numbers = np.arange(20) - np.where(records.labels_and_videos("train")[0] < 0, 100, 0)
    batches = training_batches(
        records,
        views=("future",),
        batch_size=2,
        crop=32,
        seed=0,
        epoch=0,
        labels=numbers,
        labeled_only=labeled_only,
        held_out=chosen.held_out,
    )
    trained = {int(label) % 100 for batch in batches.as_numpy_iterator() for label in batch["label"]}
    kept = np.flatnonzero(~chosen.held_out & ((numbers >= 0) | (not labeled_only)))
    assert trained == set(kept.tolist())
