"""Unlabelled pairs: where they may lie, how many, and that the draw can be repeated."""

import dataclasses
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError
from tf_records.schema import ClipSpec
from tf_records.sources.epic_kitchens import read_epic55
from tf_records.sources.jhmdb import read_jhmdb
from tf_records.sources.mining import free_stretches, merge, mine_pairs
from tf_records.sources.sample import Annotations, Footage, Sample, Segment
from tf_records.sources.thumos14 import read_thumos14

CLIP = ClipSpec(clip_frames=10, anticipation_s=1.0)
FPS = 20.0


def annotate(*actions: tuple[str, float, float, str], lengths: dict[str, float | None]) -> Annotations:
    """Labelled samples (video, start, end, split) in videos of these lengths."""
    return Annotations(
        dataset="made-up",
        samples=tuple(
            Sample(id=f"{v}@{a}", video=v, path=f"/{v}", split=s, label="wave", start_s=a, end_s=b)
            for v, a, b, s in actions
        ),
        classes=("wave",),
        segments=tuple(Segment(video=v, start_s=a, end_s=b, split=s) for v, a, b, s in actions),
        footage={name: Footage(path=f"/{name}", fps=FPS, duration_s=end) for name, end in lengths.items()},
    )


def mined(annotations: Annotations) -> list[Sample]:
    return [sample for sample in annotations.samples if sample.label is None]


def spans(
    annotations: Annotations, clip: ClipSpec, fps: float | None = None
) -> list[tuple[str, float, float]]:
    """(video, first, last moment) of the mined pairs, on a clock of `fps` or the videos' own."""
    rates = {s.video: fps or annotations.footage[s.video].fps for s in mined(annotations)}
    leads = {rate: clip.offset_at(rate) / rate for rate in rates.values()}
    return [(s.video, s.start_s - leads[rates[s.video]], s.end_s) for s in mined(annotations)]


def assert_clear(
    annotations: Annotations, clip: ClipSpec, vicinity_s: float, fps: float | None = None
) -> None:
    """No mined pair touches an annotation or a tested video, and each is near a training sample."""
    tested = {segment.video for segment in annotations.segments if segment.split != "train"}
    annotated = defaultdict(list)
    for segment in annotations.segments:
        annotated[segment.video].append((segment.start_s, segment.end_s))
    trained = defaultdict(list)
    for s in annotations.samples:
        if s.split == "train" and s.label is not None:
            trained[s.video].append((s.start_s - vicinity_s, s.end_s + vicinity_s))
    for video, first, last in spans(annotations, clip, fps):
        assert video not in tested
        assert first >= 0
        assert all(last < start or first > stop for start, stop in annotated[video])
        for moment in (first, last):
            assert any(start <= moment <= stop for start, stop in trained[video])


def test_pairs_lie_between_annotations_near_training_actions() -> None:
    source = annotate(("a", 30, 31, "train"), ("a", 35, 36, "train"), lengths={"a": 100.0})
    result = mine_pairs(source, CLIP, None, per_label=100, vicinity_s=8)
    assert len(mined(result)) == 200
    assert_clear(result, CLIP, 8)
    first, last = (f(m for _, *ms in spans(result, CLIP) for m in ms) for f in (min, max))
    assert 22 <= first < 22.5
    assert 43.5 < last <= 44


def test_as_many_as_fit_are_drawn_each_once_and_a_note_says_so() -> None:
    """Frames 200 to 249 are free; pairs take 40 (10 + 20 + 10) and leave one clear on either side."""
    source = annotate(("a", 0, 10, "train"), ("a", 12.5, 20, "train"), lengths={"a": 20.5})
    result = mine_pairs(source, CLIP, None, per_label=50)
    assert sorted(round(first * FPS) for _, first, _ in spans(result, CLIP)) == list(range(202, 210))
    drawn = {"per_label": 50, "vicinity_s": 10.0, "seed": 0, "asked": 100, "drawn": 8}
    assert result.options == {"unlabeled_mining": drawn}
    assert result.notes == ("Only 8 of 100 unlabelled pairs have room within 10 s of an action.",)


def test_a_video_with_anything_to_test_gives_no_pair() -> None:
    source = annotate(
        ("a", 30, 31, "train"), ("a", 90, 91, "test"), ("b", 30, 31, "train"), lengths={"a": 99.0, "b": 99.0}
    )
    assert {s.video for s in mined(mine_pairs(source, CLIP, None, per_label=20))} == {"b"}


