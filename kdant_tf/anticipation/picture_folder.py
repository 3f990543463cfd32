"""A folder of numbered pictures as a source."""

from collections.abc import Iterator

from kdant_tf.anticipation.source import TimedFrame
from tf_records.errors import VideoError
from tf_records.frame_folder import FrameFolder, holds_frames
from tf_records.limits import Limits
from tf_records.resize import Resizer

_LIMITS = Limits()


class PictureFolder:
    """A `Source` of the pictures in a folder, which say nothing of their rate.

    Raises:
        VideoError: no numbered pictures in it, or not all of them.
    """

    live = False

    def __init__(self, path: str, *, rate: float | None) -> None:
        self.name = path
        self.rate = rate
        self._unreadable: list[VideoError] = []
        if not holds_frames(path):
            raise VideoError(
                f"Folder {path} holds no pictures such as frame_0001.jpg. Give a video, or its frames."
            )
        self._folder = FrameFolder(path, None, Resizer(None, _LIMITS), _LIMITS)

    def frames(self) -> Iterator[TimedFrame]:
        """The pictures in the order of their numbers, see `Source`."""
        if self.rate is None:
            raise VideoError(f"Folder {self.name} states no frame rate. Give it: --source-fps.")
        for number in range(self._folder.frames):
            try:
                picture = self._folder.picture(number)
            except VideoError as error:
                self._unreadable.append(error)
                continue
            yield TimedFrame(number / self.rate, picture)
        if len(self._unreadable) == self._folder.frames:
            raise self._unreadable[0]

    def complaints(self) -> list[str]:
        """How many pictures were passed over, and why the first one."""
        if not self._unreadable:
            return []
        return [f"{len(self._unreadable)} damaged frames were passed over, the first: {self._unreadable[0]}"]

    def close(self) -> None:
        """Nothing is kept open."""
