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


def places(feature_map: np.ndarray) -> list[tuple[float, ...]]:
    """Middles of the positions, 0 to 1 along each axis of the map, W fastest."""
    sizes = feature_map.shape[1:-1]
    return [
        tuple((index + 0.5) / size for index, size in zip(at, sizes, strict=True)) for at in np.ndindex(sizes)
    ]


def pool_near(
    queries: np.ndarray, keys: np.ndarray, query_places: list, key_places: list, alpha: float, locality: float
) -> np.ndarray:
    """Attention pooling whose exponents lose locality times the squared distance of the places."""
    result = np.zeros(queries.shape)
    for b, i in np.ndindex(queries.shape[:2]):
        exponents = [
            alpha * float(queries[b, i] @ keys[b, k])
            - locality * sum((p - q) ** 2 for p, q in zip(query_places[i], key_places[k], strict=True))
            for k in range(keys.shape[1])
        ]
        for weight, key in zip(softmax(np.array(exponents)), keys[b], strict=True):
            result[b, i] += weight * key
    return result


def normalize(vectors: np.ndarray, normalization: str) -> np.ndarray:
    """Each `(B, N, d)` vector with root mean square 1, for "layer" with mean 0 before."""
    if normalization == "none":
        return vectors
    if normalization == "layer":
        vectors = vectors - vectors.mean(axis=-1, keepdims=True)
    return vectors / np.sqrt((vectors**2).mean(axis=-1, keepdims=True) + 1e-6)


def second_moments(vectors: np.ndarray) -> np.ndarray:
    """The mean of s sᵀ over a map's vectors."""
    return np.array([sum(np.outer(s, s) for s in sample) / len(sample) for sample in vectors])


def jaccard_distance(a: np.ndarray, r: np.ndarray) -> float:
    """1 − a·r / (a·a + r·r − a·r)."""
    return 1 - float(a @ r) / float(a @ a + r @ r - a @ r)


def infonce(a: np.ndarray, r: np.ndarray, alpha: float) -> float:
    """Cross-entropy of finding each sample's own teacher vector by cosine, averaged."""
    total = 0.0
    for b in range(len(a)):
        cosines = [float(a[b] @ key) / math.sqrt(float(a[b] @ a[b]) * float(key @ key)) for key in r]
        total -= math.log(softmax(alpha * np.array(cosines))[b])
    return total / len(a)


def feature_loss(
    name: str,
    student: np.ndarray,
    teacher: np.ndarray,
    alpha: float | None = None,
    penalty: str = "huber",
    delta: float = 1.0,
    reduction: str = "mean",
    locality: float = 8.0,
    normalization: str = "none",
) -> float:
    """eq. 7-9, the direct loss, and those beyond the paper."""
    a, r = (normalize(flatten(each.astype(np.float64)), normalization) for each in (student, teacher))
    if name == "none":
        return 0.0
    if name == "direct":
        return distance(a, r, penalty, delta, reduction)
    if name == "mmd":
        return distance(second_moments(a), second_moments(r), penalty, delta, reduction)
    if name == "jaccard":
        pairs = zip(a.mean(axis=1), r.mean(axis=1), strict=True)
        return float(np.mean([jaccard_distance(*pair) for pair in pairs]))
    if name == "infonce":
        return infonce(a.mean(axis=1), r.mean(axis=1), 10.0 if alpha is None else alpha)
    if normalization != "none":
        alpha = (10.0 if alpha is None else alpha) / a.shape[-1]

    def pooled(queries: str, keys: str) -> np.ndarray:
        vectors, maps = {"a": a, "r": r}, {"a": student, "r": teacher}
        if name != "local":
            return pool(vectors[queries], vectors[keys], alpha)
        sharpness = 1 / math.sqrt(a.shape[-1]) if alpha is None else alpha
        where = {each: places(maps[each]) for each in maps}
        return pool_near(vectors[queries], vectors[keys], where[queries], where[keys], sharpness, locality)

    teacher_to_student = distance(pooled("r", "a"), pooled("r", "r"), penalty, delta, reduction)
    if name == "unidirectional":
        return teacher_to_student
    return distance(pooled("a", "r"), pooled("a", "a"), penalty, delta, reduction) + teacher_to_student


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


