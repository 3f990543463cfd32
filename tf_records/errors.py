"""What a user can mend. Only these become one-line messages on the command line."""

from typing import Any


class KdantError(Exception):
    """A problem the user can mend: one sentence saying what, what was received, what to do.

    Example:
        >>> try:
        ...     raise VideoError("a.mp4 holds no frame that can be decoded.")
        ... except KdantError as error:
        ...     print(f"Skipped: {error}")
        Skipped: a.mp4 holds no frame that can be decoded.
    """


class VideoError(KdantError):
    """A video that cannot be opened, or not to its end."""


class AnnotationError(KdantError):
    """An annotation that cannot be right; the message names the file and the line."""


class RecordError(KdantError):
    """A record folder that is missing, damaged, or does not fit what is asked of it."""


class RunError(KdantError):
    """A run folder that is missing, incomplete, or does not fit what is asked of it."""


class NotKeptError(RunError):
    """Results that were computed and cannot be written; `result` has them."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class StoppedError(KdantError):
    """A training or study that was asked to stop, and kept what it had."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line without the full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
