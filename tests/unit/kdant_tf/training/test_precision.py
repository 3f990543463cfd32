"""Mixed precision: what is computed in it, what stays float32, and where it is refused.

On a CPU, gradients in 16 bits are right only where XLA computes them.
"""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from test_distiller import CLASSES, CLIP, log_softmax, pool, random_batch, weights_of

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.evaluate import predict
from kdant_tf.models.baselines import build_frame_mlp, build_tsn
from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.networks import load_network, load_saved, set_precision
from kdant_tf.private_apis import layers_within
from kdant_tf.runs import load_run
from kdant_tf.serving.export import export_run
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import _compile_step
from kdant_tf.training.optimizer import make_optimizer
from kdant_tf.training.strategy import STEP
from kdant_tf.training.train import train
from tf_records.errors import KdantError

pytestmark = pytest.mark.slow

SHAPE = (4, 32, 32, 3)
MIXED = ("mixed_bfloat16", "mixed_float16")


def own_network() -> keras.Model:
    """A person's own, who thought of no precision."""
    clip = layers.Input(CLIP)
    x = layers.Conv3D(6, (1, 3, 3), padding="same", name="conv")(clip)
    x = layers.ReLU(name="Mixed_4f")(layers.BatchNormalization(name="norm")(x))
    logits = layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "Mixed_4f": x})


def networks(backbone: str) -> list[keras.Model]:
    keras.utils.set_random_seed(0)
    return [
        build_i3d(CLASSES, SHAPE, width=0.0625),
        build_tsn(CLASSES, SHAPE, backbone, segments=2),
        build_frame_mlp(CLASSES, SHAPE, backbone, hidden=8),
        own_network(),
    ]


def test_maps_are_16_bits_and_logits_weights_and_other_networks_float32(tiny_backbone):
    policy = keras.config.dtype_policy().name
    for network in networks(tiny_backbone):
        clip = tf.random.stateless_uniform((2, *network.input.shape[1:]), (0, 0), -1.0)
        expected = network(clip)
        set_precision(network, "mixed_bfloat16")  # MaxPool3D knows no float16 on a CPU
        outputs = network(clip)
        if any(np.isnan(tf.cast(values, "float32").numpy()).any() for values in outputs.values()):
            # On processors with instructions for bfloat16, TensorFlow's convolutions in it now and then read
            # memory that was never written: once in 25 to 200 calls of a tiny I3D.
            outputs = network(clip)
        dtypes = {name: values.dtype.name for name, values in outputs.items()}
        assert dtypes.pop("logits") == "float32", network.name
        assert list(dtypes.values()) == ["bfloat16"], network.name
        assert {variable.dtype for variable in network.weights if "seed" not in variable.path} == {"float32"}
        for name, values in outputs.items():
            values, reference = tf.cast(values, "float32").numpy(), expected[name].numpy()
            assert 0 < np.abs(values - reference).max() < 0.05 * np.abs(reference).max(), (network.name, name)
        set_precision(network, "float32")
        for name, values in network(clip).items():
            np.testing.assert_array_equal(values, expected[name])
    assert keras.config.dtype_policy().name == policy == "float32"


