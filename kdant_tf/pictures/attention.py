"""Where the student holds what the teacher sees: the weights that the feature loss compares (eq. 4-6)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import ops

from kdant_tf.layers.attention_pooling import resolve_alpha
from kdant_tf.layers.pooling_weights import dot_products, pooling_weights

Position = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """A vector r_i of the future map, and where the observed map holds it.

    Args:
        position: of r_i, (t, y, x) in the future map.
        magnitude: its length.
        weights: omega, softmax(alpha · r_i · a_k) over the observed map: float `(T, H, W)`, sums to 1.
    """

    position: Position
    magnitude: float
    weights: np.ndarray

    @property
    def strongest(self) -> Position:
        """The position in the observed map that has the largest weight."""
        return _unravel(int(np.argmax(self.weights)), self.weights.shape)

    def links(self, count: int, least: float) -> list[tuple[Position, float]]:
        """The `count` largest weights with their positions, largest first, those below `least` left out."""
        order = np.argsort(-self.weights, axis=None, kind="stable")[:count]
        links = [(_unravel(int(k), self.weights.shape), float(self.weights.flat[k])) for k in order]
        return [(position, weight) for position, weight in links if weight >= least]

    def weight_near(self, future_shape: Sequence[int], reach: int = 1) -> float:
        """Share of the weight that lies within `reach` positions of the same place of the frame, at any time.

        Args:
            future_shape: of the future map, (T, H, W, …).
        """
        y, x = same_place(self.position, future_shape, self.weights.shape)[1:]
        rows, columns = np.ogrid[: self.weights.shape[1], : self.weights.shape[2]]
        near = (np.abs(rows - y) <= reach) & (np.abs(columns - x) <= reach)
        return float(self.weights[:, near].sum())


def find_targets(
    future_map: np.ndarray, observed_map: np.ndarray, *, count: int = 3, alpha: float | None = None
) -> list[Target]:
    """The strongest vectors of the future map, and their attention over the observed one.

    A target is the strongest position that is no neighbour of one before it, in its time slice.

    Args:
        future_map: float `(T, H, W, d)`, the teacher's, paper symbol R.
        observed_map: float `(T', H', W', d)`, the student's, paper symbol A.
        count: int >= 1, of targets.
        alpha: float >= 0, or None for 1/sqrt(d).

    Source: Tran et al. 2019, eq. 4-6. Deviations: none.
    """
    channels = future_map.shape[-1]
    positions = strongest_positions(np.linalg.norm(future_map, axis=-1), count)
    queries = np.stack([future_map[position] for position in positions])
    keys = observed_map.reshape(1, -1, channels)
    products = dot_products(ops.convert_to_tensor(queries[None]), ops.convert_to_tensor(keys))
    weights = ops.convert_to_numpy(pooling_weights(products, resolve_alpha(alpha, channels)))[0]
    return [
        Target(
            position=position,
            magnitude=float(np.linalg.norm(query)),
            weights=row.reshape(observed_map.shape[:3]),
        )
        for position, query, row in zip(positions, queries, weights, strict=True)
    ]


def strongest_positions(magnitude: np.ndarray, count: int) -> list[Position]:
    """The largest of a map `(T, H, W)` that are no neighbours of each other; ties go to the first."""
    left = magnitude.astype(np.float64)
    positions: list[Position] = []
    while len(positions) < count and np.isfinite(left).any():
        t, y, x = _unravel(int(np.argmax(left)), left.shape)
        positions.append((t, y, x))
        left[t, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = -np.inf
    return positions


def same_place(position: Position, shape: Sequence[int], other: Sequence[int]) -> Position:
    """The position of a map of shape `other` that lies at the same place as `position` in one of `shape`."""
    return tuple(  # type: ignore[return-value]
        min(int((index + 0.5) * there / here), there - 1)
        for index, here, there in zip(position, shape[:3], other[:3], strict=True)
    )


def _unravel(index: int, shape: Sequence[int]) -> Position:
    t, y, x = np.unravel_index(index, tuple(shape))
    return int(t), int(y), int(x)
