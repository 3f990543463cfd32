"""Which samples a page shows, and how a pair of clips becomes a looping picture."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.report.samples import (
    HEIGHT,
    MOST_FRAMES,
    choose_best,
    choose_wrong,
    encode_moving,
    side_by_side,
    top_guesses,
)


def say(rows: list[list[float]], labels: list[int]) -> Predictions:
    names = np.array([f"v{number}" for number in range(len(labels))])
    return Predictions(
        probabilities=np.array(rows, dtype=np.float64), labels=np.array(labels), ids=names, videos=names
    )


SAID = say(
    [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.05, 0.95], [0.45, 0.55], [0.99, 0.01]],
    [0, 0, 0, 1, 0, 0, 1],
)


def test_best_are_right_and_of_all_classes_in_turn():
    # Right: 0, 1, 2 of class 0 and 3 of class 1, which comes before a second one of class 0.
    assert choose_best(SAID, 2) == [0, 3]
    assert choose_best(SAID, 3) == [0, 1, 3]
    assert choose_best(SAID, 9) == [0, 1, 2, 3]


def test_wrong_ones_are_the_surest_first():
    assert choose_wrong(SAID, 2) == [6, 4]
    assert choose_wrong(SAID, 9) == [6, 4, 5]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20), st.integers(1, 6))
def test_a_sample_is_chosen_once_and_on_the_side_where_it_belongs(pairs, count):
    rows = [np.eye(3)[named] * 0.7 + 0.1 for named, _ in pairs]
    said = say(rows, [label for _, label in pairs])
    best, wrong = choose_best(said, count), choose_wrong(said, count)
    assert all(said.correct()[best])
    assert not any(said.correct()[wrong])
    assert len(set(best)) == len(best) == min(count, int(said.correct().sum()))
    assert len(set(wrong)) == len(wrong) == min(count, int((~said.correct()).sum()))


def test_the_three_most_probable_classes_and_which_is_the_label():
    said = say([[0.1, 0.5, 0.25, 0.15]], [2])
    guesses = top_guesses(said, 0, ("a", "b", "c", "d"))
    assert [(each.name, each.probability, each.correct) for each in guesses] == [
        ("b", 0.5, False),
        ("c", 0.25, True),
        ("d", 0.15, False),
    ]


@pytest.mark.parametrize(("frames", "kept"), [(8, 8), (16, 16), (17, 9), (64, 16)])
def test_clips_stand_side_by_side_and_move(frames: int, kept: int):
    observed = np.zeros((frames, 56, 56, 3))
    observed[..., 0] = np.linspace(0, 1, frames)[:, None, None]
    future = np.full((frames, 56, 56, 3), (0.0, 0.0, 1.0))
    joined = side_by_side(observed, future)
    assert len(joined) == kept <= MOST_FRAMES
    red, blue = joined[-1].getpixel((10, 50)), joined[-1].getpixel((joined[-1].width - 10, 50))
    assert red[0] > 200
    assert red[2] < 20
    assert blue == (0, 0, 255)

    data = encode_moving(joined, frames / 25)
    with Image.open(io.BytesIO(data)) as moving:
        assert (moving.format, moving.height, moving.n_frames) == ("WEBP", HEIGHT, kept)
        assert moving.info["loop"] == 0
        durations = []
        for number in range(kept):
            moving.seek(number)
            moving.load()
            durations.append(moving.info["duration"])
    assert durations[:-1] == [round(1000 * frames / 25 / kept)] * (kept - 1)
    assert durations[-1] == 700
    assert data == encode_moving(joined, frames / 25)
