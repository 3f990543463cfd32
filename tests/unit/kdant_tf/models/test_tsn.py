"""TSN: one frame of each segment, and the mean of what the segments say."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.models.baselines import SegmentFrames, build_tsn
from kdant_tf.private_apis import layers_within

CLIP = (8, 32, 32, 3)


def numbered(batch: int, frames: int) -> np.ndarray:
    """Clips whose pixels tell sample and frame: 100 · sample + frame."""
    numbers = 100 * np.arange(batch)[:, None] + np.arange(frames)
    return np.broadcast_to(numbers[:, :, None, None, None], (batch, frames, 2, 2, 1)).astype(np.float32)


def chosen(layer: SegmentFrames, batch: int, frames: int, training: bool) -> np.ndarray:
    """Frame numbers `(B, K)`; each frame has to be whole and of its own sample."""
    taken = np.asarray(layer(numbered(batch, frames), training=training))
    assert taken.shape == (batch, layer.segments, 2, 2, 1)
    assert np.all(taken == taken[:, :, :1, :1])
    return (taken[:, :, 0, 0, 0] - 100 * np.arange(batch)[:, None]).astype(int)


@pytest.mark.parametrize(
    ("frames", "segments", "expected"),
    [
        (8, 1, [4]),
        (8, 2, [2, 6]),
        (9, 3, [1, 4, 7]),
        (8, 3, [1, 3, 6]),
        (3, 3, [0, 1, 2]),
        (25, 5, [2, 7, 12, 17, 22]),
    ],
)
def test_inference_sees_the_middle_frames(frames, segments, expected):
    assert chosen(SegmentFrames(segments), 2, frames, training=False).tolist() == [expected] * 2


@given(frames=st.integers(1, 40), data=st.data())
def test_training_draws_within_its_own_segment(frames, data):
    segments = data.draw(st.integers(1, frames))
    bounds = [k * frames // segments for k in range(segments + 1)]
    numbers = chosen(SegmentFrames(segments, seed=data.draw(st.integers(0, 9))), 16, frames, training=True)
    assert np.all(numbers >= bounds[:-1])
    assert np.all(numbers < bounds[1:])


def test_training_reaches_every_frame_and_not_always_the_same():
    layer = SegmentFrames(2, seed=0)
    draws = np.concatenate([chosen(layer, 64, 8, training=True) for _ in range(3)])
    assert [set(draws[:, k].tolist()) for k in range(2)] == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    assert len({tuple(draw) for draw in draws.tolist()}) == 16


def test_draws_are_a_function_of_the_seed():
    first, second, other = (SegmentFrames(4, seed=seed) for seed in (3, 3, 4))
    draws = [
        [chosen(layer, 16, 32, training=True).tolist() for _ in range(2)] for layer in (first, second, other)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert draws[0][0] != draws[0][1]


def test_the_layer_survives_its_config():
    layer = SegmentFrames(3, seed=5, name="segments")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (copy.segments, copy.seed, copy.name) == (3, 5, "segments")
    np.testing.assert_array_equal(*(chosen(each, 8, 9, training=True) for each in (layer, copy)))
    assert SegmentFrames(3).get_config()["seed"] is None


def test_shapes_are_known_without_the_batch():
    assert SegmentFrames(3).compute_output_shape((None, 8, 4, 5, 3)) == (None, 3, 4, 5, 3)
    assert SegmentFrames(3)(keras.KerasTensor((None, 8, 4, 5, 3))).shape == (None, 3, 4, 5, 3)


@pytest.mark.parametrize(("segments", "frames"), [(9, 8), (0, 8)])
def test_more_segments_than_frames_are_refused(segments, frames):
    message = f"`segments` should be at least 1 .* Received: {segments} segments, {frames} frames"
    with pytest.raises(ValueError, match=message):
        SegmentFrames(segments)(numbered(1, frames))
    with pytest.raises(ValueError, match=message):
        SegmentFrames(segments)(keras.KerasTensor((None, frames, 2, 2, 1)))
    with pytest.raises(ValueError, match=message):
        build_tsn(2, (frames, 32, 32, 3), segments=segments)


@pytest.fixture(scope="module")
def tiny(tiny_backbone) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_tsn(5, CLIP, tiny_backbone, segments=3, dropout=0.5, batch_norm_momentum=0.5, seed=0)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, *CLIP)).astype(np.float32)


def test_logits_are_the_mean_of_the_segments_logits(tiny, clip):
    outputs = tiny(clip)
    backbone, scores = tiny.get_layer("Tiny"), tiny.get_layer("Logits")
    maps = [backbone(clip[:, middle]).numpy() for middle in (1, 3, 6)]
    logits = [scores(each.mean(axis=(1, 2))).numpy() for each in maps]
    np.testing.assert_allclose(outputs["logits"], np.mean(logits, axis=0), atol=1e-5)
    np.testing.assert_allclose(outputs["frames"], np.stack(maps, axis=1), atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
    assert outputs["logits"].dtype == "float32"


def test_it_trains_with_drawn_frames_and_dropout_and_infers_without(tiny, clip):
    first, second = (tiny(clip, training=False)["logits"].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    maps = [tiny(clip, training=True)["frames"].numpy() for _ in range(4)]
    assert any(np.abs(each - maps[0]).max() > 1e-4 for each in maps[1:])
    assert len(tiny.trainable_variables) == 2 + 2 + 2


def test_a_saved_network_gives_the_same_logits_and_keeps_its_momentum(tiny, clip, tmp_path):
    tiny.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for name, value in tiny(clip).items():
        np.testing.assert_array_equal(loaded(clip)[name], value)
    (norm,) = (layer for layer in layers_within(loaded) if isinstance(layer, keras.layers.BatchNormalization))
    assert norm.momentum == 0.5


@pytest.mark.slow
def test_a_real_backbone_fits():
    network = build_tsn(5, CLIP, "MobileNetV2", segments=2)
    assert network.output["frames"].shape == (None, 2, 1, 1, 1280)
    assert network(np.zeros((1, *CLIP), np.float32))["logits"].shape == (1, 5)
