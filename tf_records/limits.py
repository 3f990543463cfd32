"""What a video may ask of the machine, since some are hostile and more are broken. No TensorFlow."""

import dataclasses

from tf_records.errors import RecordError, VideoError

# A JPEG's sides are 16-bit numbers.
MAX_SIDE = 65_500
# A record is one message, which TensorFlow and protobuf bound at 2 GB and a reader holds in memory.
MAX_RECORD_BYTES = 2**29


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Videos beyond these are skipped like any that cannot be decoded.

    Args:
        max_pixels: of a frame, stored or resized.
        max_seconds: length of a video, stated or decoded.
    """

    max_pixels: int = 7680 * 4320
    max_seconds: float = 24 * 3600.0

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise RecordError(f"`max_pixels` should be at least 1. Received: {self.max_pixels}.")
        if not self.max_seconds > 0:
            raise RecordError(f"`max_seconds` should be above 0. Received: {self.max_seconds}.")

    def check_size(self, path: str, width: int, height: int) -> None:
        """Raises VideoError for a frame that is too large."""
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise VideoError(
                f"{path} has frames of {width}x{height}, more than the {self.max_pixels} pixels allowed. "
                f"If they are meant, raise --max-pixels."
            )

    def check_length(self, path: str, seconds: float) -> None:
        """Raises VideoError for a video that is too long."""
        if seconds > self.max_seconds:
            raise VideoError(
                f"{path} lasts {seconds:.0f} s or more, longer than the {self.max_seconds:.0f} s allowed. "
                f"If that is meant, raise --max-seconds."
            )
