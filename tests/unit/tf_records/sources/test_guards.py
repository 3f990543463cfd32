"""Stretches in two splits, several labels on one stretch, classes that look alike, control characters."""

import dataclasses

import pytest

from tf_records.errors import AnnotationError
from tf_records.sources.guards import count_twice_labeled, find_alike, find_overlaps, guard
from tf_records.sources.sample import Annotations, Sample


def sample(split: str, start_s: float | None, end_s: float | None, video: str = "a.mp4", label: str = "wave"):
    return Sample(
        id=f"{video}@{start_s}-{end_s} {label} {split}",
        video=video,
        path=f"/{video}",
        split=split,
        label=label,
        start_s=start_s,
        end_s=end_s,
    )


@pytest.mark.parametrize(
    ("train", "test", "shared"),
    [
        ((1, 2), (1, 2), True),
        ((0, 5), (2, 3), True),
        ((2, 3), (0, 5), True),
        ((1, 2), (1.9, 3), True),
        ((1, 2), (2, 3), False),
        ((2, 3), (1, 2), False),
        ((0, 0.1 + 0.2), (0.3, 1), False),  # 0.1 + 0.2 is a little more than 0.3
        ((None, None), (7, 8), True),
        ((7, 8), (None, None), True),
    ],
)
def test_a_stretch_in_two_splits_is_found(train, test, shared: bool) -> None:
    lines = find_overlaps([sample("train", *train), sample("test", *test)])
    assert len(lines) == shared
    assert all(line.startswith("a.mp4") and line.endswith(" is in train and in test") for line in lines)
    assert find_overlaps([sample("train", *train), sample("test", *test, video="b.mp4")]) == ()


def test_each_sample_that_shares_time_is_named_once_a_pair_of_splits() -> None:
    samples = [
        *(sample("train", start, start + 2) for start in (0, 1, 2, 20)),
        sample("val", 1.5, 2),
        sample("test", 3, 5),
        sample("test", 10, 11),
        sample("test", 3, 5, label="clap"),
    ]
    assert find_overlaps(samples) == (
        "a.mp4 1.5 to 2 s is in train and in val",
        "a.mp4 3 to 5 s is in train and in test",
    )


def test_the_manifest_counts_stretches_in_two_splits() -> None:
    clean = Annotations(
        dataset="csv", samples=(sample("train", 0, 1), sample("test", 1, 2)), classes=("wave",)
    )
    assert guard(clean) == clean
    leaky = guard(dataclasses.replace(clean, samples=(*clean.samples, sample("test", 0.5, 1.5))))
    assert leaky.overlaps == ("a.mp4 0.5 to 1.5 s is in train and in test",)
    assert leaky.options == {"stretches_in_two_splits": 1}


def test_several_labels_on_one_stretch_are_counted_by_split() -> None:
    samples = [
        sample("train", 0, 1),
        sample("train", 0, 1, label="clap"),
        sample("train", 0, 1, label="bow"),
        sample("train", 0, 2),
        sample("test", 0, 1, label="clap"),
    ]
    assert count_twice_labeled(samples) == {"train": 1}


@pytest.mark.parametrize(
    "names",
    [
        ("Run", "run"),
        ("caf\u00e9", "cafe\u0301"),
        ("wave", "wa\u200bve"),
        ("pick up", "pick  up"),
        ("run", "\uff52un"),
    ],
    ids=ascii,
)
def test_classes_that_look_alike_are_told_apart_in_words(names: tuple[str, str]) -> None:
    assert find_alike(("bow", *names)) == [list(names)]
    annotations = Annotations(dataset="csv", samples=(), classes=("bow", *names))
    (note,) = guard(annotations).notes
    assert "look alike" in note
    shown = note.split(": ")[1].split(". If")[0].split(", ")
    assert len(set(shown)) == 2
    assert "bow" not in note


def test_classes_of_one_word_more_are_not_alike() -> None:
    assert find_alike(("run", "run up", "runs", "straße", "strase")) == []


@pytest.mark.parametrize("where", ["class", "video"])
def test_control_characters_are_refused_and_not_printed(where: str) -> None:
    bad = "a\x1b[31m"
    annotations = Annotations(
        dataset="jhmdb",
        samples=(sample("train", 0, 1, video=bad if where == "video" else "a.mp4"),),
        classes=(bad if where == "class" else "wave",),
    )
    with pytest.raises(AnnotationError, match=f"The name of a {where} should hold no control") as error:
        guard(annotations)
    assert "\x1b" not in str(error.value)
