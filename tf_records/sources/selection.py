"""Fewer labels, or fewer samples, of what a source read."""

import dataclasses
import hashlib

from tf_records.errors import AnnotationError
from tf_records.sources.sample import Annotations, Sample


def use_labels(annotations: Annotations, fraction: float, seed: int) -> Annotations:
    """Keeps the labels of a seeded `fraction` of the labelled training samples; the others lose theirs.

    A larger fraction keeps all that a smaller one keeps.

    Raises:
        AnnotationError: `fraction` is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise AnnotationError(f"`--label-fraction` should be from 0 to 1. Received: {fraction}.")
    labeled = [s for s in annotations.samples if s.split == "train" and s.label is not None]
    ranked = sorted(labeled, key=lambda sample: _rank("label", seed, sample))
    without = {sample.id for sample in ranked[round(fraction * len(ranked)) :]}
    return dataclasses.replace(
        annotations,
        samples=tuple(
            dataclasses.replace(s, label=None) if s.id in without else s for s in annotations.samples
        ),
        options={**annotations.options, "label_fraction": fraction, "seed": seed},
    )


def limit_samples(annotations: Annotations, limit: int, seed: int) -> Annotations:
    """Keeps the first `limit` samples of each split in a seeded order that mixes the classes.

    Raises:
        AnnotationError: `limit` is below 1.
    """
    if limit < 1:
        raise AnnotationError(f"`--limit` should be at least 1. Received: {limit}.")
    left: dict[str, int] = {}
    kept = set()
    for sample in sorted(annotations.samples, key=lambda sample: _rank("limit", seed, sample)):
        left[sample.split] = left.get(sample.split, limit) - 1
        if left[sample.split] >= 0:
            kept.add(sample.id)
    return dataclasses.replace(
        annotations,
        samples=tuple(sample for sample in annotations.samples if sample.id in kept),
        options={**annotations.options, "limit": limit, "seed": seed},
    )


def _rank(purpose: str, seed: int, sample: Sample) -> bytes:
    """A place in an order that is another one for each purpose, so that a limit keeps no more labels."""
    return hashlib.sha256(f"{purpose} {seed} {sample.id}".encode()).digest()
