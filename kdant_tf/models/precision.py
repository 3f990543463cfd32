"""Mixed precision for one network, with no global policy that others would inherit."""

from collections.abc import Iterator
from typing import Any

import keras

FLOAT32 = "float32"
_LOGITS = "logits"


def set_precision(network: keras.Model, precision: str) -> None:
    """Lets the layers of a network compute in `precision`; its weights stay float32.

    The last layer with weights before the logits, and what follows it, compute in float32 whatever the
    precision.

    Args:
        network: functional, with an output "logits".
        precision: name of a Keras policy: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    for layer in network._flatten_layers(include_self=False):
        layer.dtype_policy = precision
    if precision == FLOAT32:
        return
    for layer in _layers_of_logits(network.output[_LOGITS]):
        for part in layer._flatten_layers():
            part.dtype_policy = FLOAT32


def _layers_of_logits(tensor: Any) -> Iterator[keras.layers.Layer]:
    """The layers between `tensor` and the nearest weights before it, with the layer that has these."""
    operation, node, index = tensor._keras_history
    if isinstance(operation, keras.Model) and hasattr(operation, "outputs"):
        yield from _layers_of_logits(operation.outputs[index])
        return
    is_layer = isinstance(operation, keras.layers.Layer)
    if is_layer:
        yield operation
    if not (is_layer and operation.weights):
        for before in operation._inbound_nodes[node].input_tensors:
            yield from _layers_of_logits(before)
