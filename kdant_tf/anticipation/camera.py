"""A camera of this machine, through OpenCV: the FFmpeg that PyAV ships knows no devices."""

import time
from collections.abc import Iterator

import av
import numpy as np

from kdant_tf.anticipation.source import TimedFrame
from kdant_tf.anticipation.timeline import Timeline
from tf_records.errors import VideoError


class Camera:
    """A `Source` of the camera with a number; a frame's time is that of its arrival.

    Raises:
        VideoError: no OpenCV, or no such camera.
    """

    live = True
    stated_s = 0.0  # cameras state no length

    def __init__(self, number: int) -> None:
        try:
            import cv2
        except ImportError as error:
            raise VideoError(
                f"Cameras need OpenCV, which cannot be imported: {error}. Install it: "
                f"pip install 'kdant-tf[flow]'."
            ) from error
        self.name = f"camera {number}"
        self._reading = False
        # What OpenCV says of a missing camera goes past Python's stderr.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise VideoError(
                f"There is no camera {number}, or it is in use. Give another number, a file, or an rtsp:// "
                f"URL."
            )
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or None

    def frames(self) -> Iterator[TimedFrame]:
        """What the camera gives until it is unplugged, see `Source`."""
        timeline, self._reading = Timeline(self.rate), True
        try:
            while True:
                given, picture = self._capture.read()
                if not given:
                    raise VideoError(f"{self.name.capitalize()} gives no more pictures.")
                time_s = timeline.place(time.monotonic())
                frame = av.VideoFrame.from_ndarray(np.asarray(picture, np.uint8), format="bgr24")
                yield TimedFrame(time_s, frame)
        finally:
            self._capture.release()

    def complaints(self) -> list[str]:
        """Nothing: a camera gives pictures, or none."""
        return []

    def close(self) -> None:
        """Releases a camera that nobody has begun to read; whoever reads it releases it at the end."""
        if not self._reading:
            self._capture.release()
