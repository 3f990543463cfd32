"""Which records to look at: some of each class, from what the manifest knows. No TensorFlow."""

import itertools
from typing import NamedTuple

import numpy as np

from tf_records.manifest import Manifest


class Choice(NamedTuple):
    """The `place`-th record with this label (None is unlabelled) in a shard, counted from 0."""

    split: str
    shard: str
    label: str | None
    place: int


def choose_records(manifest: Manifest, samples: int, seed: int) -> list[Choice]:
    """Draws up to `samples` records, one of each class in turn and one without a label where there is any.

    The order is that of the splits and their shards.
    """
    generator = np.random.default_rng(seed)
    by_label: dict[str | None, list[Choice]] = {}
    for split, info in manifest.splits.items():
        for shard in info.shards:
            for label, count in ((None, shard.records - shard.labeled), *shard.classes.items()):
                own = (Choice(split, shard.file, label, place) for place in range(count))
                by_label.setdefault(label, []).extend(own)
    unlabeled = by_label.pop(None, [])
    groups = [by_label[label] for label in by_label]
    order = [unlabeled, *(groups[i] for i in generator.permutation(len(groups)))]
    shuffled = [[group[i] for i in generator.permutation(len(group))] for group in order]
    turns = itertools.zip_longest(*shuffled)
    chosen = [choice for turn in turns for choice in turn if choice is not None][:samples]
    shards = [shard.file for shard in manifest.shards]
    return sorted(chosen, key=lambda choice: (shards.index(choice.shard), choice.label or "", choice.place))
