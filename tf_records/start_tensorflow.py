"""TensorFlow without the lines that its C++ code prints before any log level applies, in half its time."""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator

# What Keras imports for its wrappers and galleries alone, and does without where it is not installed.
_NOT_FOR_KERAS = ("cv2", "matplotlib", "sklearn")


def start_tensorflow() -> None:
    """Imports TensorFlow and starts its runtime, silently where TF_CPP_MIN_LOG_LEVEL is 3.

    Its first lines on file descriptor 2 heed no log level, so the descriptor is closed off meanwhile.
    Of the import's 10 seconds, searching a million new objects for garbage takes 2, and what Keras imports
    and kdant does not need of it 4. Searching them again and again afterwards took a tenth of a short
    command's time. Exceptions still raise. Nor is it said that functions are traced
    again: each network's are, once.
    """
    first = "tensorflow" not in sys.modules
    collection = _no_collection() if first else contextlib.nullcontext()
    quiet = (
        without_native_messages()
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3"
        else contextlib.nullcontext()
    )
    with quiet, collection, _hidden(*_NOT_FOR_KERAS):
        import tensorflow as tf

        tf.config.list_physical_devices()
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":
        tf.get_logger().addFilter(_is_not_of_retracing)


def _is_not_of_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def without_native_messages() -> Iterator[None]:
    """What libraries write to stderr past Python within is dropped; their errors come as exceptions."""
    try:
        kept = os.dup(2)
    except OSError:  # There is no stderr.
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No search for garbage meanwhile, and none later among what is there then."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Packages that are not imported yet cannot be, meanwhile."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
