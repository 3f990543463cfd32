"""What --xla compiles, and that it changes rounding at most."""

import numpy as np
import pytest
import tensorflow as tf
from test_update import run_steps, whole_batch

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.runs import load_run
from kdant_tf.training import assembly, distiller
from kdant_tf.training.strategy import AUTO, NOTHING, POOLING, STEP, choose_xla, make_strategy
from kdant_tf.training.train import train
from tf_records.errors import KdantError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("choice", "devices", "expected"),
    [
        ("auto", "cpu", AUTO),
        ("auto", "cpu:2", AUTO),
        ("on", "cpu", STEP),
        ("pooling", "cpu", POOLING),
        ("pooling", "cpu:2", POOLING),
        ("off", "cpu", NOTHING),
        ("off", "cpu:2", NOTHING),
    ],
)
def test_choices_on_a_cpu(choice: str, devices: str, expected: str):
    assert choose_xla(choice, make_strategy(devices)) == expected


def test_a_choice_that_cannot_be_is_refused_before_anything_is_built(record_folder, tmp_path):
    config = TrainConfig(crop=32, width=0.0625, batch_size=8, epochs=1)
    for xla, message in (
        ("on", r"`--xla on` compiles for one CPU device, this training has 2"),
        ("maybe", r"`--xla` should be one of auto, on, pooling, off\. Received: 'maybe'"),
    ):
        with pytest.raises(KdantError, match=message):
            train(record_folder, tmp_path / "run", config, execution=Execution(devices="cpu:2", xla=xla))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("choice", "compiled"), [("pooling", True), ("auto", "auto"), ("off", False)])
def test_a_training_compiles_its_feature_loss_and_what_measures_it_where_asked(
    record_folder, tiny_run, tmp_path, monkeypatch, choice: str, compiled: bool | str
):
    asked = []
    compile_where_it_pays = distiller.compile_where_it_pays
    monkeypatch.setattr(
        distiller,
        "compile_where_it_pays",
        lambda part, jit: asked.append(jit) or compile_where_it_pays(part, jit),
    )
    monkeypatch.setattr(assembly, "choose_xla", choose_xla)
    config = TrainConfig(model="tiny_network:build", crop=32, batch_size=8, epochs=1)
    execution = Execution(devices="cpu", xla=choice)
    summary = train(record_folder, tmp_path / "run", config, teacher=load_run(tiny_run), execution=execution)
    assert asked == [compiled, compiled]
    assert np.isfinite(summary.final_loss)
    assert summary.xla == (POOLING if choice == "pooling" else NOTHING)


def check_same(result: tuple, expected: tuple) -> None:
    for path, values in expected[0].items():
        np.testing.assert_allclose(result[0][path], values, atol=1e-5, err_msg=path)
    for one, other in zip(result[1], expected[1], strict=True):
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("devices", "xla", "settings"),
    [
        ("cpu", POOLING, {}),
        ("cpu", STEP, {"gradient_accumulation": 2, "precision": "mixed_float16"}),
    ],
)
def test_a_compiled_step_gives_the_same_weights(devices: str, xla: str, settings: dict):
    check_same(run_steps(devices, xla=xla, clip_norm=0.3, **settings), whole_batch(clip_norm=0.3))


def test_each_device_of_several_can_have_its_part_compiled(monkeypatch):
    # On GPUs XLA compiles it; here TensorFlow does, since XLA knows one CPU device only.
    monkeypatch.setattr(distiller, "compile_with_xla", lambda part: tf.function(part, autograph=False))
    check_same(run_steps("cpu:2", xla=STEP, clip_norm=0.3), whole_batch(clip_norm=0.3))
