"""TensorFlow without the lines that its C++ code prints before any log level applies."""

import contextlib
import os
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow and starts its runtime, silently where TF_CPP_MIN_LOG_LEVEL is 3.

    Its first lines on file descriptor 2 heed no log level, so the descriptor is closed off meanwhile.
    Exceptions still raise.
    """
    with _no_stderr() if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" else contextlib.nullcontext():
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
