"""Where a position lies in its map, and the prior of the loss `local`: things move, but not far."""

import math
from typing import Any, NamedTuple

from keras import ops


class LocalPrior(NamedTuple):
    """beta · |p_q − p_k|², which `pooling_weights` takes off the similarity of a query and a key.

    Args:
        beta: float >= 0; 1/sqrt(2·beta) is the standard deviation of the Gaussian it makes, as a share of
            the map's extent.
        queries: float32 `(N, 3)`, of `map_positions`.
        keys: float32 `(M, 3)`.
    """

    beta: float
    queries: Any
    keys: Any

    def rows(self, begin: Any, size: Any) -> "LocalPrior":
        """The prior of a block of queries."""
        return self._replace(queries=ops.slice(self.queries, (begin, 0), (size, 3)))

    def matrix(self) -> Any:
        """float32 `(N, M)`."""
        # (N, 1, 3) − (1, M, 3)
        difference = ops.expand_dims(self.queries, 1) - ops.expand_dims(self.keys, 0)
        return self.beta * ops.sum(ops.square(difference), axis=-1)


def map_positions(feature_map: Any) -> Any:
    """The (t, y, x) of each position in units of the map: 0 to 1 from one border to the other.

    Args:
        feature_map: `(B, T, H, W, d)`, or `(B, N, d)`, whose positions follow each other in time.

    Returns:
        float32 `(T·H·W, 3)`, W fastest, the middles of the positions.

    Example:
        >>> import keras
        >>> [[round(float(c), 2) for c in p] for p in map_positions(keras.ops.zeros((2, 1, 1, 2, 8)))]
        [[0.5, 0.5, 0.25], [0.5, 0.5, 0.75]]
    """
    sizes = ops.shape(feature_map)[1:-1]
    sizes = (*sizes, 1, 1) if len(sizes) == 1 else sizes
    axes = [(ops.arange(size, dtype="float32") + 0.5) / ops.cast(size, "float32") for size in sizes]
    grid = ops.stack(ops.meshgrid(*axes, indexing="ij"), axis=-1)  # (T, H, W, 3)
    return ops.reshape(grid, (-1, 3))


def check_locality(locality: float) -> None:
    """Raises a ValueError where `locality` is no finite number from 0 on."""
    if not 0 <= locality < math.inf:
        raise ValueError(f"`locality` should be finite and not negative. Received: {locality}.")
