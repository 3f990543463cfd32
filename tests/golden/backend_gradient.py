"""Values and gradients of a keras.ops function on whichever backend Keras runs."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def value_and_gradients(
    function: Callable[..., Any], *points: np.ndarray, compiled: bool = False
) -> tuple[float, list[np.ndarray]]:
    """A scalar function's value at float32 `points`, and its gradient with respect to each.

    `compiled` has XLA compile it on TensorFlow and JAX. Where no gradient flows it is 0.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _with_jax(function, points, compiled)
    if backend == "torch":
        return _with_torch(function, points)
    return _with_tensorflow(function, points, compiled)


def _with_tensorflow(function: Any, points: Any, compiled: bool) -> tuple[float, list[np.ndarray]]:
    import tensorflow as tf

    called = tf.function(function, jit_compile=True, autograph=False) if compiled else function
    tensors = [tf.constant(point) for point in points]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = called(*tensors)
    gradients = tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return float(value), [gradient.numpy() for gradient in gradients]


def _with_jax(function: Any, points: Any, compiled: bool) -> tuple[float, list[np.ndarray]]:
    import jax

    called = jax.value_and_grad(function, argnums=tuple(range(len(points))))
    value, gradients = (jax.jit(called) if compiled else called)(*points)
    return float(value), [np.asarray(gradient) for gradient in gradients]


def _with_torch(function: Any, points: Any) -> tuple[float, list[np.ndarray]]:
    import torch

    tensors = [torch.tensor(point, requires_grad=True) for point in points]
    value = function(*tensors)
    value.backward()
    gradients = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in tensors]
    return float(value.detach()), [gradient.numpy() for gradient in gradients]
