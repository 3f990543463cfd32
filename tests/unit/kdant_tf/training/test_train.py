"""What a training refuses before it builds a network or touches its output folder."""

import pytest

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.training.train import train
from tf_records.errors import KdantError
from tf_records.files import lock_folder


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


def test_two_trainings_in_one_folder_are_refused(record_folder, tmp_path):
    config = TrainConfig(crop=32, width=0.0625, batch_size=8, epochs=1)
    with lock_folder(tmp_path, "training"), pytest.raises(KdantError, match="Another training is writing"):
        train(record_folder, tmp_path, config, execution=Execution(devices="cpu"), resume=True)
