"""A window that slides over ticks: the clips that a network is shown."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator

import av
import numpy as np

from tf_records.encoded_frame import to_grey
from tf_records.flow import compute_flow, flow_to_bytes
from tf_records.limits import Limits
from tf_records.resize import Resizer
from tf_records.schema import FLOW, RGB, FlowInfo


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A clip, uint8 `(T, H, W, C)`, and the ticks it begins and ends with.

    `complete_at` is when its last frame had come, by `time.perf_counter`.
    """

    clip: np.ndarray
    first: int
    last: int
    complete_at: float


class Windows:
    """Takes ticks, gives windows; holds no more than one window's frames.

    Args:
        clip_frames: int >= 1, ticks a window.
        stride: float > 0, ticks from one window to the next. Where it is no whole number a window ends with
            the first tick that is late enough.
        modality: "rgb", "flow" or "rgb,flow".
        short_side: pixels of the shorter side of the clips' frames.
        flow: how flow is computed, where there is any.
    """

    def __init__(
        self, *, clip_frames: int, stride: float, modality: str, short_side: int, flow: FlowInfo | None
    ) -> None:
        self._stride = stride
        self._images = _Images(modality.split(","), short_side, flow)
        self._held: deque[tuple[int, np.ndarray]] = deque(maxlen=clip_frames)
        self._due = 0

    def push(self, tick: int, frame: av.VideoFrame, name: str) -> Iterator[Window]:
        """The window that this tick completes, if any.

        Args:
            tick: after a leap the window is filled anew.
            frame: that the tick shows; the same object as before where it is the same frame.
            name: of the source, for messages.
        """
        arrived_at = time.perf_counter()
        for number, image in self._images.push(tick, frame, name):
            if self._held and (number, image.shape) != (self._held[-1][0] + 1, self._held[-1][1].shape):
                self._held.clear()
            self._held.append((number, image))
            if len(self._held) == self._held.maxlen and self._is_due(number):
                clip = np.stack([image for _, image in self._held])
                yield Window(clip=clip, first=self._held[0][0], last=number, complete_at=arrived_at)

    def _is_due(self, last: int) -> bool:
        assert self._held.maxlen is not None
        since = last - (self._held.maxlen - 1)
        if since < math.ceil(self._due * self._stride - 1e-9):
            return False
        self._due = math.floor(since / self._stride + 1e-9) + 1
        return True


class _Images:
    """What of a frame a network sees, uint8 `(H, W, C)`: RGB, flow from the tick before, or both."""

    def __init__(self, modalities: list[str], short_side: int, flow: FlowInfo | None) -> None:
        self._modalities = modalities
        self._flow = flow
        self._resizer = Resizer(short_side, Limits())
        self._before: tuple[int, av.VideoFrame, np.ndarray] | None = None

    def push(self, tick: int, frame: av.VideoFrame, name: str) -> Iterator[tuple[int, np.ndarray]]:
        before = self._before
        same = before is not None and frame is before[1]
        rgb = before[2] if before is not None and same else self._resizer.convert(frame, name)
        self._before = (tick, frame, rgb)
        if FLOW not in self._modalities:
            yield tick, rgb
        elif before is not None and before[0] == tick - 1 and before[2].shape == rgb.shape:
            assert self._flow is not None
            flow = flow_to_bytes(compute_flow(to_grey(before[2]), to_grey(rgb), self._flow), self._flow.bound)
            if tick == 1:  # No frame leads to the first one: it takes the flow of the second, as in records.
                yield 0, self._join(before[2], flow)
            yield tick, self._join(rgb, flow)

    def _join(self, rgb: np.ndarray, flow: np.ndarray) -> np.ndarray:
        return np.concatenate([rgb, flow], axis=-1) if RGB in self._modalities else flow
