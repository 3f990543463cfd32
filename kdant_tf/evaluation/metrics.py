"""Metrics on probabilities. NumPy in, plain numbers out."""

import numpy as np


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of samples whose label is among the `k` most probable classes.

    Ties go to the lower class index, so that the result does not depend on the sort.

    Args:
        probabilities: float `(N, classes)`.
        labels: int `(N,)`.
        k: int >= 1; with as many classes or fewer the result is 1.
    """
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.mean(np.any(ranked == labels[:, None], axis=1)))


def mean_class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of each class that occurs, averaged over those classes."""
    right = np.argmax(probabilities, axis=1) == labels
    return float(np.mean([np.mean(right[labels == index]) for index in np.unique(labels)]))
