"""TensorFlow without the lines that its C++ code prints before any log level applies."""

import contextlib
import os
from collections.abc import Iterator


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow and starts its runtime with file descriptor 2 closed off; errors still raise."""
    with _no_stderr():
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
