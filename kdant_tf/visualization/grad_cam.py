"""Grad-CAM: which places of a clip speak for a class, by the gradient of its logit at the feature map.

Unlike the length of the feature vectors, which is the same whatever is asked, it answers for one class.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.models.networks import LOGITS, feature_map_name
from kdant_tf.private_apis import call_that_made
from tf_records.errors import KdantError

_MAP = "map"


class NoGradientError(KdantError):
    """A network whose logits are not made of its feature map."""


def class_activation(feature_map: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Grad-CAM of a map: the part of it that raises a logit.

    alpha_k is the mean over all places of the logit's gradient in channel k (eq. 1), here of time, height
    and width; the map is ReLU(sum_k alpha_k A_k) (eq. 2).

    Args:
        feature_map: float `(..., d)`, the paper's A.
        gradient: float `(..., d)` of the class's logit in `feature_map`.

    Returns:
        float `(...)`, >= 0; 0 where nothing speaks for the class.

    Raises:
        ValueError: shapes differ (says both).

    Example:
        >>> feature_map = np.array([[1.0, 0.0], [0.0, 3.0]])
        >>> class_activation(feature_map, np.array([[2.0, -1.0], [4.0, -1.0]]))
        array([3., 0.])

    Source: Selvaraju et al. 2017, Grad-CAM, eq. 1 and 2. Deviations: places in time count as those in space.
    """
    if feature_map.shape != gradient.shape:
        raise ValueError(
            f"`gradient` should have the shape of `feature_map`. Received: {gradient.shape} and "
            f"{feature_map.shape}."
        )
    alpha = gradient.reshape(-1, gradient.shape[-1]).mean(axis=0)
    activation: np.ndarray = np.maximum(feature_map @ alpha, 0)
    return activation


def grad_cam(network: keras.Model, clips: np.ndarray, class_indices: Sequence[int]) -> np.ndarray:
    """What in each clip speaks for a class.

    Args:
        network: from a clip to the dict of "logits" and one map with places in the frame.
        clips: float `(N, T, S, S, C)` as the network takes them, all at once.
        class_indices: of the class that is asked of each clip.

    Returns:
        float32 `(N, T', H', W')`, as `class_activation` gives it, with the places of the map.

    Raises:
        NoGradientError: the logits do not depend on the map.
    """
    output = network.output[feature_map_name(network)]
    tensors = {_MAP: _before_reshaping(output), LOGITS: network.output[LOGITS]}
    given = tf.constant(clips)
    with tf.GradientTape() as tape:
        tape.watch(given)  # A frozen network has no other variable that would be.
        outputs = keras.Model(network.input, tensors)(given, training=False)
        # No clip's map has a part in another's logits, so that the sum has the gradient of each.
        asked = tf.reduce_sum(tf.gather(outputs[LOGITS], list(class_indices), batch_dims=1))
    gradient = tape.gradient(asked, outputs[_MAP])
    if gradient is None:
        raise NoGradientError(
            "its logits are not made of its feature map, so no gradient leads from one to the other"
        )
    # A map may have a clip's frames one by one: (N · T', H', W', d) → (N, places, d)
    maps, gradients = (
        values.numpy().reshape(len(clips), -1, values.shape[-1]) for values in (outputs[_MAP], gradient)
    )
    found = [class_activation(*both) for both in zip(maps, gradients, strict=True)]
    return np.stack(found).reshape(-1, *output.shape[1:-1]).astype(np.float32)


def _before_reshaping(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """What a map was before it was reshaped, if it was: logits may be made of that."""
    while True:
        operation, inputs, _ = call_that_made(tensor)
        if type(operation).__name__ != "Reshape":
            return tensor
        (tensor,) = inputs
