"""Optical flow: the translation of a texture, zero exactly, and 8 bits that keep it."""

import numpy as np
import pytest

from tf_records.flow import ALGORITHMS, compute_flow, describe_flow

HEIGHT, WIDTH = 64, 88


def texture(seed: int = 0) -> np.ndarray:
    """Grey uint8, larger than a frame by 16 pixels on each side, without edges of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : HEIGHT + 32, 0 : WIDTH + 32]
    waves = [np.sin(fy * y + fx * x + p) for fy, fx, p in rng.uniform(-0.6, 0.6, (24, 3)) * (1, 1, 9)]
    return np.uint8(128 + 9 * np.clip(np.sum(waves, axis=0), -13, 13))


def shifted(pixels_right: int, pixels_down: int) -> np.ndarray:
    """A frame in which the texture has moved by so much."""
    top, left = 16 - pixels_down, 16 - pixels_right
    return texture()[top : top + HEIGHT, left : left + WIDTH]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("motion", [(3, 0), (0, -2), (-4, 1)])
def test_the_flow_of_a_moving_texture_is_its_motion(algorithm: str, motion: tuple[int, int]) -> None:
    """From the frame before to the frame after: u to the right, v down."""
    flow = compute_flow(shifted(0, 0), shifted(*motion), describe_flow(algorithm))
    assert (flow.shape, flow.dtype) == ((HEIGHT, WIDTH, 2), np.float32)
    inside = flow[12:-12, 12:-12]
    np.testing.assert_allclose(np.median(inside, axis=(0, 1)), motion, atol=0.1)
    assert np.mean(np.abs(inside - motion).max(axis=-1) < 0.5) > 0.95
