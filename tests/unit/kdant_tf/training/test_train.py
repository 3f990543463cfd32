"""`train` from Python: what it takes, what it gives, and what it refuses before it builds a network."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.run_list import list_runs
from kdant_tf.runs import Run, load_run, read_metrics, weights_sha256
from kdant_tf.training.loop import NotFiniteError
from kdant_tf.training.train import TrainResult, train
from tf_records.errors import KdantError
from tf_records.files import lock_folder

pytestmark = pytest.mark.slow

CPU = Execution(devices="cpu")
SETTINGS = {"model": "test_train:build", "crop": 32, "batch_size": 8, "epochs": 1}


def build(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
    clip = layers.Input(input_shape)
    x = layers.Conv3D(4, 1, (2, 8, 8), activation="relu")(clip)
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "map": x})


@pytest.fixture(scope="module")
def teacher(record_folder, tmp_path_factory) -> TrainResult:
    out = tmp_path_factory.mktemp("train") / "teacher"
    config = TrainConfig(**SETTINGS, validation_fraction=0.25)
    return train(str(record_folder), str(out), config, execution=CPU)


def test_the_result_is_typed_and_names_the_run(teacher):
    assert isinstance(teacher.run, Run)
    assert teacher.run.folder.name == "teacher"
    assert teacher.run == load_run(teacher.run.folder)
    assert teacher.run.network_sha256 == weights_sha256(teacher.run.model_path)
    assert (teacher.epochs, teacher.best_epoch, teacher.left_out) == (1, 1, ())
    assert teacher.final_loss > 0
    assert 0 <= teacher.validation_accuracy <= 1
    assert teacher.clips_per_second > 0


def test_the_result_as_json(teacher):
    printed = json.loads(json.dumps(teacher.to_dict(), allow_nan=False))
    assert printed["run"] == str(teacher.run.folder)
    assert printed["left_out"] == []
    assert printed["xla"] == "nothing"
    assert set(printed) == {
        *("run", "epochs", "final_loss", "best_epoch", "validation_accuracy", "clips_per_second"),
        *("left_out", "xla"),
    }


def test_a_teacher_may_be_its_runs_folder_in_text(record_folder, teacher, tmp_path):
    """The next test gives the run, and its folder as a path."""
    given = str(teacher.run.folder)
    result = train(record_folder, tmp_path / "student", TrainConfig(**SETTINGS), teacher=given, execution=CPU)
    assert (result.run.role, result.run.teacher) == ("student", given)
    assert result.validation_accuracy is None


def test_a_student_is_resumed_with_its_teacher_elsewhere_and_with_no_other(record_folder, teacher, tmp_path):
    moved, out = tmp_path / "moved", tmp_path / "student"
    shutil.copytree(teacher.run.folder, moved)
    train(record_folder, out, TrainConfig(**SETTINGS), teacher=teacher.run, execution=CPU)
    longer = TrainConfig(**{**SETTINGS, "epochs": 2})
    result = train(record_folder, out, longer, teacher=moved, execution=CPU, resume=True)
    assert (result.epochs, load_run(out).teacher) == (2, str(moved))
    network = keras.saving.load_model(moved / "model.keras")
    network.set_weights([2 * values for values in network.get_weights()])
    network.save(moved / "model.keras")
    with pytest.raises(KdantError, match=r"settings: the weights of teacher .*moved, which are not"):
        train(record_folder, out, longer, teacher=moved, execution=CPU, resume=True)


def test_a_teacher_that_is_no_run_is_refused_in_the_command_lines_words(record_folder, tmp_path):
    with pytest.raises(KdantError) as expected:
        load_run(tmp_path / "none")
    with pytest.raises(KdantError) as error:
        train(record_folder, tmp_path / "out", TrainConfig(**SETTINGS), teacher=tmp_path / "none")
    assert str(error.value) == str(expected.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [{"batch_size": 16}, {"batch_size": 12, "validation_fraction": 0.25}])
def test_a_network_that_answers_nan_after_its_last_step_is_not_kept(record_folder, tmp_path, settings):
    config = TrainConfig(**{**SETTINGS, "learning_rate": 1e30, **settings})
    with pytest.raises(NotFiniteError, match=r"not finite after epoch 1, though the loss .*--overwrite"):
        train(record_folder, tmp_path, config, execution=CPU)
    assert not (tmp_path / "model.keras").exists()
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert np.isfinite(row["loss"])
    assert np.isnan(row.get("validation_accuracy", np.nan))
    assert not list((tmp_path / "best").glob("*"))


@pytest.mark.parametrize(
    ("settings", "devices", "message"),
    [
        ({"batch_size": 7}, "cpu:2", r"Batch size 7 should be a multiple of the 2 devices"),
        ({"batch_size": 17}, "cpu", r"Batch size 17 is larger than the 16 training samples"),
        ({"label_fraction": 0.25}, "cpu", r"Batch size 8 is larger than the 4 training samples"),
        ({"clip_frames": 9}, "cpu", r"9"),
        ({"model": "tsn", "segments": 9}, "cpu", r"`segments` should be at most the 8 frames.*9"),
        ({"model": "tsn", "backbone": "VGG16"}, "cpu", r"`backbone` should be one of ResNet50.*VGG16"),
        ({"endpoint": "Mixed_4g"}, "cpu", r"`endpoint`.*Mixed_4f.*Mixed_4g"),
        ({}, "tpu", r"`--devices` should be"),
    ],
)
def test_what_does_not_fit_is_refused(record_folder, tmp_path, settings, devices, message):
    config = TrainConfig(**{"crop": 32, "width": 0.0625, "batch_size": 8, "epochs": 1, **settings})
    with pytest.raises(KdantError, match=message):
        train(record_folder, tmp_path / "run", config, execution=Execution(devices=devices))
    assert not (tmp_path / "run").exists()


def test_two_trainings_in_one_folder_are_refused(record_folder, tmp_path: Path):
    config = TrainConfig(crop=32, width=0.0625, batch_size=8, epochs=1)
    with lock_folder(tmp_path, "training"), pytest.raises(KdantError, match="Another training is writing"):
        train(record_folder, tmp_path, config, execution=CPU, resume=True)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", [".", "student", ".."])
def test_an_output_that_might_replace_an_input_is_refused(record_folder, teacher, place):
    """The teacher's own folder, one in it and the one that it lies in, whatever was given beside."""
    folder = teacher.run.folder
    before = contents(folder)
    config = TrainConfig(**SETTINGS)
    with pytest.raises(KdantError, match=r"and input .*teacher should lie apart"):
        train(record_folder, folder / place, config, teacher=folder, execution=CPU, overwrite=True)
    if place != "student":
        again = TrainConfig(**SETTINGS, init=str(folder / "model.keras"))
        with pytest.raises(KdantError, match=r"and input .*model\.keras should lie apart"):
            train(record_folder, folder / place, again, execution=CPU, overwrite=True)
    with pytest.raises(KdantError, match=r"and input .*records should lie apart"):
        train(record_folder, record_folder / "run", config, execution=CPU)
    assert contents(folder) == before


