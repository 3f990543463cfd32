"""Batch normalisation folded into the layers before it, for networks that no longer learn."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from kdant_tf.private_apis import nodes_of

_LINEAR = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv2D, layers.Dense)


def fold_batch_norm(network: keras.Model) -> keras.Model:
    """A network with the outputs of `network(x, training=False)`, up to rounding, in fewer operations.

    A convolution or dense layer that nothing but a batch normalisation follows takes over its scale and
    shift. All else is shared, so what `network` learns later would reach the folded one in part.

    Args:
        network: functional; networks within it are folded too. It stays as it is.

    Returns:
        keras.Model of the same name, inputs and outputs.
    """
    norms = _find_foldable(network)
    folded = {id(norm) for norm in norms.values()}

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _fold(layer, norms[id(layer)]) if id(layer) in norms else layer

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if id(layer) in folded else layer(*args, **kwargs)

    return keras.models.clone_model(network, clone_function=rebuild, call_function=call, recursive=True)


def _find_foldable(network: keras.Model) -> dict[int, keras.layers.BatchNormalization]:
    """id of a linear layer → the normalisation that alone sees its output; each is called once."""
    models = list(_models_in(network, set()))
    nodes = [node for model in models for node in nodes_of(model)]
    makers = {id(tensor): node.operation for node in nodes for tensor in node.outputs}
    calls = Counter(id(node.operation) for node in nodes)
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers.update(id(tensor) for model in models for tensor in keras.tree.flatten(model.output))
    found = {}
    for node in nodes:
        norm = node.operation
        if not isinstance(norm, layers.BatchNormalization):
            continue
        (tensor,) = node.input_tensors
        linear = makers[id(tensor)]
        once = calls[id(linear)] == calls[id(norm)] == readers[id(tensor)] == 1
        if once and _is_linear(linear) and norm.axis in (-1, len(tensor.shape) - 1):
            found[id(linear)] = norm
    return found


def _models_in(model: keras.Model, found: set[int]) -> Iterator[keras.Model]:
    """`model` and the networks within it, each once."""
    if id(model) in found:
        return
    found.add(id(model))
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _models_in(layer, found)


def _is_linear(layer: Any) -> bool:
    """Of one of the kinds known here, without an activation, its output channels last."""
    return (
        type(layer) in _LINEAR
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
    )


def _fold(layer: Any, norm: Any) -> keras.layers.Layer:
    """`layer` with a bias, and kernels scaled as `norm` scales their outputs."""
    mean, variance = (keras.ops.convert_to_numpy(x) for x in (norm.moving_mean, norm.moving_variance))
    scale = 1 / (variance.astype("float64") + norm.epsilon) ** 0.5
    if norm.scale:
        scale = scale * keras.ops.convert_to_numpy(norm.gamma)
    kernel, *bias = layer.get_weights()
    shift = ((bias[0] if bias else 0) - mean) * scale
    if norm.center:
        shift = shift + keras.ops.convert_to_numpy(norm.beta)
    folded = type(layer).from_config({**layer.get_config(), "use_bias": True})
    folded.build(layer.input.shape)
    # A depthwise kernel ends in (channels, multiplier), which are the output's channels together.
    channels = kernel.shape[-2:] if isinstance(layer, layers.DepthwiseConv2D) else kernel.shape[-1:]
    folded.set_weights([kernel * scale.reshape(channels), shift])
    return folded