def label_weight(
    label: int, probabilities: list[float], weights: list[float] | None, focusing: float
) -> float:
    """w_y·(1 − p_y)^gamma where there is a label."""
    if label < 0:
        return 1.0
    weight = 1.0 if weights is None else weights[label]
    return weight * (1 - probabilities[label]) ** focusing


def kl_from_label(label: int, probabilities: list[float], smoothing: float) -> float:
    """KL from the label, of which a share is spread over all classes."""
    count, total = len(probabilities), 0.0
    for k, probability in enumerate(probabilities):
        target = smoothing / count + (1 - smoothing if k == label else 0)
        total += target * math.log(target / probability) if target > 0 else 0
    return total


def classification_loss(
    logits: np.ndarray, labels: np.ndarray, teacher: np.ndarray | None, smoothing: float = 0.0
) -> float:
    """eq. 2: KL from the label where there is one, from the teacher's probabilities elsewhere."""
    total = 0.0
    for b, label in enumerate(labels):
        probabilities = softmax(logits[b])
        if label >= 0:
            total += kl_from_label(label, probabilities, smoothing)
            continue
        if teacher is None:
            continue
        for target, probability in zip(teacher[b], probabilities, strict=True):
            if target > 0:
                total += float(target) * (math.log(float(target)) - math.log(probability))
    return total / len(labels)


def soft_classification_loss(
    logits: np.ndarray,
    labels: list[int],
    teacher: np.ndarray,
    weight: float,
    temperature: float,
    smoothing: float = 0.0,
) -> float:
    """(1 − weight) of eq. 2, and weight·T² of KL between softened probabilities, where there is a label."""
    total = 0.0
    for student_row, label, teacher_row in zip(logits, labels, teacher, strict=True):
        plain, target = softmax(student_row), softmax(teacher_row)
        by_teacher = sum(t * math.log(t / p) for t, p in zip(target, plain, strict=True))
        if label < 0:
            total += by_teacher
            continue
        soft, soft_target = softmax(student_row / temperature), softmax(teacher_row / temperature)
        softened = sum(t * math.log(t / p) for t, p in zip(soft_target, soft, strict=True))
        by_label = kl_from_label(label, plain, smoothing)
        total += weight * temperature**2 * softened + (1 - weight) * by_label
    return total / len(labels)


def pooling_entropy(
    name: str,
    student: np.ndarray,
    teacher: np.ndarray,
    alpha: float | None = None,
    locality: float = 8.0,
    normalization: str = "none",
) -> float:
    """Entropy of the weights of each teacher's vector over the student's map, over log N, averaged."""
    a, r = (normalize(flatten(each.astype(np.float64)), normalization) for each in (student, teacher))
    if normalization != "none":
        alpha = (10.0 if alpha is None else alpha) / a.shape[-1]
    elif alpha is None:
        alpha = 1 / math.sqrt(a.shape[-1])
    own, other = places(student), places(teacher)
    shares = []
    for b, j in np.ndindex(r.shape[:2]):
        far = [sum((p - q) ** 2 for p, q in zip(other[j], place, strict=True)) for place in own]
        prior = locality * np.array(far) if name == "local" else 0.0
        weights = softmax(alpha * (a[b] @ r[b, j]) - prior)
        entropy = -math.fsum(weight * math.log(weight) for weight in weights if weight > 0)
        shares.append(entropy / math.log(len(weights)) if len(weights) > 1 else 1.0)
    return float(np.mean(shares))


def map_variation(student: np.ndarray, normalization: str = "none") -> float:
    """How much of each sample's map, in squares, is around the mean of its vectors, averaged."""
    a = normalize(flatten(student.astype(np.float64)), normalization)
    return float(np.mean([((each - each.mean(axis=0)) ** 2).sum() / (each**2).sum() for each in a]))
