"""From two grey frames to optical flow, by OpenCV, and from flow to 8 bits.

I3D's Flow network was trained on TV-L1 flow of frames that were resized first, their shorter side to 256,
clipped to ±20 pixels and scaled to [-1, 1] (Carreira and Zisserman 2017). OpenCV and NumPy are imported when
the first flow is wanted.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tf_records.errors import KdantError
from tf_records.schema import FLOW_STEPS, FLOW_ZERO, FlowInfo

if TYPE_CHECKING:
    import numpy as np

# Of frames whose shorter side has so many pixels.
BOUND_PIXELS, BOUND_SIDE = 20.0, 256
# OpenCV's own defaults, spelled out so that the manifest tells them; MEDIUM is the finest preset of DIS.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "tvl1": {
        "tau": 0.25,
        "lambda": 0.15,
        "theta": 0.3,
        "scalesNumber": 5,
        "warpingsNumber": 5,
        "epsilon": 0.01,
        "innerIterations": 30,
        "outerIterations": 10,
        "scaleStep": 0.8,
        "gamma": 0.0,
        "medianFiltering": 5,
    },
    "dis": {"preset": "MEDIUM"},
    "farneback": {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "flags": 0,
    },
}
_INSTALL = "Install it: pip install 'kdant-tf[flow]'."


def proportional_bound(short_side: int) -> float:
    """±20 pixels at a shorter side of 256, as much of the frame at others.

    ±20 in 8 bits are steps of 0.16 pixels, in which small frames lose most of their motion: at a shorter side
    of 74, 62 % of the flow of six of JHMDB's classes came out as 0.
    """
    return BOUND_PIXELS * short_side / BOUND_SIDE


def describe_flow(algorithm: str, bound: float = BOUND_PIXELS) -> FlowInfo:
    """The algorithm with its parameters, and the OpenCV that would run it here.

    Args:
        algorithm: a key of ALGORITHMS.
        bound: pixels a frame > 0 that flow is clipped to ±.

    Raises:
        KdantError: an unknown algorithm, no OpenCV that has it, or another bound.
    """
    if not 0 < bound < math.inf:
        raise KdantError(f"`flow_bound` should be a number of pixels above 0. Received: {bound:g}.")
    if algorithm not in ALGORITHMS:
        raise KdantError(
            f"`flow_algorithm` should be one of {', '.join(ALGORITHMS)}. Received: {algorithm!r}."
        )
    return FlowInfo(
        algorithm=algorithm,
        parameters=dict(ALGORITHMS[algorithm]),
        bound=bound,
        opencv=_import_opencv(algorithm).__version__,
    )


def compute_flow(before: np.ndarray, after: np.ndarray, info: FlowInfo) -> np.ndarray:
    """The flow that leads from one frame to the next: where each pixel of `before` has gone.

    Runs on one thread: several would make DIS depend on their number, and workers share the cores.

    Args:
        before, after: grey uint8 `(H, W)`, each side at least 16.
        info: of `describe_flow`.

    Returns:
        float32 `(H, W, 2)`: u, pixels to the right, and v, pixels down.

    Raises:
        KdantError: no OpenCV that has the algorithm.
    """
    import numpy as np

    cv2 = _import_opencv(info.algorithm)
    if np.array_equal(before, after):  # Farneback finds motion at the edges even so.
        return np.zeros((*after.shape, 2), np.float32)
    cv2.setNumThreads(1)
    before, after = np.ascontiguousarray(before), np.ascontiguousarray(after)  # DIS takes no other.
    flow: np.ndarray
    if info.algorithm == "farneback":
        flow = cv2.calcOpticalFlowFarneback(before, after, None, **info.parameters)
    elif info.algorithm == "dis":
        preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{info.parameters['preset']}")
        flow = cv2.DISOpticalFlow_create(preset).calc(before, after, None)
    else:
        tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
        for name, value in info.parameters.items():
            getattr(tvl1, f"set{name[0].upper()}{name[1:]}")(value)
        flow = tvl1.calc(before, after, None)
    return flow


def flow_to_bytes(flow: np.ndarray, bound: float) -> np.ndarray:
    """Pixels, clipped to ±`bound`, in 8 bits: uint8 of the same shape, 1 to 255; zero is 128 exactly."""
    import numpy as np

    stored: np.ndarray = np.rint(np.clip(flow, -bound, bound) * (FLOW_STEPS / bound)) + FLOW_ZERO
    return stored.astype(np.uint8)


def _import_opencv(algorithm: str) -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise KdantError(
            f"Optical flow needs OpenCV, which cannot be imported: {error}. {_INSTALL}"
        ) from error
    if algorithm == "tvl1" and not hasattr(cv2, "optflow"):
        raise KdantError(
            f"TV-L1 flow needs OpenCV's contrib modules, which OpenCV {cv2.__version__} lacks. {_INSTALL}"
        )
    return cv2
