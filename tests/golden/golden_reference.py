"""The paper's equations in float64 NumPy, position by position; shares no code with kdant."""

import math
from collections.abc import Callable

import numpy as np


def pool_one(query: np.ndarray, vectors: np.ndarray, alpha: float | None) -> np.ndarray:
    """phi(q, S) for one query: sum over k of omega_k s_k (eq. 4)."""
    if alpha is None:
        alpha = 1 / math.sqrt(len(query))
    similarities = alpha * (vectors @ query)
    exponentials = np.exp(similarities - similarities.max())
    return (exponentials / exponentials.sum()) @ vectors


def pool(queries: np.ndarray, keys: np.ndarray, alpha: float | None = None) -> np.ndarray:
    """`(B, N, d)`, `(B, M, d)` → `(B, N, d)`."""
    result = np.zeros(queries.shape)
    for b in range(queries.shape[0]):
        for i in range(queries.shape[1]):
            result[b, i] = pool_one(queries[b, i].astype(np.float64), keys[b].astype(np.float64), alpha)
    return result


def flatten(feature_map: np.ndarray) -> np.ndarray:
    """`(B, T, H, W, d)` → `(B, N, d)` with W fastest; a 3-D map as it is."""
    if feature_map.ndim == 3:
        return feature_map
    batch, times, height, width, channels = feature_map.shape
    result = np.zeros((batch, times * height * width, channels))
    for t in range(times):
        for y in range(height):
            for x in range(width):
                result[:, (t * height + y) * width + x] = feature_map[:, t, y, x]
    return result


def penalty_of(difference: float, penalty: str, delta: float) -> float:
    """x², or Huber's 0.5 x² within delta and a line beyond."""
    if penalty == "squared":
        return difference**2
    if abs(difference) <= delta:
        return 0.5 * difference**2
    return delta * (abs(difference) - 0.5 * delta)


def distance(first: np.ndarray, second: np.ndarray, penalty: str, delta: float, reduction: str) -> float:
    """Sum of penalties over positions and channels, averaged over the batch; or their mean."""
    batch, positions, channels = first.shape
    total = math.fsum(penalty_of(difference, penalty, delta) for difference in (first - second).flat)
    return total / batch if reduction == "sum" else total / (batch * positions * channels)


def feature_loss(
    name: str,
    student: np.ndarray,
    teacher: np.ndarray,
    alpha: float | None = None,
    penalty: str = "huber",
    delta: float = 1.0,
    reduction: str = "mean",
) -> float:
    """eq. 7-9 and the direct loss."""
    a, r = flatten(student.astype(np.float64)), flatten(teacher.astype(np.float64))
    if name == "none":
        return 0.0
    if name == "direct":
        return distance(a, r, penalty, delta, reduction)
    teacher_to_student = distance(pool(r, a, alpha), pool(r, r, alpha), penalty, delta, reduction)
    if name == "unidirectional":
        return teacher_to_student
    return distance(pool(a, r, alpha), pool(a, a, alpha), penalty, delta, reduction) + teacher_to_student


def gradient(function: Callable[[np.ndarray], float], point: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of `function` at `point`, element by element."""
    point = point.astype(np.float64)
    result = np.zeros(point.shape)
    for index in np.ndindex(point.shape):
        change = np.zeros(point.shape)
        change[index] = step
        result[index] = (function(point + change) - function(point - change)) / (2 * step)
    return result


def softmax(row: np.ndarray) -> list[float]:
    exponentials = [math.exp(float(value) - float(max(row))) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def classification_loss(logits: np.ndarray, labels: np.ndarray, teacher: np.ndarray | None) -> float:
    """eq. 2: KL from the label where there is one, from the teacher's probabilities elsewhere."""
    total = 0.0
    for b, label in enumerate(labels):
        probabilities = softmax(logits[b])
        if label >= 0:
            total -= math.log(probabilities[label])
            continue
        assert teacher is not None
        for target, probability in zip(teacher[b], probabilities, strict=True):
            if target > 0:
                total += float(target) * (math.log(float(target)) - math.log(probability))
    return total / len(labels)
