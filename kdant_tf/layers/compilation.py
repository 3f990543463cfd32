"""XLA for a part of a network, where the Keras backend has it."""

from collections.abc import Callable
from typing import Any

import keras


def compile_with_xla(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled by XLA on the TensorFlow backend, `function` itself on the others.

    JAX users compile the step that calls it; nesting in a compiled TensorFlow function is harmless.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)
