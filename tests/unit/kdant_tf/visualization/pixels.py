"""What tests of pictures share: pixels of a PNG, pixels of a colour, predictions made by hand."""

from pathlib import Path

import numpy as np
from PIL import Image

from kdant_tf.evaluation.predictions import Predictions


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def near(pixels: np.ndarray, color: str, tolerance: int = 12) -> np.ndarray:
    """Which pixels have a colour: bool `(H, W)`."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(pixels - wanted).max(axis=-1) <= tolerance


def predictions(labels: list[int], first: list[int], classes: int = 4) -> Predictions:
    """Of a network that gives the class `first` 0.7, each sample in a video of its own."""
    probabilities = np.full((len(labels), classes), 0.3 / (classes - 1))
    probabilities[np.arange(len(labels)), first] = 0.7
    ids = np.array([f"s{number}" for number in range(len(labels))])
    return Predictions(probabilities=probabilities, labels=np.array(labels), ids=ids, videos=ids)
