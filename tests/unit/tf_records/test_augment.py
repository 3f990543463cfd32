"""Cutting frames: the same numbers run eagerly and inside tf.data."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tf_records import augment
from tf_records.augment import Decision


def in_tf_data(function: Callable[..., tf.Tensor], *arguments: object) -> np.ndarray:
    """The function's value where it maps a data set of one element."""
    dataset = tf.data.Dataset.from_tensors(tuple(tf.convert_to_tensor(value) for value in arguments))
    return dataset.map(function).get_single_element().numpy()


def decide(top: float = 0.0, left: float = 0.0, flip: bool = False) -> Decision:
    return Decision(tf.constant(0.0), tf.constant(top), tf.constant(left), tf.constant(flip))


def pictures(height: int, width: int, frames: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def scaled(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32) / np.float32(127.5) - np.float32(1)


@pytest.mark.parametrize(
    ("frames", "windows", "starts"),
    [
        (40, 1, [16]),
        (8, 1, [0]),
        (5, 1, [0]),
        (40, 2, [0, 32]),
        (40, 5, [0, 8, 16, 24, 32]),
        (8, 10, [0]),
        (3, 10, [0]),
        (10, 10, [0, 1, 2]),
        (17, 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (18, 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]),
    ],
)
def test_windows_are_spread_evenly_without_repeats(frames: int, windows: int, starts: list[int]) -> None:
    assert augment.window_starts(tf.constant(frames), 8, windows).numpy().tolist() == starts
    assert in_tf_data(lambda n: augment.window_starts(n, 8, windows), frames).tolist() == starts


@pytest.mark.parametrize(
    ("frames", "start", "indices"),
    [(40, 0, range(8)), (40, 32, range(32, 40)), (3, 0, [0, 1, 2, 0, 1, 2, 0, 1]), (1, 0, [0] * 8)],
)
def test_a_short_segment_repeats_in_time_order(frames: int, start: int, indices: list[int]) -> None:
    assert augment.clip_indices(tf.constant(frames), tf.constant(start), 8).numpy().tolist() == list(indices)
    mapped = in_tf_data(lambda n, s: augment.clip_indices(n, s, 8), frames, start)
    assert mapped.tolist() == list(indices)


@pytest.mark.parametrize(("short_side", "crop"), [(256, 224), (128, 112), (64, 56), (32, 28)])
def test_seven_eighths_are_cut_without_any_scaling(short_side: int, crop: int) -> None:
    frames = pictures(short_side, short_side + 24)
    top, left = (short_side - crop) // 2, (short_side + 24 - crop) // 2
    expected = scaled(frames[:, top : top + crop, left : left + crop])
    np.testing.assert_array_equal(augment.crop_centrally(tf.constant(frames), crop).numpy(), expected)


@pytest.mark.parametrize("shape", [(64, 88), (88, 64)])
@pytest.mark.parametrize(("top", "left"), [(0.0, 0.0), (0.5, 0.25), (0.9999999, 0.9999999)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_random_crop_is_the_square_decided_on(
    shape: tuple[int, int], top: float, left: float, flip: bool
) -> None:
    frames = pictures(*shape)
    y, x = int(top * (shape[0] - 56 + 1)), int(left * (shape[1] - 56 + 1))
    expected = scaled(frames[:, y : y + 56, x : x + 56])
    expected = expected[:, :, ::-1] if flip else expected
    decision = decide(top, left, flip)
    assert (y, x) <= (shape[0] - 56, shape[1] - 56)
    np.testing.assert_array_equal(augment.crop_randomly(tf.constant(frames), decision, 56).numpy(), expected)
    mapped = in_tf_data(lambda value: augment.crop_randomly(value, decision, 56), frames)
    np.testing.assert_array_equal(mapped, expected)


@pytest.mark.parametrize("channels", [3, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_in_eight_bits_is_scaled_to_the_same_values(channels: int, flip: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 88, channels), dtype=np.uint8)
    frames[0, :8, :8] = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    frames[1, 8:24, 8:24] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    decision = decide(0.1, 0.1, flip)
    cut = augment.crop_in_eight_bits(tf.constant(frames), decision, 56)
    assert cut.dtype == tf.uint8
    expected = augment.crop_randomly(tf.constant(frames), decision, 56).numpy()
    np.testing.assert_array_equal(augment.scale(cut).numpy(), expected)
    mapped = in_tf_data(lambda value: augment.crop_in_eight_bits(value, decision, 56), frames)
    np.testing.assert_array_equal(mapped, cut)


@pytest.mark.parametrize("crop", [28, 84])
def test_another_crop_size_scales_the_same_square(crop: int) -> None:
    """A slope keeps its values under scaling, but for the places between pixels and the edges."""
    slope = np.broadcast_to(np.arange(0, 128, 2, dtype=np.uint8)[:, None, None], (64, 64, 3))
    frames = np.stack([slope, slope.transpose(1, 0, 2)])
    clip = augment.crop_centrally(tf.constant(frames), crop).numpy()
    middle = scaled(8 + 2 * ((np.arange(crop) + 0.5) * 56 / crop - 0.5))[2:-2]
    np.testing.assert_allclose(clip[0, 2:-2, 5, 0], middle, atol=1e-3)
    np.testing.assert_allclose(clip[1, 5, 2:-2, 2], middle, atol=1e-3)
    mapped = in_tf_data(lambda value: augment.crop_centrally(value, crop), frames)
    np.testing.assert_array_equal(mapped, clip)


def test_pixels_span_minus_one_to_one() -> None:
    frames = np.stack([np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)])
    clip = augment.crop_centrally(tf.constant(frames), 56).numpy()
    assert clip.dtype == np.float32
    assert np.all(clip[0] == -1.0)
    assert np.all(clip[1] == 1.0)


def test_flow_spans_minus_one_to_one_and_zero_is_exact() -> None:
    stored = np.repeat(np.array([0, 1, 128, 255], np.uint8), 2 * 64 * 64).reshape(4, 64, 64, 2)
    for crop in (56, 28):
        clip = augment.crop_centrally(tf.constant(stored), crop).numpy()
        assert clip.shape == (4, crop, crop, 2)
        for frame, value in zip(clip, (-1, -1, 0, 1), strict=True):
            np.testing.assert_allclose(frame, value, atol=0 if crop == 56 else 1e-6)


@pytest.mark.parametrize("crop", [56, 28])
def test_a_flip_mirrors_flow_and_negates_u_alone(crop: int) -> None:
    stored = np.random.default_rng(0).integers(1, 256, (2, 64, 64, 2), dtype=np.uint8)
    plain, flipped = (
        augment.crop_randomly(tf.constant(stored), decide(0.5, 0.5, flip), crop).numpy()
        for flip in (False, True)
    )
    np.testing.assert_array_equal(flipped[..., 0], -plain[:, :, ::-1, 0])
    np.testing.assert_array_equal(flipped[..., 1], plain[:, :, ::-1, 1])
    mapped = in_tf_data(lambda value: augment.crop_randomly(value, decide(0.5, 0.5, True), crop), stored)
    np.testing.assert_array_equal(mapped, flipped)


def test_flow_is_decoded_as_u_and_v_in_the_order_asked_for() -> None:
    flat = [[tf.io.encode_jpeg(np.full((16, 16, 1), 20 * n + w, np.uint8)) for w in (0, 9)] for n in range(4)]
    frames = augment.decode_flow(tf.stack(flat), tf.constant([3, 0]), 2).numpy()
    assert (frames.shape, frames.dtype) == ((2, 16, 16, 2), np.uint8)
    assert frames[:, 8, 8].tolist() == [[60, 69], [0, 9]]


def test_decisions_depend_on_seed_epoch_and_record_and_on_nothing_else() -> None:
    def draw(seed: int, epoch: int, index: int) -> tuple[float, ...]:
        decision = augment.draw_decision(seed, epoch, tf.constant(index, tf.int64))
        return tuple(float(value) for value in decision[:4])

    cases = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in (0, 1)]
    drawn = {case: draw(*case) for case in cases}
    assert len(set(drawn.values())) == len(cases)
    assert all(draw(*case) == drawn[case] for case in cases)


def test_decisions_are_the_same_in_tf_data() -> None:
    dataset = tf.data.Dataset.range(4).map(lambda index: augment.draw_decision(3, 2, index))
    for index, mapped in enumerate(dataset.as_numpy_iterator()):
        eager = augment.draw_decision(3, 2, tf.constant(index, tf.int64))
        assert tuple(mapped)[:4] == tuple(value.numpy() for value in eager[:4])


def test_decisions_use_both_flips_and_stay_below_one() -> None:
    dataset = tf.data.Dataset.range(200).map(lambda index: augment.draw_decision(0, 0, index))
    decisions = [Decision(*decision) for decision in dataset.as_numpy_iterator()]
    assert 60 < sum(bool(decision.flip) for decision in decisions) < 140
    for name in ("start", "top", "left"):
        values = np.array([getattr(decision, name) for decision in decisions])
        assert values.min() >= 0
        assert values.max() < 1
        assert 0.4 < values.mean() < 0.6


def test_frames_are_decoded_in_the_order_asked_for() -> None:
    flat = [np.full((16, 16, 3), 20 * number, np.uint8) for number in range(5)]
    encoded = tf.stack([tf.io.encode_jpeg(frame, quality=100) for frame in flat])
    indices = tf.constant([4, 0, 2])
    frames = augment.decode_frames(encoded, indices, 3).numpy()
    assert frames.dtype == np.uint8
    assert frames[:, 8, 8, 0].tolist() == [80, 0, 40]
    mapped = in_tf_data(lambda e, i: augment.decode_frames(e, i, 3), encoded, indices)
    np.testing.assert_array_equal(mapped, frames)
