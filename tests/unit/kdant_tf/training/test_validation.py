"""Validation after each epoch, and the network that is kept for it."""

import json

import keras
import numpy as np
import pytest

from kdant_tf.config import ConfigError, Execution, TrainConfig
from kdant_tf.runs import best_epoch, load_run, read_metrics
from kdant_tf.training.callbacks import BestNetwork, best_network
from kdant_tf.training.job import choose_labels
from kdant_tf.training.train import train
from tf_records.errors import RecordError
from tf_records.reader import evaluation_batches
from tf_records.records import Records

pytestmark = pytest.mark.slow

TINY = {"model": "tiny_network:build", "crop": 32, "batch_size": 4, "windows": 2}
CPU = Execution(devices="cpu")


class _Recorded(keras.callbacks.Callback):
    """A callback of a user's own, which stops at nothing but sees the logs."""

    def __init__(self):
        super().__init__()
        self.logs_of_epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs_of_epochs.append(dict(logs))


@pytest.fixture(scope="module")
def teacher(record_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("validated") / "teacher"
    config = TrainConfig(**TINY, epochs=3, validation_fraction=0.25)
    recorded = _Recorded()
    result = train(record_folder, out, config, execution=CPU, callbacks=[recorded])
    return out, config, result, recorded.logs_of_epochs


def validate_by_hand(run, records, split, view, chosen):
    """Loss, accuracy and mean class accuracy, one clip at a time."""
    network = keras.saving.load_model(run / "model.keras", compile=False)
    sums, labels = {}, {}
    batches = evaluation_batches(records, split=split, view=view, batch_size=1, crop=32, windows=2)
    for batch in batches.as_numpy_iterator():
        index, label = int(batch["index"][0]), int(batch["label"][0])
        if label >= 0 and chosen[index]:
            logits = np.asarray(network(batch["clip"], training=False)["logits"], "float64")[0]
            sums.setdefault(index, []).append(
                np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            )
            labels[index] = label
    means = {index: np.mean(values, axis=0) for index, values in sums.items()}
    right = {index: means[index].argmax() == labels[index] for index in means}
    classes = sorted(set(labels.values()))
    of_class = [[right[index] for index in right if labels[index] == name] for name in classes]
    losses = [-np.log(max(means[index][labels[index]], 1e-7)) for index in means]
    return np.mean(losses), np.mean(list(right.values())), np.mean([np.mean(each) for each in of_class])


def test_a_teacher_is_validated_on_held_out_videos_and_the_best_is_kept(teacher, record_folder):
    out, config, result, logs_of_epochs = teacher
    rows = read_metrics(out / "metrics.csv")
    assert [row["validation_accuracy"] for row in rows] == [
        logs["validation_accuracy"] for logs in logs_of_epochs
    ]
    best = best_epoch(rows)
    assert (result.best_epoch, result.validation_accuracy) == (best, rows[best - 1]["validation_accuracy"])
    records = Records.open(record_folder)
    held_out = choose_labels(records, config).held_out
    loss, accuracy, class_accuracy = validate_by_hand(out, records, "train", "future", held_out)
    assert rows[best - 1]["validation_loss"] == pytest.approx(loss, rel=1e-4)
    assert rows[best - 1]["validation_accuracy"] == pytest.approx(accuracy)
    assert rows[best - 1]["validation_mean_class_accuracy"] == pytest.approx(class_accuracy)


def test_a_student_is_validated_on_the_observed_view_of_a_named_split(teacher, record_folder, tmp_path):
    config = TrainConfig(**TINY, epochs=1, validation_split="test")
    lines = []
    run = load_run(teacher[0])
    train(record_folder, tmp_path / "student", config, teacher=run, execution=CPU, report=lines.append)
    assert any("8 labelled samples of split 'test'. They choose the best epoch" in line for line in lines)
    (row,) = read_metrics(tmp_path / "student" / "metrics.csv")
    by_hand = validate_by_hand(
        tmp_path / "student", Records.open(record_folder), "test", "observed", np.full(8, True)
    )
    names = ("validation_loss", "validation_accuracy", "validation_mean_class_accuracy")
    assert [row[name] for name in names] == pytest.approx(by_hand, rel=1e-4)


def test_frame_mlp_is_validated_on_its_cached_features(record_folder, tiny_backbone, tmp_path):
    settings = {**TINY, "model": "frame-mlp", "backbone": tiny_backbone, "init": "random", "epochs": 1}
    for name, chosen in (("a", {"validation_fraction": 0.25}), ("b", {"validation_split": "test"})):
        result = train(record_folder, tmp_path / name, TrainConfig(**settings, **chosen), execution=CPU)
        assert 0 <= result.validation_accuracy <= 1


def test_two_networks_are_kept_and_the_better_one_wins(tmp_path):
    keeper = BestNetwork(tmp_path, lambda folder: (folder / "model.keras").write_text("x"))
    keeper.on_train_begin()
    for epoch, accuracy in enumerate((0.5, 0.7, 0.6, 0.8)):
        keeper.on_epoch_end(epoch, {"validation_accuracy": accuracy, "validation_loss": 1.0})
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["epoch-0002", "epoch-0004"]
    assert best_network(tmp_path) is None  # metrics.csv is the checkpoints' to write


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([], None),
        ([(0.5, 1.0)], 1),
        ([(0.5, 1.0), (0.6, 2.0)], 2),
        ([(0.6, 2.0), (0.6, 1.0)], 2),
        ([(0.6, 1.0), (0.6, 1.0)], 1),
        ([(np.nan, np.nan)], None),
        ([(np.nan, np.nan), (0.1, np.inf)], 2),
        ([(0.2, 1.0), (np.nan, np.nan)], 1),
    ],
)
def test_ties_go_to_the_lower_loss_then_to_the_earlier_and_nan_is_never_best(rows, best):
    table = [
        {"epoch": number + 1, "validation_accuracy": accuracy, "validation_loss": loss}
        for number, (accuracy, loss) in enumerate(rows)
    ]
    assert best_epoch(table) == best


def test_nothing_is_kept_of_an_epoch_whose_validation_is_nan(tmp_path):
    keeper = BestNetwork(tmp_path, lambda folder: (folder / "model.keras").write_text("x"))
    keeper.on_train_begin()
    keeper.on_epoch_end(0, {"validation_accuracy": np.nan, "validation_loss": np.nan})
    assert not (tmp_path / "best").exists()
    keeper.on_epoch_end(1, {"validation_accuracy": 0.1, "validation_loss": 9.0})
    keeper.on_epoch_end(2, {"validation_accuracy": np.nan, "validation_loss": np.nan})
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["epoch-0002"]


def test_what_cannot_be_validated_on_is_refused(record_folder, tmp_path):
    with pytest.raises(RecordError, match=r"no records in split 'val'.*train, test"):
        train(record_folder, tmp_path, TrainConfig(**TINY, validation_split="val"), execution=CPU)
    for settings in ({"validation_split": "train"}, {"validation_split": "val", "validation_fraction": 0.1}):
        with pytest.raises(ConfigError, match=r"`validation_split` should be"):
            TrainConfig(**settings)
    with pytest.raises(ConfigError, match=r"`validation_fraction` should be from 0 to below 1"):
        TrainConfig(validation_fraction=1.0)


def test_config_json_keeps_the_settings_of_validation(teacher):
    config = json.loads((teacher[0] / "config.json").read_text("utf-8"))["config"]
    assert (config["validation_fraction"], config["validation_split"]) == (0.25, None)
