"""SIGTERM and Ctrl-C as a wish that a training can fulfil after its step. No TensorFlow here."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from tf_records.errors import KdantError

_WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StoppedError(KdantError):
    """A training that was asked to stop, and did so with a checkpoint."""


class StopSignals:
    """Within its block, the first SIGTERM or Ctrl-C is kept in `received`; the next one interrupts.

    In threads but the main one, where Python gives no signals, it does nothing.

    Args:
        report: told in a line what the first one does.
    """

    def __init__(self, report: Callable[[str], None] = lambda line: None) -> None:
        self.received: str | None = None
        self._report = report
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _WORDS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = _WORDS[signal.Signals(number)]
        with contextlib.suppress(RuntimeError):  # a line that is just being printed cannot be interrupted
            self._report(f"{self.received}: finishing this step, then a checkpoint. Once more stops at once.")
