"""Augmentation keeps a pair a pair, whatever is drawn."""

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tf_records.augment import Augmentation, change_colours, crop_randomly, draw_decision

SHARES = st.floats(0, 1, width=32)
AUGMENTATIONS = st.builds(
    Augmentation, brightness=SHARES, contrast=SHARES, saturation=SHARES, hue=st.floats(0, 0.5, width=32)
)
KEYS = st.tuples(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(0, 2**40))
ALL = Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)


@given(AUGMENTATIONS, KEYS)
def test_one_colour_in_both_clips_is_one_colour_afterwards(
    augmentation: Augmentation, key: tuple[int, int, int]
) -> None:
    """The late clip shows the pixels of the early one elsewhere."""
    decision = draw_decision(*key, augmentation)
    if decision.colours is None:
        assert not augmentation.changes_colours
        return
    early = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4, 3)).astype(np.float32)
    late = np.roll(early, (1, 2), axis=(1, 2))
    early, late = (change_colours(tf.constant(clip), decision.colours).numpy() for clip in (early, late))
    np.testing.assert_array_equal(late, np.roll(early, (1, 2), axis=(1, 2)))
    assert -1 <= early.min() <= early.max() <= 1


@given(AUGMENTATIONS, KEYS)
def test_the_same_key_draws_the_same_bytes_and_start_crop_and_flip_stay_as_without(
    augmentation: Augmentation, key: tuple[int, int, int]
) -> None:
    plain, *drawn = draw_decision(*key), draw_decision(*key, augmentation), draw_decision(*key, augmentation)
    for decision in drawn:
        assert [value.numpy() for value in decision[:4]] == [value.numpy() for value in plain[:4]]
    if augmentation.changes_colours:
        first, second = (decision.colours.numpy() for decision in drawn)
        assert first.tobytes() == second.tobytes()
        assert np.isfinite(first).all()


@given(KEYS, st.integers(0, 255))
def test_grey_stays_grey(key: tuple[int, int, int], grey: int) -> None:
    frames = tf.fill((1, 16, 16, 3), tf.cast(grey, tf.uint8))
    clip = crop_randomly(frames, draw_decision(*key, ALL), 14).numpy()
    np.testing.assert_allclose(clip, clip[0, 0, 0, 0], atol=2e-6)


def test_other_seeds_epochs_and_records_draw_other_colours() -> None:
    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in (0, 1)]
    assert len({draw_decision(*key, ALL).colours.numpy().tobytes() for key in keys}) == len(keys)
