"""Opening a video with PyAV: what is refused, and the stream that is decoded."""

import os

import av

from tf_records.errors import VideoError
from tf_records.limits import Limits

# These name other files, or never end.
_PLAYLISTS = {"hls", "concat", "dash", "sdp", "rtsp", "webm_dash_manifest", "imf"}
# FFmpeg draws the characters of text files.
_TEXT = {"tty"}


def open_container(path: str) -> av.container.InputContainer:
    """A file, opened; close it.

    Raises:
        VideoError: no such file, no regular one, or no video.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise VideoError(f"{path} cannot be opened as a video: it is no regular file.")
    try:
        # Titles and the like, which nobody reads here, need not be UTF-8.
        return av.open(os.path.abspath(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be opened as a video: {reason_of(error)}.") from error


def choose_stream(
    container: av.container.InputContainer, path: str, limits: Limits, *, remote: bool = False
) -> av.VideoStream:
    """The first video stream, to be decoded on one thread.

    Args:
        path: for messages.
        remote: whether `container` is meant to be of another host.

    Raises:
        VideoError: a playlist, a text, no video stream, or one that cannot be decoded or is too large.
    """
    if container.format.name in _PLAYLISTS and not remote:
        raise VideoError(f"{path} is a playlist, no video. Give the videos that it names.")
    if container.format.name in _TEXT:
        raise VideoError(f"{path} is a text, no video.")
    if not container.streams.video:
        raise VideoError(f"{path} has no video stream.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(f"{path} is encoded in a way that FFmpeg here cannot decode.")
    limits.check_size(path, stream.width, stream.height)
    stream.thread_count = 1
    return stream


def reason_of(error: BaseException) -> str:
    """The system's words alone, without the path that the message already has."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
