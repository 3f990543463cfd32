"""A network that learns nothing, or loses what it knew, is warned of once; one that learns is not."""

import math
from pathlib import Path

import numpy as np
import pytest

from kdant_tf.config import TrainConfig
from kdant_tf.training.loop import EpochMeter
from kdant_tf.training.train import train
from kdant_tf.training.training_warnings import ChanceWatch

CHANCE, LABELED = 0.2, 400
ERROR = math.sqrt(0.2 * 0.8 / 400)  # 0.02


def warnings_of(accuracies: list[float], **options) -> list[str]:
    lines: list[str] = []
    watch = ChanceWatch(lines.append, **{"epochs": len(accuracies), **options})
    for epoch, accuracy in enumerate(accuracies):
        before = len(lines)
        watch.on_epoch_end(epoch, {"accuracy": accuracy, "labeled": LABELED, "chance": CHANCE})
        lines[before:] = [f"{epoch + 1}| {line}" for line in lines[before:]]
    return lines


def test_accuracy_that_stays_at_chance_is_said_once():
    (line,) = warnings_of([0.19, 0.24, 0.2, 0.22, 0.18, 0.2])
    assert line.startswith("3| Warning: epoch 3: training accuracy stays at chance: 20.0%, where naming")
    assert "most frequent label each time gives 20.0%. Lower --learning-rate" in line


def test_a_long_training_has_a_tenth_of_its_epochs():
    assert warnings_of([0.2] * 7, epochs=80) == []
    assert warnings_of([0.2] * 9, epochs=80)[0].startswith("8| ")


def test_accuracy_that_falls_to_chance_is_said_after_two_epochs():
    (line,) = warnings_of([0.2, 0.3, 0.5, 0.23, 0.2, 0.2, 0.2])
    assert line.startswith("5| Warning: epoch 5: training accuracy has fallen to chance: 20.0%, where naming")


@pytest.mark.parametrize(
    "accuracies",
    [
        [0.2, 0.2, 0.25, 0.2, 0.2, 0.25, 0.2, 0.2],  # never three in a row
        [0.2, 0.27, 0.2, 0.2, 0.3, 0.2, 0.3],  # 3.5 errors above is not clearly above, and once is no fall
        [0.2, 0.2, 0.3, 0.5, 0.7, 0.9],
        [math.nan] * 5,
    ],
)
def test_others_are_not(accuracies):
    assert CHANCE + 2 * ERROR < 0.25
    assert warnings_of(accuracies) == []


def test_warm_up_and_epochs_without_labels_do_not_count():
    assert warnings_of([0.2] * 6, warmup_epochs=4) == []
    assert warnings_of([0.2] * 7, warmup_epochs=3.5)[0].startswith("7| ")
    watch = ChanceWatch(lambda line: pytest.fail(line), epochs=3)
    for epoch in range(9):
        watch.on_epoch_end(epoch, {"accuracy": math.nan, "labeled": 0.0, "chance": math.nan})


def test_a_resumed_training_remembers():
    lines: list[str] = []
    logs = {"accuracy": CHANCE, "labeled": LABELED, "chance": CHANCE}
    first, second, third = (ChanceWatch(lines.append, epochs=5) for _ in range(3))
    first.on_epoch_end(0, logs)
    first.on_epoch_end(1, logs)
    second.set_state(first.get_state())
    second.on_epoch_end(2, logs)
    assert len(lines) == 1
    third.set_state(second.get_state())
    for epoch in range(3, 9):
        third.on_epoch_end(epoch, logs)
    assert len(lines) == 1


def test_chance_is_the_share_of_the_most_frequent_label():
    meter = EpochMeter()
    losses = {"loss": 1.0, "correct": 1.0, "labeled": 3.0}
    meter.add(losses, 4, [2, -1, 0, 2])
    resumed = EpochMeter()
    resumed.set_state(meter.get_state())
    resumed.add(losses, 4, [np.int64(2), -1, 1, 2])
    logs = resumed.logs()
    assert (logs["labeled"], logs["chance"]) == (6.0, 4 / 6)
    empty = EpochMeter()
    empty.add({"loss": 1.0, "correct": 0.0, "labeled": 0.0}, 2, [-1, -1])
    assert math.isnan(empty.logs()["chance"])


@pytest.mark.slow
def test_a_training_that_learns_nothing_says_so(record_folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "e2e"))
    config = TrainConfig(
        model="killed_training:build", crop=32, batch_size=8, epochs=4, learning_rate=1e-9, momentum=0.0
    )
    lines: list[str] = []
    train(record_folder, tmp_path / "run", config, report=lines.append)
    assert [line for line in lines if line.startswith("Warning: epoch 3: training accuracy stays at chance")]
