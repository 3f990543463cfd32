"""Which samples a page shows. No TensorFlow here."""

import numpy as np

from kdant_tf.evaluation.predictions import Predictions

SAMPLES = 6


def choose_best(predictions: Predictions, count: int = SAMPLES) -> list[int]:
    """Samples that the network is right and most sure of, one of each class in turn.

    Returns:
        Their places in `predictions`, most probable first.
    """
    sure = predictions.probabilities.max(axis=1)
    right = np.flatnonzero(predictions.right())
    right = right[np.argsort(-sure[right], kind="stable")]
    turns: dict[int, int] = {}
    rounds = []
    for place in right.tolist():
        label = int(predictions.labels[place])
        rounds.append(turns.get(label, 0))
        turns[label] = rounds[-1] + 1
    chosen = right[np.argsort(rounds, kind="stable")][:count] if rounds else right
    return sorted(chosen.tolist(), key=lambda place: (-sure[place], place))


def choose_wrong(predictions: Predictions, count: int = SAMPLES) -> list[int]:
    """Samples that the network is wrong about, most sure of its class first."""
    sure = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(~predictions.right())
    return wrong[np.argsort(-sure[wrong], kind="stable")][:count].tolist()