def test_stretches_of_left_out_classes_count_as_annotated() -> None:
    source = annotate(("a", 30, 31, "train"), ("a", 33.5, 60, "train"), lengths={"a": 99.0})
    one = dataclasses.replace(source, samples=source.samples[:1])
    result = mine_pairs(one, CLIP, None, per_label=300, vicinity_s=3)
    assert_clear(result, CLIP, 3)
    assert any(first > 31 for _, first, _ in spans(result, CLIP))


def test_an_unknown_length_ends_with_the_last_annotation() -> None:
    source = annotate(("a", 30, 31, "train"), ("a", 35, 36, "train"), lengths={"a": None})
    assert max(last for *_, last in spans(mine_pairs(source, CLIP, None, per_label=50), CLIP)) < 35


def test_videos_of_unknown_rate_are_named_unless_a_clock_is_given() -> None:
    source = annotate(("a", 30, 31, "train"), lengths={"a": 99.0})
    blind = dataclasses.replace(source, footage={"a": Footage(path="/a", duration_s=99.0)})
    result = mine_pairs(blind, CLIP, None, per_label=1)
    assert mined(result) == []
    assert "No unlabelled pairs from 1 videos of unknown rate: a. Give --fps." in result.notes
    (sample,) = mined(mine_pairs(blind, CLIP, 10.0, per_label=1))
    assert sample.end_s - sample.start_s == pytest.approx(1.0)


def test_the_same_seed_draws_the_same_pairs() -> None:
    source = annotate(("a", 30, 31, "train"), ("b", 30, 31, "train"), lengths={"a": 99.0, "b": 99.0})
    first, again, other = (mine_pairs(source, CLIP, None, per_label=9, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert mined(first) != mined(other)
    assert len({s.id for s in first.samples}) == len(first.samples) == 20
    counts = mine_pairs(source, CLIP, None, per_label=150)
    assert min(Counter(s.video for s in mined(counts)).values()) > 100


def test_mined_samples_are_unlabelled_training_samples_of_one_clip() -> None:
    source = annotate(("a", 30, 31, "train"), lengths={"a": 99.0})
    for sample in mined(mine_pairs(source, CLIP, None, per_label=5)):
        assert (sample.split, sample.label, sample.path) == ("train", None, "/a")
        assert sample.end_s - sample.start_s == pytest.approx(10 / FPS)
        assert (sample.start_s * FPS) == pytest.approx(round(sample.start_s * FPS))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"per_label": -1}, r"`--unlabeled-per-label` should be .*Received: -1"),
        ({"per_label": float("nan")}, "Received: nan"),
        ({"per_label": 1, "vicinity_s": float("inf")}, "`--vicinity-s` should be .*Received: inf"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        mine_pairs(annotate(("a", 3, 4, "train"), lengths={"a": 9.0}), CLIP, None, **options)


def test_jhmdb_has_nothing_to_mine(jhmdb: Path) -> None:
    with pytest.raises(AnnotationError, match="the videos of jhmdb do not"):
        mine_pairs(read_jhmdb(jhmdb), CLIP, None, per_label=1)


def test_stretches_are_merged_and_cut() -> None:
    assert merge([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
    assert free_stretches([(-5, 4), (3, 20)], [(2, 3), (6, 7), (6.5, 9)], 15) == [(0, 2), (3, 6), (9, 15)]
    assert free_stretches([(1, 2)], [(0, 3)], 15) == []


@pytest.mark.slow
def test_the_papers_26391_pairs_fit_into_the_real_annotations(epic55: Path) -> None:
    source = read_epic55(epic55, need_videos=False)
    clip = ClipSpec(clip_frames=32, anticipation_s=1.0)
    result = mine_pairs(source, clip, None, per_label=26391 / 23191)
    assert len(mined(result)) == 26391
    assert result.options["unlabeled_mining"]["drawn"] == 26391
    assert {s.video for s in mined(result)}.isdisjoint(s.video for s in source.samples if s.split == "test")
    assert len({s.id for s in result.samples}) == len(result.samples)
    assert_clear(result, clip, 10)


def test_thumos_pairs_stay_out_of_ambiguous_stretches(thumos14: Path) -> None:
    clip = ClipSpec(clip_frames=16, anticipation_s=1.0)
    result = mine_pairs(read_thumos14(thumos14, need_videos=False), clip, 16.0, per_label=0.2)
    assert len(mined(result)) == 594
    assert_clear(result, clip, 10, 16.0)