def test_fewer_epochs_than_a_run_has_are_refused(record_folder, teacher, tmp_path):
    folder = Path(shutil.copytree(teacher.run.folder, tmp_path / "run"))
    settings = {**SETTINGS, "validation_fraction": 0.25}
    two = train(record_folder, folder, TrainConfig(**{**settings, "epochs": 2}), execution=CPU, resume=True)
    assert two.epochs == 2
    before = contents(folder)
    with pytest.raises(KdantError, match=r"has 2 epochs already, more than --epochs 1\. Nothing was changed"):
        train(record_folder, folder, TrainConfig(**settings), execution=CPU, resume=True)
    assert contents(folder) == before


class StopAfterFirst(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_training_that_a_callback_ends_is_finished_in_a_copy_too(record_folder, teacher, tmp_path):
    config = TrainConfig(**{**SETTINGS, "epochs": 3})
    result = train(record_folder, tmp_path / "run", config, execution=CPU, callbacks=[StopAfterFirst()])
    assert result.epochs == 1
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.keras", "config.json", "metrics.csv"):  # each a moment later than the one before
        shutil.copyfile(tmp_path / "run" / name, copy / name)
        os.utime(copy / name, (len(list(copy.iterdir())),) * 2)
    (summary,), _ = list_runs(copy)
    assert summary.state == "finished"
    shutil.copy(teacher.run.model_path, copy)
    (summary,), _ = list_runs(copy)
    assert summary.state == "another network"


def test_a_finished_run_without_checkpoints_is_not_begun_anew(record_folder, teacher, tmp_path):
    folder = Path(shutil.copytree(teacher.run.folder, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoints")
    before = contents(folder)
    config = TrainConfig(**SETTINGS, validation_fraction=0.25)
    with pytest.raises(KdantError, match=r"has a trained network, but no checkpoint to go on from"):
        train(record_folder, folder, config, execution=CPU, resume=True)
    assert contents(folder) == before
