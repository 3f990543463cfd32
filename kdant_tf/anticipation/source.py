"""Where frames come from: a video file, a folder of pictures, stdin, a camera, an RTSP server."""

import os
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import av

from tf_records.errors import VideoError

STDIN = "-"
_RTSP = ("rtsp://", "rtsps://")


class TimedFrame(NamedTuple):
    """A frame, and when it is shown: seconds since the source's first one, never falling."""

    time_s: float
    frame: av.VideoFrame


class Source(Protocol):
    """Frames that can be gone through once.

    `name` is for messages. `live` says that frames come at their own pace and do not wait. `rate` is the mean
    number of frames per second, None where nobody knows.
    """

    name: str
    live: bool
    rate: float | None

    def frames(self) -> Iterator[TimedFrame]:
        """The frames in order; a damaged one is left out.

        Raises:
            VideoError: there is none, or the source fails.
        """
        ...

    def complaints(self) -> list[str]:
        """What was wrong with it so far, though it could be gone through."""
        ...

    def close(self) -> None:
        """Lets go of file, device or connection."""
        ...


def check_source(text: str, *, live: bool = False) -> None:
    """Finds out, before a network is loaded, whether there is such a file or folder; others are left alone.

    Raises:
        VideoError: as `open_source`.
    """
    if text == STDIN and os.isatty(0):
        raise VideoError("stdin is a terminal, no stream. Pipe one in: cat VIDEO | kdant predict - …")
    if text != STDIN and not is_live(text):
        open_source(text, live=live).close()


def is_live(text: str) -> bool:
    """Whether frames come at their own pace: of a camera, or a URL."""
    return text.lower().startswith(_RTSP) or (text.isdecimal() and not os.path.exists(text))


def _without_password(url: str) -> str:
    """For messages and results, which others may read."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def open_source(
    text: str,
    *,
    live: bool = False,
    rate: float | None = None,
    reconnect_s: float = 0.0,
    report: Callable[[str], None] = lambda line: None,
) -> Source:
    """The source that a person's words name.

    Args:
        text: a video file, a folder of pictures, "-" for stdin, the number of a camera, or an rtsp:// URL.
        live: whether frames of stdin do not wait; those of cameras and URLs never do.
        rate: frames per second of what states none, such as a folder.
        reconnect_s: seconds that a URL or a camera may be away; with 0 its first end is the end.
        report: told in a sentence where it breaks off and is back.

    Raises:
        VideoError: there is no such thing, or it cannot be read.
    """
    from kdant_tf.anticipation.camera import Camera
    from kdant_tf.anticipation.picture_folder import PictureFolder
    from kdant_tf.anticipation.reconnecting import Reconnecting
    from kdant_tf.anticipation.video_stream import VideoStream

    if text == STDIN:
        return VideoStream("stdin", "pipe:0", live=live, rate=rate)
    if is_live(text):
        open_stream: Callable[[], Camera | VideoStream]
        if text.isdecimal():
            open_stream = partial(Camera, int(text))
        else:
            open_stream = partial(VideoStream, _without_password(text), text, live=True, rate=rate)
        if not reconnect_s:
            return open_stream()
        return Reconnecting(open_stream, patience_s=reconnect_s, report=report)
    if "://" in text:
        raise VideoError(
            f"{text} is a URL of another kind than rtsp://. Pipe it in: "
            f"ffmpeg -i URL -f mpegts - | kdant predict - --live …"
        )
    if os.path.isdir(text):
        return PictureFolder(text, rate=rate)
    if live:
        raise VideoError(f"{text} waits for its frames to be read, so --live is not for it. Leave it out.")
    return VideoStream(text, text, rate=rate)
