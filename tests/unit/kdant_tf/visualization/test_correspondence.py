"""Where did it go: targets, weights (eq. 4-6) and links, against NumPy and on maps made by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixels import near, pixels_of

from kdant_tf.visualization.correspondence import (
    Drift,
    find_targets,
    plot_drift,
    same_place,
    strongest_positions,
)
from kdant_tf.visualization.style import OKABE_ITO


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


@pytest.mark.parametrize("alpha", [None, 0.0, 0.3, 4.0])
def test_weights_are_those_of_equation_5(alpha):
    rng = np.random.default_rng(3)
    future, observed = rng.random((2, 3, 4, 6)), rng.random((3, 2, 5, 6))
    scale = 1 / np.sqrt(6) if alpha is None else alpha
    targets = find_targets(future, observed, count=3, alpha=alpha)
    assert len(targets) == 3
    for target in targets:
        query = future[target.position]
        expected = softmax(scale * observed.reshape(-1, 6) @ query).reshape(3, 2, 5)
        np.testing.assert_allclose(target.weights, expected, rtol=1e-5)
        assert target.magnitude == pytest.approx(np.linalg.norm(query))


def test_a_vector_that_moved_is_found_where_it_went():
    future, observed = np.full((2, 7, 7, 3), 0.1), np.full((2, 7, 7, 3), 0.1)
    future[1, 2, 5] = observed[0, 4, 1] = (9, 0, 9)
    (target,) = find_targets(future, observed, count=1)
    assert target.position == (1, 2, 5)
    assert target.strongest == (0, 4, 1)
    assert target.links(6, least=0.01) == [((0, 4, 1), pytest.approx(1.0))]
    assert target.weight_near(future.shape) == pytest.approx(0.0, abs=1e-6)
    assert target.weight_near(future.shape, reach=4) == pytest.approx(1.0)


def test_weight_at_the_same_place_counts_at_any_time():
    future, observed = np.zeros((2, 6, 6, 2)), np.zeros((2, 3, 3, 2))
    future[1, 3, 5] = observed[0, 1, 2] = (20, 0)
    (target,) = find_targets(future, observed, count=1)
    assert same_place(target.position, future.shape, observed.shape) == (1, 1, 2)
    assert target.weight_near(future.shape, reach=0) == pytest.approx(1.0)


def test_strongest_positions_are_no_neighbours():
    magnitude = np.zeros((2, 5, 5))
    magnitude[0, 1, 1], magnitude[0, 1, 2], magnitude[1, 1, 2], magnitude[0, 4, 4] = 9, 8, 7, 6
    assert strongest_positions(magnitude, 3) == [(0, 1, 1), (1, 1, 2), (0, 4, 4)]
    assert strongest_positions(np.ones((1, 2, 2)), 3) == [(0, 0, 0)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_targets_have_weights_that_sum_to_1_and_links_in_order(seed, count):
    rng = np.random.default_rng(seed)
    future, observed = rng.normal(size=(1, 4, 4, 3)), rng.normal(size=(2, 3, 3, 3))
    for target in find_targets(future, observed, count=count):
        assert target.weights.sum() == pytest.approx(1, abs=1e-5)
        weights = [weight for _, weight in target.links(5, least=0.0)]
        assert weights == sorted(weights, reverse=True)
        assert target.weights[target.strongest] == pytest.approx(weights[0])
        assert 0 <= target.weight_near(future.shape) <= 1 + 1e-5


def a_drift(target: tuple[int, int, int], held: tuple[int, int, int]) -> Drift:
    """A vector at `target` of the future map, which the observed map holds at `held`."""
    future, observed = np.full((2, 4, 4, 2), 0.01), np.full((2, 4, 4, 2), 0.01)
    future[target] = observed[held] = (20, 0)
    return Drift(
        title="student",
        observed=np.ones((8, 8, 8, 3)),
        future=np.ones((8, 8, 8, 3)),
        observed_times_s=np.arange(8) / 10,
        future_times_s=np.arange(8) / 10 + 1.5,
        future_shape=(2, 4, 4),
        targets=find_targets(future, observed, count=1),
    )


def test_the_strongest_position_and_where_it_is_held_are_drawn_in_their_places(tmp_path):
    """Four times the same picture, with the target and its end in other quarters."""
    drawn = {}
    for held in ((0, 0, 0), (1, 3, 3)):
        path = tmp_path / f"{held[0]}.png"
        plot_drift([a_drift((1, 0, 3), held)], "title", "note", path)
        drawn[held] = near(pixels_of(path), OKABE_ITO[1])
    first, second = drawn.values()
    height, width = first.shape
    # The target's square is in both, in the lower frame of the right column; the ends differ.
    both = np.argwhere(first & second)
    assert (both[:, 1] > 0.6 * width).sum() > 50
    only_first, only_second = np.argwhere(first & ~second), np.argwhere(second & ~first)
    left_first = only_first[only_first[:, 1] < 0.2 * width]
    left_second = only_second[only_second[:, 1] < 0.45 * width]
    assert left_first[:, 0].mean() < 0.35 * height < 0.55 * height < left_second[:, 0].mean()


def test_a_drift_of_one_sample_may_have_any_number_of_students(tmp_path):
    for students in (1, 2, 5):
        plot_drift([a_drift((0, 1, 1), (0, 2, 2))] * students, "title", "note", tmp_path / f"{students}.png")
    sizes = [pixels_of(tmp_path / f"{students}.png").shape[:2] for students in (1, 2, 5)]
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] > 1.8 * sizes[0][1]
    assert sizes[2][0] > 2.5 * sizes[1][0]
