"""What TensorBoard is shown of a training, and that a resumed one shows no step twice."""

import types

import numpy as np
import pytest
import tensorflow as tf

from kdant_tf.config import TrainConfig
from kdant_tf.runs import load_run
from kdant_tf.training.assembly import assemble
from kdant_tf.training.callbacks import TensorBoardEvents, heat_map_drawer, keep_events, make_validation
from kdant_tf.training.job import prepare_job
from kdant_tf.training.strategy import make_strategy
from tf_records.records import Records

pytestmark = pytest.mark.slow


def read_events(folder):
    """(step, tag) → how often, and the pictures' sizes by step."""
    scalars, pictures = {}, {}
    for path in folder.glob("events.out.tfevents.*"):
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(serialized)
            for value in event.summary.value:
                scalars[event.step, value.tag] = scalars.get((event.step, value.tag), 0) + 1
                if value.tag.startswith("heat_maps"):
                    pictures[event.step] = [int(size) for size in value.tensor.string_val[:2]]
    return scalars, pictures


def write(folder, epochs, **options):
    events = TensorBoardEvents(folder, **options)
    events.set_params({"epochs": 7})
    for epoch in epochs:
        events.on_epoch_begin(epoch)
        events.on_epoch_end(epoch, {"loss": float(epoch)})
    return events


def test_every_epoch_has_its_scalars_and_some_have_a_picture(tmp_path):
    write(tmp_path, range(7), draw_heat_maps=lambda: np.zeros((20, 30, 3), "uint8"), every=3).on_train_end()
    scalars, pictures = read_events(tmp_path)
    assert {step for step, tag in scalars if tag == "loss"} == set(range(1, 8))
    assert pictures == {step: [30, 20] for step in (3, 6, 7)}


def test_a_resumed_training_shows_no_step_twice(tmp_path):
    write(tmp_path, range(5))  # killed: never closed
    write(tmp_path, range(3, 7)).on_train_end()  # its checkpoint held three epochs
    scalars, _ = read_events(tmp_path)
    assert scalars == {(step, "loss"): 1 for step in range(1, 8)}


def test_an_event_file_that_was_cut_short_is_kept_up_to_there(tmp_path):
    write(tmp_path, range(3)).on_train_end()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    keep_events(tmp_path, 7)
    scalars, _ = read_events(tmp_path)
    assert scalars == {(1, "loss"): 1, (2, "loss"): 1}
    keep_events(tmp_path / "none", 7)


@pytest.fixture(scope="module")
def drawer_of(record_folder, tiny_run):
    def make(**settings):
        config = TrainConfig(model="tiny_network:build", crop=32, batch_size=4, **settings)
        job = prepare_job(Records.open(record_folder), tiny_run / "x", config, load_run(tiny_run))
        with make_strategy("cpu").scope():
            assembly = assemble(job, load_weights=True, report=print)
        validation = make_validation(job, assembly)
        return job, assembly, heat_map_drawer(job, assembly, validation and validation.data)

    return make


def test_the_network_in_training_is_drawn_as_it_is(drawer_of):
    _, assembly, draw = drawer_of(validation_fraction=0.5)
    before = draw()
    assert (before.dtype, before.shape[-1]) == (np.uint8, 3)
    np.testing.assert_array_equal(draw(), before)  # the same samples
    for variable in assembly.distiller.student.trainable_variables:
        variable.assign(variable + 0.1)
    after = draw()
    assert after.shape == before.shape
    changed = np.flatnonzero((after != before).any(axis=(0, 2))) / after.shape[1]
    # The first of four columns is the bare frame, the second the student's.
    assert 0.2 < changed.min() < 0.45
    for variable in assembly.distiller.student.trainable_variables:
        variable.assign(variable * np.nan)
    assert draw() is None


def test_networks_without_places_have_no_heat_maps():
    flat = types.SimpleNamespace(output={"logits": tf.zeros((1, 4)), "hidden": tf.zeros((1, 8, 16))})
    assembly = types.SimpleNamespace(distiller=types.SimpleNamespace(student=flat, teacher=None))
    assert heat_map_drawer(None, assembly, None) is None
