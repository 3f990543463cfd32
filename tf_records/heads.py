"""Several answers of one network: named heads, such as a verb and a noun, or several labels a clip.

A network has one row of logits. Its *columns* are the classes of the first head, then those of the second and
so on; a record has a label for each head, under a key of its own. Records without heads, as most are, have
one label of one class a clip, and a network's columns are the classes. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tf_records import schema

# Name of the one head of records whose clips have several labels.
LABELS = "labels"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One answer of a network.

    Args:
        name: such as "verb"; of letters, digits, - and _, since keys and outputs are named by it.
        classes: its own, in index order.
        several: a clip may have several of these classes at once: each is answered by a probability of its
            own. Else exactly one is right, and their probabilities sum to 1.
        ahead_s: seconds from the end of the clip to what this head names, where heads differ in that.
    """

    name: str
    classes: tuple[str, ...]
    several: bool = False
    ahead_s: float | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Head:
        """Inverse of `dataclasses.asdict`, also after JSON."""
        return cls(**{**fields, "classes": tuple(fields["classes"])})


Heads = tuple[Head, ...]


def time_heads(times_s: Sequence[float], classes: tuple[str, ...]) -> Heads:
    """A head for each anticipation time, all of the same classes.

    Example:
        >>> [head.name for head in time_heads((0.25, 1.0), ("take", "put"))]
        ['0.25s', '1s']
    """
    return tuple(Head(name=f"{time_s:g}s", classes=classes, ahead_s=time_s) for time_s in times_s)


def are_times(heads: Heads) -> bool:
    """Whether the heads name the same at several times ahead."""
    return any(head.ahead_s is not None for head in heads)


def heads_from(fields: Sequence[Mapping[str, Any]] | None) -> Heads:
    """Of a JSON file; none where it says nothing."""
    return tuple(Head.from_dict(each) for each in fields or ())


def columns(heads: Heads) -> tuple[str, ...]:
    """Names of a network's logits: "verb: take" where there are several heads, the classes where one.

    Example:
        >>> columns((Head(name="verb", classes=("take", "put")), Head(name="noun", classes=("cup",))))
        ('verb: take', 'verb: put', 'noun: cup')
    """
    if len(heads) == 1:
        return heads[0].classes
    return tuple(f"{head.name}: {name}" for head in heads for name in head.classes)


def column_slices(heads: Heads) -> dict[str, slice]:
    """Head → its columns.

    Example:
        >>> column_slices((Head(name="verb", classes=("take", "put")), Head(name="noun", classes=("cup",))))
        {'verb': slice(0, 2, None), 'noun': slice(2, 3, None)}
    """
    slices, first = {}, 0
    for head in heads:
        slices[head.name] = slice(first, first + len(head.classes))
        first += len(head.classes)
    return slices


def label_keys(heads: Heads) -> tuple[tuple[str, str], ...]:
    """The keys of index and name of a record's label, for each head, or the one pair of all other records."""
    if len(heads) < 2:
        return ((schema.LABEL_INDEX, schema.LABEL_STRING),)
    return tuple((f"clip/label/{head.name}/index", f"clip/label/{head.name}/string") for head in heads)


def names_of_heads(labels: Sequence[str], heads: Heads) -> tuple[tuple[str, ...], ...]:
    """A sample's labels, head by head; none where a head has no label.

    Args:
        labels: of a sample: all that it has of one head, or one of each of several, "" for none.
        heads: at least one.
    """
    if len(heads) == 1:
        return (tuple(labels),)
    return tuple((label,) if label else () for label in labels)


def labeled_columns(labels: Sequence[str], heads: Heads) -> tuple[str, ...]:
    """Names of the columns that a sample's labels say are right."""
    if len(heads) == 1:
        return tuple(labels)
    return tuple(f"{head.name}: {label}" for head, label in zip(heads, labels, strict=False) if label)


def first_column(label: Any, heads: Heads) -> int:
    """A column that a record's label says is right, of the last head that has one; -1 without a label.

    Args:
        label: an int, or ints `(n,)`, see `tf_records.reader.label_of`.
        heads: of the records.
    """
    if not heads:
        return int(label)
    numbers = [int(number) for number in label]
    if heads[0].several:
        return numbers.index(1) if 1 in numbers else schema.UNLABELED
    known = [(number, part) for number, part in zip(numbers, column_slices(heads).values(), strict=True)]
    return next((part.start + number for number, part in reversed(known) if number >= 0), schema.UNLABELED)


def describe_heads(heads: Heads) -> str:
    """Such as "verb (125 classes), noun (352 classes)"."""
    return ", ".join(
        f"{head.name} ({len(head.classes)} classes{', several a clip' if head.several else ''})"
        for head in heads
    )
