"""Fewer labels, fewer samples, the protocols' defaults, and the order in which a source is read."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError, RecordError
from tf_records.plan import BuildOptions, plan_shards
from tf_records.schema import ClipSpec
from tf_records.sources.read import (
    PROTOCOLS,
    Protocol,
    SourceOptions,
    limit_samples,
    read_annotations,
    resolve_protocol,
    use_labels,
)
from tf_records.sources.sample import Annotations, Sample, keep_classes

CLASSES = ("bow", "clap", "wave")


@pytest.fixture
def source() -> Annotations:
    """Sorted by class, as JHMDB and THUMOS14 list them: 90 training samples, 9 unlabelled, 30 for testing."""
    samples = [
        Sample(
            id=f"{split}{number:03d}",
            video="v",
            path="/v",
            split=split,
            label=CLASSES[number * 3 // count] if labeled else None,
        )
        for split, count, labeled in (("train", 90, True), ("train", 9, False), ("test", 30, True))
        for number in range(1000 * (not labeled), count + 1000 * (not labeled))
    ]
    return Annotations(dataset="made-up", samples=tuple(samples), classes=CLASSES)


def labeled_ids(annotations: Annotations, split: str = "train") -> set[str]:
    return {s.id for s in annotations.samples if s.split == split and s.label is not None}


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.1, 9), (0.5, 45), (1.0, 90)])
def test_a_fraction_of_the_training_labels_is_kept(source: Annotations, fraction: float, count: int) -> None:
    result = use_labels(source, fraction, seed=0)
    assert len(labeled_ids(result)) == count
    assert labeled_ids(result, "test") == labeled_ids(source, "test")
    assert [s.id for s in result.samples] == [s.id for s in source.samples]
    assert result.classes == CLASSES
    assert result.options == {"label_fraction": fraction, "seed": 0}


def test_a_larger_fraction_keeps_what_a_smaller_one_keeps(source: Annotations) -> None:
    kept = [labeled_ids(use_labels(source, share / 10, seed=3)) for share in range(11)]
    assert all(fewer <= more for fewer, more in itertools.pairwise(kept))
    assert kept[5] != labeled_ids(use_labels(source, 0.5, seed=4))


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(source: Annotations, fraction: float) -> None:
    with pytest.raises(AnnotationError, match="`--label-fraction` should be from 0 to 1"):
        use_labels(source, fraction, seed=0)


def test_a_limit_keeps_a_mixture_of_each_split_in_the_sources_order(source: Annotations) -> None:
    result = limit_samples(source, 20, seed=0)
    assert Counter(s.split for s in result.samples) == {"train": 20, "test": 20}
    assert {s.label for s in result.samples if s.split == "test"} == set(CLASSES)
    assert {s.label for s in result.samples if s.split == "train"} >= set(CLASSES)
    order = [s.id for s in source.samples]
    assert [s.id for s in result.samples] == sorted((s.id for s in result.samples), key=order.index)
    assert result.options == {"limit": 20, "seed": 0}


def test_a_larger_limit_keeps_what_a_smaller_one_keeps(source: Annotations) -> None:
    few, more, all_of_it = (limit_samples(source, limit, seed=1).samples for limit in (5, 25, 1000))
    assert set(few) < set(more) < set(all_of_it)
    assert all_of_it == source.samples
    assert set(few) != set(limit_samples(source, 5, seed=2).samples)


def test_a_limit_does_not_prefer_samples_that_kept_their_label(source: Annotations) -> None:
    few = limit_samples(use_labels(source, 0.5, seed=0), 60, seed=0)
    train = [sample for sample in few.samples if sample.split == "train"]
    assert 15 < sum(sample.label is not None for sample in train) < 40


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(source: Annotations, limit: int) -> None:
    with pytest.raises(AnnotationError, match=f"`--limit` should be at least 1. Received: {limit}"):
        limit_samples(source, limit, seed=0)


def test_each_source_has_the_papers_protocol() -> None:
    expected = {
        "jhmdb": (8, 15, None, None),
        "csv": (8, 15, None, None),
        "synthetic": (8, 15, None, None),
        "epic55": (32, None, 1.0, None),
        "epic100": (32, None, 1.0, None),
        "thumos14": (16, None, 1.0, 16.0),
    }
    found = {
        name: (p.clip.clip_frames, p.clip.offset_frames, p.clip.anticipation_s, p.fps)
        for name, p in PROTOCOLS.items()
    }
    assert found == expected
    assert PROTOCOLS["thumos14"].lead_s == 2.0


def test_what_is_given_replaces_the_protocols_own() -> None:
    assert resolve_protocol("epic55") == PROTOCOLS["epic55"]
    assert resolve_protocol("epic55", offset_frames=20).clip == ClipSpec(clip_frames=32, offset_frames=20)
    assert resolve_protocol("csv", anticipation_s=0.5).clip == ClipSpec(clip_frames=8, anticipation_s=0.5)
    assert resolve_protocol("thumos14", clip_frames=8, fps=8.0) == Protocol(
        clip=ClipSpec(clip_frames=8, anticipation_s=1.0), fps=8.0
    )
    with pytest.raises(RecordError, match="Only one of"):
        resolve_protocol("csv", offset_frames=3, anticipation_s=0.5)
    with pytest.raises(RecordError, match="`fps` should be a number here"):
        _ = PROTOCOLS["epic55"].lead_s


def test_many_classes_are_not_all_listed_in_an_error() -> None:
    names = tuple(f"take thing{number}" for number in range(500))
    with pytest.raises(AnnotationError, match=r"names take thng7, .*take thing7, .*\(500 in all\)") as error:
        keep_classes(names, ("take thng7",))
    assert len(str(error.value)) < 300


@pytest.mark.slow
def test_pairs_are_mined_for_all_labels_whatever_is_kept_of_them(epic55: Path) -> None:
    def read(**options: object) -> Annotations:
        chosen = SourceOptions(source="epic55", path=epic55, need_videos=False, classes=("wash",), **options)
        return read_annotations(chosen, PROTOCOLS["epic55"])

    plain, mined = read(), read(unlabeled_per_label=0.5)
    half, few = (
        read(unlabeled_per_label=0.5, label_fraction=0.5),
        read(unlabeled_per_label=0.5, limit=100, seed=9),
    )
    labels = len(labeled_ids(plain))
    assert len(mined.samples) == len(plain.samples) + round(labels / 2)
    assert [s.id for s in half.samples] == [s.id for s in mined.samples]
    assert len(labeled_ids(half)) == round(labels / 2)
    assert set(few.samples) < set(mined.samples)
    assert len(few.samples) == 200
    assert {"target", "unlabeled_mining", "limit", "seed"} == set(few.options)


def test_what_is_left_out_changes_the_plan(source: Annotations) -> None:
    digests = {
        "".join(task.digest() for task in plan_shards(annotations, BuildOptions()))
        for annotations in (source, use_labels(source, 0.5, 0), limit_samples(source, 9, 0))
    }
    assert len(digests) == 3
