"""`--projection`: a student whose map has other channels than its teacher's learns from it all the same."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.losses.features import feature_loss
from kdant_tf.models.baselines import build_tsn
from kdant_tf.models.networks import load_network
from kdant_tf.runs import Run, load_run
from kdant_tf.serving.export import export_run
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.job import remove_run
from kdant_tf.training.train import train
from tf_records.errors import RunError

pytestmark = pytest.mark.slow

CLIP = (2, 4, 4, 3)
SMALL = {"crop": 32, "batch_size": 8, "windows": 1, "feature_weight": 1.0, "learning_rate": 0.01}


def network(channels: int, positions: str = "same") -> keras.Model:
    clip = layers.Input(CLIP)
    strides = 2 if positions == "fewer" else 1
    x = layers.Conv3D(channels, 3, (1, strides, strides), "same", activation="relu", name="conv")(clip)
    logits = layers.Dense(3, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "map": x})


def batch() -> dict[str, tf.Tensor]:
    clips = np.random.default_rng(0).uniform(-1, 1, (2, 4, *CLIP)).astype(np.float32)
    return {
        "observed": tf.constant(clips[0]),
        "future": tf.constant(clips[1]),
        "label": tf.constant([0, -1, 2, 1]),
    }


def compiled(student: keras.Model, teacher: keras.Model, **options) -> Distiller:
    settings = {"feature_loss": "bidirectional", "feature_weight": 1.0, "projection": True}
    distiller = Distiller(student, teacher, **{**settings, **options})
    distiller.compile(optimizer=keras.optimizers.SGD(0.1))
    distiller.optimizer.build(distiller.trainable_variables)
    return distiller


@pytest.mark.parametrize("name", ["direct", "unidirectional", "bidirectional"])
def test_the_feature_loss_sees_the_students_map_through_a_linear_map(name):
    student, teacher = network(5), network(7)
    distiller = compiled(student, teacher, feature_loss=name)
    kernel = distiller.projection.kernel
    assert kernel.shape == (5, 7)
    assert [variable.shape for variable in distiller.projection.weights] == [(5, 7)]
    student_map, teacher_map = student(batch()["observed"])["map"], teacher(batch()["future"])["map"]
    expected = feature_loss(name, student_map.numpy() @ kernel.numpy(), teacher_map)
    np.testing.assert_allclose(distiller.compute_losses(batch())["feature_loss"], expected, rtol=1e-4)


def test_a_step_changes_the_projection_and_decays_it():
    kernels = {}
    for decay in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        distiller = compiled(network(5), network(7), feature_loss="direct", weight_decay=decay)
        before = distiller.projection.kernel.numpy()
        distiller.update(batch())
        kernels[decay] = distiller.projection.kernel.numpy()
    assert np.abs(kernels[0.0] - before).max() > 1e-5
    np.testing.assert_allclose(kernels[0.5], kernels[0.0] - 0.1 * 0.5 * before, rtol=1e-4, atol=1e-6)


def test_the_student_is_left_as_it_is():
    student = network(5)
    weights, outputs = len(student.weights), set(student.output)
    distiller = compiled(student, network(7))
    assert (len(student.weights), set(student.output)) == (weights, outputs)
    assert distiller(batch()["observed"])["map"].shape[-1] == 5
    assert not any("projection" in variable.path for variable in student.weights)


@pytest.mark.parametrize(
    "options", [{"projection": False, "feature_loss": "direct"}, {"feature_loss": "none"}]
)
def test_there_is_none_where_it_is_not_asked_for_or_not_needed(options):
    assert compiled(network(5), network(5), **options).projection is None


def test_other_channels_are_refused_without_it():
    with pytest.raises(
        ValueError, match=r"Received: 5 and 7\. Use the teacher's model and width, or --projection"
    ):
        compiled(network(5), network(7), projection=False)
    assert np.isfinite(
        compiled(network(5), network(7), projection=False, feature_loss="none").compute_losses(batch())[
            "loss"
        ]
    )


def test_other_positions_are_refused_by_the_direct_loss_alone():
    student, teacher = network(5), network(7, "fewer")
    with pytest.raises(
        ValueError, match=r"position by position\. Received: \(2, 4, 4\) and \(2, 2, 2\) positions"
    ):
        compiled(student, teacher, feature_loss="direct")
    for name in ("unidirectional", "bidirectional"):
        assert np.isfinite(compiled(student, teacher, feature_loss=name).compute_losses(batch())["loss"])


@pytest.fixture(scope="module")
def teacher(finished_run, tiny_backbone, tmp_path_factory) -> Run:
    """A tsn of 8 channels, untrained."""
    config = TrainConfig(**SMALL, model="tsn", backbone=tiny_backbone, segments=2)
    folder = tmp_path_factory.mktemp("projection") / "teacher"
    run = dataclasses.replace(load_run(finished_run), folder=folder, config=config)
    folder.mkdir()
    run.save()
    keras.utils.set_random_seed(1)
    build_tsn(4, (8, 32, 32, 3), tiny_backbone, segments=2).save(run.model_path)
    return run


def distill(record_folder: Path, out: Path, teacher: Run, **settings) -> Path:
    """Trains a frame-mlp, whose map has 1024 channels."""
    own = {"model": "frame-mlp", "backbone": "Tiny", "init": "random", "epochs": 2, "projection": True}
    loss = {"feature_loss": "unidirectional"}
    config = TrainConfig(**{**SMALL, **own, **loss, **settings})
    train(
        record_folder, out, config, teacher=teacher, execution=Execution(devices="cpu"), resume=out.exists()
    )
    return out


@pytest.fixture(scope="module")
def whole(record_folder, teacher) -> Path:
    return distill(record_folder, teacher.folder.parent / "whole", teacher)


def kernel_of(run: Path) -> np.ndarray:
    (kernel,) = keras.saving.load_model(run / "projection.keras").get_weights()
    return kernel


def tensors_of(run: Path) -> str:
    return str(max((run / "checkpoints").iterdir()) / "tensors")


def kernel_name(run: Path) -> str:
    """Of the projection's kernel in the run's checkpoint; the optimizer has a momentum of its shape too."""
    names = {name for name, shape in tf.train.list_variables(tensors_of(run)) if shape == [1024, 8]}
    (name,) = (name for name in names if name.startswith("projection/"))
    assert any(other.startswith("optimizer/") for other in names)
    return name


def test_a_resumed_training_ends_like_one_that_was_not_interrupted(
    record_folder, teacher, whole, tmp_path, stopped_after_first_epoch
):
    run = stopped_after_first_epoch(whole, tmp_path / "run")
    first = tf.train.load_variable(tensors_of(run), kernel_name(run))
    distill(record_folder, run, teacher)
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    np.testing.assert_array_equal(kernel_of(run), kernel_of(whole))
    assert np.abs(kernel_of(run) - first).max() > 0
    networks = [load_network(load_run(each)) for each in (run, whole)]
    for left, right in zip(*(each.weights for each in networks), strict=True):
        np.testing.assert_array_equal(left, right, err_msg=left.path)


def test_the_projection_lies_in_the_checkpoint_and_beside_the_network(whole):
    stored = tf.train.load_variable(tensors_of(whole), kernel_name(whole))
    np.testing.assert_array_equal(stored, kernel_of(whole))
    projection = keras.saving.load_model(whole / "projection.keras")
    assert (projection.input.shape, projection.output.shape) == ((None, 1024), (None, 8))
    np.testing.assert_allclose(projection(np.eye(1024, dtype=np.float32)[:3]), stored[:3])


def test_the_saved_network_and_the_exported_one_know_nothing_of_it(whole, tmp_path):
    run = load_run(whole)
    shapes = {tuple(variable.shape) for variable in load_network(run).weights}
    assert (1024, 4) in shapes
    assert (1024, 8) not in shapes
    served = tf.saved_model.load(str(export_run(run, tmp_path).folder))
    # Its weights are constants of the functions that the signature calls.
    functions = served.signatures["serving_default"].graph.as_graph_def().library.function
    constants = [node for function in functions for node in function.node_def if node.op == "Const"]
    shapes = {tuple(tf.make_ndarray(node.attr["value"].tensor).shape) for node in constants}
    assert (1024, 4) in shapes
    assert (1024, 8) not in shapes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"projection": False},
            r"do not fit: the student's map .* Received: 1024 and 8\. Use .*--projection\.$",
        ),
        ({"feature_loss": "direct"}, r"do not fit: the direct loss .*Use --feature-loss bidirectional\.$"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(record_folder, teacher, tmp_path, settings, message):
    with pytest.raises(RunError, match=message) as error:
        distill(record_folder, tmp_path / "run", teacher, **settings)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").iterdir())


def test_a_run_that_is_overwritten_loses_its_projection_too(tmp_path):
    for name in ("projection.keras", "model.keras", "notes.txt"):
        (tmp_path / name).touch()
    remove_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
