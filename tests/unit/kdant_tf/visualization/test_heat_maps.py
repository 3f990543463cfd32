"""Figure 3: magnitudes by hand, one scale a row, the ring, and the same picture in memory and on disk."""

import keras
import numpy as np
import pytest
from pixels import pixels_of

from kdant_tf.visualization.heat_maps import (
    HeatMap,
    activation_magnitude,
    first_clips,
    heat_map_pixels,
    heat_map_rows,
    plot_heat_maps,
)
from tf_records.records import Records

GREY_FRAME = np.full((8, 8, 3), 0.5)


def test_activation_magnitude_is_the_length_averaged_over_time():
    feature_map = np.zeros((2, 2, 3, 2))
    feature_map[0, 0, 1] = (3, 4)
    feature_map[1, 0, 1] = (0, 1)
    magnitude = activation_magnitude(feature_map)
    assert magnitude.shape == (2, 3)
    np.testing.assert_allclose(magnitude, [[0, 3, 0], [0, 0, 0]])


def test_one_colour_scale_serves_each_row(tmp_path):
    """A map that is weaker than the others of its row is darker, though constant; rows do not matter."""
    weak, strong = np.full((2, 2), 1.0), np.full((2, 2), 9.0)
    strong[0, 0] = 0.0
    rows = {
        f"factor {factor}": {
            "A": HeatMap(frame=GREY_FRAME, magnitude=weak * factor),
            "B": HeatMap(frame=GREY_FRAME, magnitude=strong * factor),
        }
        for factor in (1, 64)
    }
    pixels = pixels_of(plot_heat_maps(rows, tmp_path / "maps.png")).reshape(-1, 3)
    colors, counts = np.unique(pixels, axis=0, return_counts=True)
    order = np.argsort(-counts)
    (white, weak_color), (_, often) = colors[order[:2]], counts[order[:2]]
    assert white.tolist() == [255] * 3
    # The weak cell of both rows has this colour, and in the strong ones there are lighter ones.
    cell = 1.75 * 110
    assert 1.7 * cell**2 < often < 2 * cell**2
    assert (colors[counts > 100].sum(axis=1) > weak_color.sum() + 100).sum() > 1


def test_limits_hold_whatever_is_in_the_row_and_nothing_has_no_ring(tmp_path):
    """Half of the scale has one colour beside any other map; of a map of nothing, one colour is all."""
    colors = []
    for other in (0.0, 1.0):
        maps = {"half": np.full((2, 2), 0.5), "other": np.full((2, 2), other)}
        row = {name: HeatMap(frame=GREY_FRAME, magnitude=magnitude) for name, magnitude in maps.items()}
        path = plot_heat_maps({"row": row}, tmp_path / "maps.png", limits=(0.0, 1.0))
        picture = pixels_of(path)
        colors.append(picture[200, 110].tolist())
        inside = picture[105:255, 265:425].reshape(-1, 3)
        assert (len(np.unique(inside, axis=0)) == 1) == (other == 0.0)
    assert colors[0] == colors[1]


def test_a_constant_map_draws_without_warning(tmp_path):
    panels = {"teacher": HeatMap(frame=np.zeros((4, 4, 3)), magnitude=np.ones((2, 2)))}
    assert pixels_of(plot_heat_maps({"1": panels, "2": panels}, tmp_path / "maps.png")).size


def test_the_grid_has_every_row_and_column_lightest_where_a_network_is_most_active():
    magnitude = np.zeros((2, 2))
    magnitude[:, 1] = 1.0
    row = {"clip": HeatMap(frame=GREY_FRAME), "R": HeatMap(frame=GREY_FRAME, magnitude=magnitude)}
    weak = {**row, "R": HeatMap(frame=GREY_FRAME, magnitude=0.01 * magnitude)}
    pixels = heat_map_pixels({"golf": row, "走る": weak}).astype(int)
    assert pixels.shape == (2 * (16 + 176) + 16, 2 * 176 + 16, 3)
    first, second = pixels[40:180], pixels[40 + 192 : 180 + 192]
    # A row has its own scale.
    np.testing.assert_allclose(first, second, atol=1)
    bare, network = first[:, 20:180], first[:, 196:356].sum(axis=-1)
    assert np.ptp(bare, axis=-1).max() == 0
    assert network[:, -40:].min() > network[:, :40].max() + 100


def test_a_wrong_prediction_has_another_border(tmp_path):
    pictures = [
        pixels_of(
            plot_heat_maps(
                {"golf": {"R": HeatMap(frame=GREY_FRAME, magnitude=np.eye(2), wrong=wrong)}},
                tmp_path / f"{wrong}.png",
            )
        )
        for wrong in (False, True)
    ]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_rows_have_each_networks_map_of_each_clip(channels):
    clip = keras.layers.Input((2, 4, 4, channels))
    network = keras.Model(clip, {"logits": keras.layers.Flatten()(clip), "map": keras.layers.ReLU()(clip)})
    clips = np.random.default_rng(0).uniform(-1, 1, (2, 2, 4, 4, channels)).astype(np.float32)
    rows = heat_map_rows(["golf", "walk"], ("clip", clips), {"R": (clips, network)})
    assert [(title, *row) for title, row in rows.items()] == [("golf", "clip", "R"), ("walk", "clip", "R")]
    for row, own in zip(rows.values(), clips, strict=True):
        np.testing.assert_allclose(row["R"].magnitude, activation_magnitude(np.maximum(own, 0)), rtol=1e-5)
        assert row["clip"].frame.shape == (4, 4, 3)
        # Features have no frame to show bare.
        assert (row["clip"].magnitude is None) == (channels <= 3)
    if channels == 3:
        np.testing.assert_allclose(rows["walk"]["clip"].frame, (clips[1, 1] + 1) / 2, rtol=1e-6)


@pytest.mark.slow
def test_first_clips_are_one_of_each_class(record_folder):
    records = Records.open(record_folder)
    clips = first_clips(records, "test", "future", 32)
    assert sorted(clips) == [0, 1, 2, 3]
    assert {clip.shape for clip in clips.values()} == {(8, 32, 32, 3)}
    assert len(first_clips(records, "test", "future", 32, classes=2)) == 2
    assert len(first_clips(records, "test", "future", 32, samples=1)) == 1
    assert -1 not in first_clips(records, "train", "future", 32)
