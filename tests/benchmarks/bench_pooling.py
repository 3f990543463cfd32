"""The bidirectional loss against nothing but its own matrix products, with XLA and without."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from flops import POOLING_PRODUCTS, count_product
from measure import PRODUCT, Row, Times, gflop_per_second, take_turns_with_product

from kdant_tf.losses.features import feature_loss

# Of each list of products: how many are of positions with positions, `(N, d)` with `(d, N)`.
_SIMILARITIES = {"forward": 3, "forward and back": 6}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolingSettings:
    """Size of the maps: by default Mixed_4f's for 8 frames of 224x224, which is 2x14x14."""

    batch_size: int = 8
    positions: int = 392
    channels: int = 832
    repeats: int = 15


def measure_pooling(settings: PoolingSettings) -> list[Row]:
    """Forward, and forward and back, each with XLA and without it, in one set of turns."""
    shape = (settings.batch_size, settings.positions, settings.channels)
    # Activations after ReLU.
    student, teacher = (
        tf.nn.relu(tf.random.stateless_normal(shape, seed=(1, number))) for number in range(2)
    )
    functions: dict[str, Callable[[], Any]] = {}
    for kind, make in (("forward", _make_forward), ("forward and back", _make_forward_and_back)):
        for xla in (True, False):
            functions[_name(kind, xla)] = functools.partial(make(xla), student, teacher)
            functions[_products_name(kind, xla)] = _make_products(kind, xla, settings)
    times = take_turns_with_product(functions, settings.repeats)
    return [_row(kind, xla, times, settings) for kind in POOLING_PRODUCTS for xla in (True, False)]


def _row(kind: str, xla: bool, times: dict[str, Times], settings: PoolingSettings) -> Row:
    count = POOLING_PRODUCTS[kind]
    flops = count * settings.batch_size * count_product(settings.positions, settings.channels)
    # The faster of two ways to run nothing but the products.
    products = min((times[_products_name(kind, way)] for way in (True, False)), key=lambda way: way.median)
    same_compiler = times[_products_name(kind, xla)]
    return Row(
        name=_name(kind, xla),
        times=times[_name(kind, xla)],
        against=f"its {count} products alone",
        against_times=products,
        target=None if xla else 1.15,  # Without, as on any CPU that is not told otherwise.
        details={
            "gflop": flops / 1e9,
            "gflop_per_s": flops / times[_name(kind, xla)].median / 1e9,
            "products_gflop_per_s": flops / products.median / 1e9,
            "ratio_to_products_of_the_same_compiler": times[_name(kind, xla)].median / same_compiler.median,
            "matrix_product_gflop_per_s": gflop_per_second(times[PRODUCT]),
        },
    )


def _name(kind: str, xla: bool) -> str:
    return f"pooling {kind}, XLA {'on' if xla else 'off'}"


def _products_name(kind: str, xla: bool) -> str:
    return f"products of {_name(kind, xla)}"


def _make_forward(xla: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    loss = functools.partial(feature_loss, "bidirectional")
    return tf.function(lambda student, teacher: loss(student, teacher), jit_compile=xla, autograph=False)


def _make_forward_and_back(xla: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """As in the distillation step: the loss is compiled by itself, the tape is around it."""
    loss = _make_forward(xla)

    @tf.function(autograph=False)
    def run(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(student, teacher)
        return tape.gradient(value, student)

    return run


def _make_products(kind: str, xla: bool, settings: PoolingSettings) -> Callable[[], Any]:
    """The products alone, on operands that differ so that none can be shared."""
    batch, positions, channels = settings.batch_size, settings.positions, settings.channels
    count, similarities = POOLING_PRODUCTS[kind], _SIMILARITIES[kind]
    maps = [tf.random.stateless_normal((batch, positions, channels), seed=(2, number)) for number in range(3)]
    weights = [
        tf.random.stateless_uniform((batch, positions, positions), seed=(3, number)) for number in range(3)
    ]
    pairs = [(first, second) for first in range(3) for second in range(3)]

    @tf.function(jit_compile=xla, autograph=False)
    def run(maps: list[tf.Tensor], weights: list[tf.Tensor]) -> list[tf.Tensor]:
        return [
            *(tf.matmul(maps[a], maps[b], transpose_b=True) for a, b in pairs[:similarities]),
            *(tf.matmul(weights[a], maps[b]) for a, b in pairs[: count - similarities]),
        ]

    return functools.partial(run, maps, weights)
