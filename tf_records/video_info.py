"""Rate and length of a video, and when its ticks are shown. No PyAV, no TensorFlow."""

import dataclasses

# Containers round time stamps, Matroska to a millisecond; a tick that close to a frame shows it.
TIME_STAMP_TOLERANCE_S = 6e-4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Mean frame rate, and length: the container's, or that of its packets where it states none."""

    fps: float
    duration_s: float

    @property
    def frames(self) -> int:
        """Ticks of the video's own clock, at least 1."""
        return self.ticks(self.fps)

    def ticks(self, fps: float) -> int:
        """Ticks of a clock of `fps` over the video's length, at least 1."""
        return max(1, round(self.duration_s * fps))

    def shown_s(self, tick: int, fps: float | None) -> float:
        """The time whose frame a tick shows: the last frame at or before it.

        A clock of another rate never shows the future. On the video's own clock (`fps` None) a time stamp
        may lie on either side of its tick.
        """
        if fps is None:
            return (tick + 0.5) / self.fps
        return tick / fps + TIME_STAMP_TOLERANCE_S