@pytest.mark.parametrize("precision", MIXED)
def test_losses_of_16_bit_maps_are_computed_in_float32(precision):
    keras.utils.set_random_seed(0)
    student, teacher, batch = own_network(), own_network(), random_batch()
    for network in (student, teacher):
        set_precision(network, precision)
    losses = Distiller(
        student, teacher, feature_loss="bidirectional", feature_weight=0.7, delta=0.01
    ).compute_losses(batch, training=False)
    assert {values.dtype.name for values in losses.values()} == {"float32"}
    student_outputs = {
        name: tf.cast(values, "float64").numpy() for name, values in student(batch["observed"]).items()
    }
    teacher_outputs = {
        name: tf.cast(values, "float64").numpy() for name, values in teacher(batch["future"]).items()
    }
    log_targets, likelihood = log_softmax(teacher_outputs["logits"]), log_softmax(student_outputs["logits"])
    divergence = (np.exp(log_targets) * (log_targets - likelihood)).sum(axis=-1)
    classification = (-likelihood[0, 0] + divergence[1] - likelihood[2, 2] + divergence[3]) / 4
    a, r = student_outputs["Mixed_4f"].reshape(4, -1, 6), teacher_outputs["Mixed_4f"].reshape(4, -1, 6)

    def huber(difference: np.ndarray) -> float:
        size = np.minimum(np.abs(difference), 0.01)
        return float(np.mean(0.5 * size**2 + 0.01 * (np.abs(difference) - size)))

    features = huber(pool(a, r) - pool(a, a)) + huber(pool(r, a) - pool(r, r))
    np.testing.assert_allclose(float(losses["classification_loss"]), classification, rtol=2e-5)
    np.testing.assert_allclose(float(losses["feature_loss"]), features, rtol=2e-5)


def test_a_network_trained_in_mixed_precision_is_used_in_float32(tiny_run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    run = load_run(folder)
    network = load_saved(run.model_path)
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 40, 40, 3), dtype=np.uint8)
    batch = {
        "clip": tf.constant(clips[:, :, 4:36, 4:36] / 127.5 - 1, tf.float32),
        "index": tf.range(2),
        "label": tf.constant([0, 1]),
        "id": tf.constant(["a", "b"]),
        "video": tf.constant(["a", "b"]),
    }
    expected = predict(network, [batch], 2).probabilities
    before = weights_of(network)
    set_precision(network, "mixed_bfloat16")
    network.save(run.model_path)

    loaded = load_network(run)
    assert {layer.compute_dtype for layer in layers_within(loaded)} == {"float32"}
    for path, values in weights_of(loaded).items():
        np.testing.assert_array_equal(values, before[path])
    np.testing.assert_array_equal(predict(loaded, [batch], 2).probabilities, expected)

    version = export_run(run, tmp_path / "served").folder
    graph = tf.saved_model.load(str(version)).signatures["serving_default"]
    probabilities = graph(clips=tf.constant(clips))["probabilities"]
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(probabilities.numpy().sum(axis=1), 1, rtol=1e-6)
    kinds = {op.outputs[0].dtype for op in graph.graph.get_operations() if op.outputs}
    assert not kinds & {tf.bfloat16, tf.float16}


@pytest.mark.parametrize("precision", MIXED)
def test_training_in_16_bits_is_refused_on_a_cpu(record_folder, tmp_path, precision):
    config = TrainConfig(crop=32, width=0.0625, batch_size=8, epochs=1, precision=precision)
    with pytest.raises(KdantError, match=rf"--precision {precision}` needs a GPU.*NaN"):
        train(record_folder, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def losses_of_training(precision: str) -> list[float]:
    """Losses of steps on one batch, compiled by XLA."""
    keras.utils.set_random_seed(0)
    student, teacher, batch = own_network(), own_network(), random_batch()
    for network in (student, teacher):
        set_precision(network, precision)
    distiller = Distiller(student, teacher, feature_loss="direct", feature_weight=1.0, xla=STEP)
    distiller.compile(optimizer=make_optimizer(TrainConfig(learning_rate=0.3, precision=precision)))
    distiller.optimizer.build(distiller.trainable_variables)
    step = _compile_step(distiller, tf.distribute.get_strategy())
    losses = [float(step(batch)["loss"]) for _ in range(20)]
    assert {variable.dtype for variable in student.trainable_variables} == {"float32"}
    return losses


def test_training_in_16_bits_follows_training_in_float32():
    expected = losses_of_training("float32")
    assert expected[-1] < 0.7 * expected[0]
    for precision in MIXED:
        np.testing.assert_allclose(losses_of_training(precision), expected, rtol=0.05)
