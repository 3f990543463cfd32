"""TensorFlow starts silently where that was asked for, and its errors still raise."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


TRACE_SEVEN = "[tf.function(lambda x: x)(tf.constant(1)) for _ in range(7)]; "


def start(level: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    if level is not None:
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
    code = (
        "import sys; from tf_records.start_tensorflow import start_tensorflow; start_tensorflow(); "
        f"import tensorflow as tf; {TRACE_SEVEN}"
        "print('tensorflow' in sys.modules); print('heard', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_nothing_but_what_follows_is_heard() -> None:
    result = start("3")
    assert (result.stdout, result.stderr) == ("True\n", "heard\n")


def test_what_keras_alone_would_import_can_be_imported_afterwards() -> None:
    code = (
        "import gc, sys; from tf_records.start_tensorflow import start_tensorflow; start_tensorflow(); "
        "assert not {'cv2', 'matplotlib', 'sklearn'} & set(sys.modules); assert gc.isenabled(); "
        "import cv2, keras, matplotlib.pyplot, sklearn; keras.layers.Dense(2)"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_what_was_imported_is_not_searched_for_garbage_and_what_comes_later_is() -> None:
    code = (
        "import gc, weakref; from tf_records.start_tensorflow import start_tensorflow; start_tensorflow(); "
        "kept = gc.get_freeze_count(); assert kept > 100_000, kept; "
        "later = type('Later', (), {})(); later.itself = later; seen = weakref.ref(later); "
        "start_tensorflow(); del later; gc.collect(); assert seen() is None"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
