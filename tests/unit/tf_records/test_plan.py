"""Which sample goes into which shard."""

import pytest

from tf_records.plan import BuildOptions, dry_run_summary, plan_shards
from tf_records.schema import FlowInfo
from tf_records.sources.sample import Annotations, Sample


def annotations(train: int, test: int) -> Annotations:
    samples = [
        Sample(
            id=f"{split}{number:04d}",
            video=f"{split}{number}.mp4",
            path=f"/videos/{split}{number}.mp4",
            split=split,
            label=None if split == "train" and number % 3 == 0 else "wave",
        )
        for split, count in (("test", test), ("train", train))
        for number in range(count)
    ]
    return Annotations(dataset="csv", samples=tuple(samples), classes=("wave",))


def test_every_sample_is_in_one_shard_of_its_split() -> None:
    source = annotations(200, 70)
    tasks = plan_shards(source, BuildOptions())
    assert [task.file for task in tasks] == [f"train-0000{i}-of-00004.tfrecord" for i in range(4)] + [
        f"test-0000{i}-of-00002.tfrecord" for i in range(2)
    ]
    dealt = [sample.id for task in tasks for sample in task.samples]
    assert sorted(dealt) == sorted(sample.id for sample in source.samples)
    assert all(sample.split == task.split for task in tasks for sample in task.samples)
    assert max(len(task.samples) for task in tasks) <= 64


def test_shards_with_flow_are_smaller() -> None:
    """A shard is what a killed build loses, and TV-L1 takes most of a minute a record."""
    flow = FlowInfo(algorithm="tvl1", parameters={}, bound=20.0, opencv="5.0.0")
    tasks = plan_shards(annotations(33, 16), BuildOptions(modality="rgb,flow", flow=flow))
    assert [len(task.samples) for task in tasks] == [11, 11, 11, 16]


def test_training_samples_are_mixed_and_test_samples_keep_their_order() -> None:
    tasks = plan_shards(annotations(50, 50), BuildOptions())
    train, test = ([sample.id for sample in task.samples] for task in tasks)
    assert train != sorted(train)
    assert test == sorted(test)


def test_training_order_does_not_depend_on_the_sources_order() -> None:
    source = annotations(50, 0)
    turned = Annotations(dataset="csv", samples=source.samples[::-1], classes=source.classes)
    assert plan_shards(source, BuildOptions()) == plan_shards(turned, BuildOptions())


@pytest.mark.parametrize(("wanted", "made"), [(1, 1), (3, 3), (5, 5), (50, 5)])
def test_shards_can_be_counted_out_but_none_is_empty(wanted: int, made: int) -> None:
    tasks = plan_shards(annotations(5, 0), BuildOptions(shards=wanted))
    assert len(tasks) == made
    assert all(task.samples for task in tasks)


def test_a_digest_changes_with_what_decides_the_bytes() -> None:
    (task,) = plan_shards(annotations(5, 0), BuildOptions())
    (same,) = plan_shards(annotations(5, 0), BuildOptions())
    (smaller,) = plan_shards(annotations(5, 0), BuildOptions(short_side=128))
    (longer,) = plan_shards(annotations(6, 0), BuildOptions())
    assert task.digest() == same.digest()
    assert len({task.digest(), smaller.digest(), longer.digest()}) == 3


def test_a_dry_run_counts_what_would_be_written() -> None:
    summary = dry_run_summary(annotations(200, 70), BuildOptions())
    nothing = {"seconds": 0, "bytes": 0}
    assert summary["splits"] == {
        "train": {
            "samples": 200,
            "labeled": 133,
            "unlabeled": 67,
            "shards": 4,
            "classes": {"wave": 133},
            **nothing,
        },
        "test": {
            "samples": 70,
            "labeled": 70,
            "unlabeled": 0,
            "shards": 2,
            "classes": {"wave": 70},
            **nothing,
        },
    }
