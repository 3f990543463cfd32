"""Optical flow: the motion of a texture, zero where nothing moves, and what is said without OpenCV."""

import sys
from types import ModuleType

import numpy as np
import pytest

from tf_records.errors import KdantError
from tf_records.flow import ALGORITHMS, compute_flow, describe_flow

HEIGHT, WIDTH = 64, 88


def texture() -> np.ndarray:
    """Grey uint8 waves, 16 pixels larger than a frame on each side."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : HEIGHT + 32, 0 : WIDTH + 32]
    waves = [np.sin(fy * y + fx * x + phase) for fy, fx, phase in rng.uniform(-0.6, 0.6, (24, 3)) * (1, 1, 9)]
    return np.uint8(128 + 9 * np.clip(np.sum(waves, axis=0), -13, 13))


def moved(pixels_right: int, pixels_down: int) -> np.ndarray:
    """A frame in which the texture has moved by so much."""
    top, left = 16 - pixels_down, 16 - pixels_right
    return texture()[top : top + HEIGHT, left : left + WIDTH]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("motion", [(3, 0), (0, -2), (-4, 1)])
def test_the_flow_of_a_moving_texture_is_its_motion(algorithm: str, motion: tuple[int, int]) -> None:
    """From the frame before to the frame after: u to the right, v down."""
    flow = compute_flow(moved(0, 0), moved(*motion), describe_flow(algorithm))
    assert (flow.shape, flow.dtype) == ((HEIGHT, WIDTH, 2), np.float32)
    inside = flow[12:-12, 12:-12]
    np.testing.assert_allclose(np.median(inside, axis=(0, 1)), motion, atol=0.1)
    assert np.mean(np.abs(inside - motion).max(axis=-1) < 0.5) > 0.95


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_frame_shown_twice_has_no_flow_at_all(algorithm: str) -> None:
    assert not compute_flow(moved(0, 0), moved(0, 0), describe_flow(algorithm)).any()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_flat_and_smallest_frames_have_finite_flow(algorithm: str) -> None:
    info = describe_flow(algorithm)
    dark, light = np.full((16, 22), 90, np.uint8), np.full((16, 22), 140, np.uint8)
    assert np.isfinite(compute_flow(dark, light, info)).all()
    assert np.isfinite(compute_flow(moved(0, 0)[:16, :16], moved(1, 0)[:16, :16], info)).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_frames_give_the_same_flow(algorithm: str) -> None:
    info = describe_flow(algorithm)
    first, other = (compute_flow(moved(0, 0), moved(3, 1), info) for _ in range(2))
    np.testing.assert_array_equal(first, other)


def test_the_parameters_named_are_the_ones_that_opencv_uses() -> None:
    """TV-L1's are its defaults; changing one changes the flow."""
    import cv2

    info = describe_flow("tvl1")
    assert info.opencv == cv2.__version__
    own = cv2.optflow.DualTVL1OpticalFlow_create().calc(
        *map(np.ascontiguousarray, (moved(0, 0), moved(3, 1))), None
    )
    np.testing.assert_array_equal(compute_flow(moved(0, 0), moved(3, 1), info), own)
    info.parameters["scalesNumber"] = 1
    assert np.abs(compute_flow(moved(0, 0), moved(3, 1), info) - own).max() > 0.01


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_opencv_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(KdantError, match=r"needs OpenCV.*pip install 'kdant-tf\[flow\]'\.$"):
        describe_flow(algorithm)


def test_an_opencv_without_contrib_modules_lacks_tvl1_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ModuleType("cv2")
    plain.__version__ = "4.9.0"
    monkeypatch.setitem(sys.modules, "cv2", plain)
    with pytest.raises(KdantError, match=r"contrib modules, which OpenCV 4\.9\.0 lacks\. .*pip install"):
        describe_flow("tvl1")
    assert describe_flow("dis").opencv == "4.9.0"


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(KdantError, match=r"`flow_bound` should be a number of pixels above 0"):
        describe_flow("dis", bound)


def test_an_unknown_algorithm_is_refused_with_those_there_are() -> None:
    with pytest.raises(KdantError, match=r"one of tvl1, dis, farneback\. Received: 'raft'"):
        describe_flow("raft")
