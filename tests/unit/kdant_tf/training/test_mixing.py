"""An update that mixes its batch is the update of the mixed batch, on any devices and with any compiler."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_distiller import compiled, random_batch, tiny_network, weights_of

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.training.distiller import TEACHER_LOGITS
from kdant_tf.training.loop import _compile_step
from kdant_tf.training.mixing import Mixer
from kdant_tf.training.strategy import NOTHING, STEP, make_strategy
from kdant_tf.training.train import train
from tf_records.errors import KdantError

LABELS = (0, -1, 2, -1, 1, 1, -1, 0)
VIEWS = ("observed", "future")
MIXED = {"mixup": 0.4, "cutmix": 1.0, "seed": 3}
OPTIONS = {"feature_loss": "direct", "feature_weight": 2.0}
BATCHES = [random_batch(seed, LABELS) for seed in range(2)]


def updated(batches: list[dict[str, tf.Tensor]], **options) -> dict[str, np.ndarray]:
    """The student's weights after an update by each batch."""
    model = compiled(tiny_network(1), tiny_network(2), **OPTIONS, **options)
    for batch in batches:
        model.update(batch)
    return weights_of(model.student)


def dataset() -> tf.data.Dataset:
    samples = {name: tf.concat([batch[name] for batch in BATCHES], axis=0) for name in BATCHES[0]}
    return tf.data.Dataset.from_tensor_slices(samples).batch(len(LABELS), drop_remainder=True)


def check_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    before = weights_of(tiny_network(1))
    for path, values in expected.items():
        assert np.abs(values - before[path]).max() > 1e-3, path
        np.testing.assert_allclose(got[path], values, atol=1e-5, err_msg=path)


def mixed_by_hand(replicas: int = 1) -> list[dict[str, tf.Tensor]]:
    """Each replica's part of each batch mixed, and put together again."""
    whole = []
    for step, batch in enumerate(BATCHES):
        parts = []
        for replica in range(replicas):
            size = len(LABELS) // replicas
            part = {name: values[replica * size : (replica + 1) * size] for name, values in batch.items()}
            parts.append(Mixer(**MIXED).mix(part, VIEWS, step, replica))
        whole.append({name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]})
    return whole


@pytest.mark.slow
def test_an_update_learns_from_the_mixed_batch():
    check_same(updated(BATCHES, **MIXED), updated(mixed_by_hand()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "xla", "parts"), [("cpu", NOTHING, 2), ("cpu", STEP, 1), ("cpu:2", NOTHING, 1)]
)
def test_the_loop_mixes_on_each_device(devices: str, xla: str, parts: int):
    strategy = make_strategy(devices)
    with strategy.scope():
        model = compiled(
            tiny_network(1), tiny_network(2), xla=xla, gradient_accumulation=parts, **OPTIONS, **MIXED
        )
    step = _compile_step(model, strategy)
    for batch in strategy.experimental_distribute_dataset(dataset()):
        step(batch)
    check_same(weights_of(model.student), updated(mixed_by_hand(strategy.num_replicas_in_sync)))


@pytest.mark.slow
def test_fit_mixes_and_evaluate_does_not():
    plain, mixing = (
        compiled(tiny_network(1), tiny_network(2), **OPTIONS, **options) for options in ({}, MIXED)
    )
    data = dataset()
    assert mixing.evaluate(data, verbose=0, return_dict=True) == plain.evaluate(
        data, verbose=0, return_dict=True
    )
    mixing.fit(data, epochs=1, shuffle=False, verbose=0)
    check_same(weights_of(mixing.student), updated(mixed_by_hand()))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(mixing))
    assert {name: getattr(again, name) for name in MIXED} == MIXED


def test_a_teacher_mixes_its_own_view():
    model = compiled(tiny_network(1), view="future", **MIXED)
    known = random_batch(0, (0, 1, 2, 0))
    model.update(known)
    plain = compiled(tiny_network(1), view="future")
    plain.update(Mixer(**MIXED).mix(known, ("future",), 0))
    check_same(weights_of(model.student), weights_of(plain.student))


def test_kept_outputs_of_the_teacher_are_not_mixed():
    model = compiled(tiny_network(1), tiny_network(2), **MIXED)
    with pytest.raises(ValueError, match="says nothing of mixed ones"):
        model.update({**BATCHES[0], TEACHER_LOGITS: tf.zeros((8, 3))})


@pytest.mark.parametrize(
    ("settings", "execution", "message"),
    [
        (
            {"mixup": 0.2, "views": 2},
            {"cache_teacher": True},
            r"`--cache-teacher` .* `--mixup` and `--cutmix` mix",
        ),
        ({"cutmix": 1.0, "batch_size": 2}, {"devices": "cpu:2"}, r"batch size of 2 .*Raise --batch-size"),
    ],
)
def test_what_cannot_be_mixed_is_refused(record_folder, finished_run, tmp_path, settings, execution, message):
    config = TrainConfig(**{"crop": 32, "width": 0.0625, "batch_size": 8, **settings})
    with pytest.raises(KdantError, match=message):
        train(
            record_folder,
            tmp_path / "run",
            config,
            teacher=finished_run,
            execution=dataclasses.replace(Execution(devices="cpu"), **execution),
        )
    assert not (tmp_path / "run").exists()
