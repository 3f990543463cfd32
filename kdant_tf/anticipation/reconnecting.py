"""A stream of the network or a camera that is taken up again where it breaks off."""

import time
from collections.abc import Callable, Iterator

from kdant_tf.anticipation.camera import Camera
from kdant_tf.anticipation.source import TimedFrame
from kdant_tf.anticipation.video_stream import VideoStream
from tf_records.errors import VideoError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0


class Reconnecting:
    """A live `Source` that is opened anew where it breaks off; its clock goes on meanwhile.

    RTSP tells the end of a stream by closing the connection, as a camera does that is switched off; a camera
    that is unplugged gives no more pictures. So what states no length has not ended but broken off.

    Args:
        open_stream: opens the stream; called at once, and again after each break.
        patience_s: seconds > 0 that it may be away.
        report: told of each break and each return, in one sentence.

    Raises:
        VideoError: it cannot be opened at once.
    """

    live = True

    def __init__(
        self,
        open_stream: Callable[[], VideoStream | Camera],
        *,
        patience_s: float,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._open_stream, self._patience_s, self._report = open_stream, patience_s, report
        self._stream = open_stream()
        self.name, self.rate = self._stream.name, self._stream.rate
        self._breaks, self._away_s = 0, 0.0
        self._complaints: list[str] = []

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in order, see `Source`; after a break as much later as it lasted."""
        start_s = last_s = 0.0
        came_at: float | None = None
        while True:
            broke_off = came_at is not None
            try:
                for time_s, frame in self._stream.frames():
                    if broke_off and came_at is not None:
                        start_s = last_s + self._count(time.monotonic() - came_at)
                        broke_off = False
                    came_at, last_s = time.monotonic(), start_s + time_s
                    yield TimedFrame(last_s, frame)
                reason = f"{self.name} ended."
            except VideoError as error:
                if came_at is None:
                    raise
                reason = str(error)
            if self._stream.stated_s or came_at is None:
                return
            if not broke_off:
                self._report(f"{reason} It is tried again for {self._patience_s:g} s.")
            self._reopen(came_at, reason)

    def complaints(self) -> list[str]:
        """How often and how long it was away, and what was wrong with its frames."""
        times = "once" if self._breaks == 1 else f"{self._breaks} times"
        away = f"It broke off {times}, for {self._away_s:.1f} s in all."
        return [*([away] if self._breaks else []), *self._complaints, *self._stream.complaints()]

    def close(self) -> None:
        """See `Source`."""
        self._stream.close()

    def _count(self, away_s: float) -> float:
        self._breaks += 1
        self._away_s += away_s
        self._report(f"After {away_s:.1f} s {self.name} is back.")
        return away_s

    def _reopen(self, came_at: float, reason: str) -> None:
        """Waits until it can be opened again.

        Raises:
            VideoError: it has been away for too long.
        """
        self._complaints += self._stream.complaints()
        pause_s = _FIRST_PAUSE_S
        while (left_s := came_at + self._patience_s - time.monotonic()) > 0:
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                self._stream = self._open_stream()
            except VideoError as error:
                reason = str(error)
            else:
                return
        raise VideoError(
            f"Gave up on {self.name} after {self._patience_s:g} s, at last: {reason} Start again when it is "
            f"back, or give it longer: --reconnect-s."
        )
