"""Time stamps of any stream as seconds since its first frame, which never fall."""

# A stream that goes back by more than this has begun anew.
_RESTART_S = 1.0


class Timeline:
    """Places frames in time.

    A missing stamp follows the frame before by 1 / `rate`; so does a stamp that lies far before it, with
    which the stream has begun anew. One that lies a little before it counts as simultaneous.
    """

    def __init__(self, rate: float | None) -> None:
        self._step_s = 1 / rate if rate else 0.0
        self._origin_s: float | None = None
        self._last_s = 0.0

    def place(self, stamp_s: float | None) -> float:
        """Seconds since the first frame, for the stamp that the stream gives the next one, in seconds."""
        if self._origin_s is None:
            self._origin_s = 0.0 if stamp_s is None else stamp_s
            return self._last_s
        following_s = self._last_s + self._step_s
        time_s = following_s if stamp_s is None else stamp_s - self._origin_s
        if time_s < self._last_s - _RESTART_S:
            self._origin_s += time_s - following_s
            time_s = following_s
        self._last_s = max(self._last_s, time_s)
        return self._last_s
