"""Floating-point operations of I3D and of the attention pooling, counted from shapes.

A multiplication and an addition are two operations. Convolutions and the pooling's matrix products are
counted, and nothing else: what else a step does is what its time above the ideal shows.
"""

import dataclasses
import math

import keras

# Of the bidirectional loss: 3 products of positions with positions and 4 poolings. Its gradient towards the
# student's map takes 8 more: 3 for the weights' gradients, 2 through the poolings of the student's own map,
# 2 through A Aᵀ and 1 through A Rᵀ. The teacher's map needs none.
POOLING_PRODUCTS = {"forward": 7, "forward and back": 15}


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkFlops:
    """Operations of one clip's convolutions; `first` is the convolution that reads the clip.

    `padding` is the part of `forward` that multiplies zeros beyond the map's edge, which a library may
    leave out, and does where time has been pooled down to one step.
    """

    forward: int
    first: int
    padding: int

    @property
    def training(self) -> int:
        """Forward and back: each convolution's two gradients cost as much as itself, the clip needs none."""
        return 3 * self.forward - self.first


def count_network(network: keras.Model) -> NetworkFlops:
    """Counts the Conv3D layers of a functional model whose input sizes are known."""
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv3D)]
    counts = [count_convolution(layer) for layer in convolutions]
    useful = sum(
        round(count * _share_within(layer)) for layer, count in zip(convolutions, counts, strict=True)
    )
    return NetworkFlops(forward=sum(counts), first=counts[0], padding=sum(counts) - useful)


def count_convolution(layer: keras.layers.Conv3D) -> int:
    """2 · kernel · input channels · output channels · output positions, padding counted as work."""
    return 2 * math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])


def count_product(positions: int, channels: int) -> int:
    """One product of the pooling: `(N, d)` with `(d, N)`, or `(N, N)` with `(N, d)`."""
    return 2 * positions * positions * channels


def _share_within(layer: keras.layers.Conv3D) -> float:
    """Share of the kernel's taps, over all output positions, that fall within the map."""
    shares = (
        _taps_within(size, kernel, stride) / (kernel * math.ceil(size / stride))
        for size, kernel, stride in zip(
            layer.input.shape[1:-1], layer.kernel_size, layer.strides, strict=True
        )
    )
    return math.prod(shares)


def _taps_within(size: int, kernel: int, stride: int) -> int:
    """Taps of one axis that fall within it, with TensorFlow's "same" padding."""
    outputs = math.ceil(size / stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    starts = (output * stride - before for output in range(outputs))
    return sum(min(start + kernel, size) - max(start, 0) for start in starts)
