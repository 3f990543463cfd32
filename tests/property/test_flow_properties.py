"""8 bits hold a flow to half a step, and zero and the sign exactly."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tf_records.flow import BOUND_PIXELS, flow_to_bytes

FLOWS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-99, 99, width=32)
)


def in_pixels(stored: np.ndarray, bound: float) -> np.ndarray:
    return (stored.astype(np.float64) - 128) / 127 * bound


@given(FLOWS, st.sampled_from([BOUND_PIXELS, 1.0, 7.5]))
def test_what_is_stored_is_the_clipped_flow_to_half_a_step(flow: np.ndarray, bound: float) -> None:
    stored = flow_to_bytes(flow, bound)
    assert stored.dtype == np.uint8
    assert stored.min() >= 1
    error = np.abs(in_pixels(stored, bound) - np.clip(flow, -bound, bound))
    assert error.max() <= 0.5001 * bound / 127


@given(FLOWS)
def test_the_opposite_flow_is_stored_as_the_opposite(flow: np.ndarray) -> None:
    there, back = (flow_to_bytes(f, BOUND_PIXELS).astype(int) for f in (flow, -flow))
    np.testing.assert_array_equal(there + back, 256)


@given(FLOWS)
def test_more_flow_is_never_stored_as_less(flow: np.ndarray) -> None:
    order = np.argsort(flow, axis=None)
    assert (np.diff(flow_to_bytes(flow, BOUND_PIXELS).ravel()[order].astype(int)) >= 0).all()


def test_zero_and_the_bounds_are_exact() -> None:
    stored = flow_to_bytes(np.array([0.0, -0.0, 20, -20, 1e9, -1e9, 20 / 127]), BOUND_PIXELS)
    assert stored.tolist() == [128, 128, 255, 1, 255, 1, 129]
