"""The training step: what it computes, what it changes and what it leaves alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.models.i3d import build_i3d
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.strategy import NOTHING, make_strategy
from tf_records.augment import scale

pytestmark = pytest.mark.slow

CLIP = (2, 4, 4, 3)
CLASSES = 3


def tiny_network(
    seed: int,
    channels: int = 6,
    batch_norm: bool = False,
    clip: tuple[int, ...] = CLIP,
    classes: int = CLASSES,
    strides: int = 1,
) -> keras.Model:
    """A network with I3D's outputs: convolution, map, logits."""
    keras.utils.set_random_seed(seed)
    clip = layers.Input(clip)
    x = layers.Conv3D(channels, (1, 3, 3), strides, padding="same", name="conv")(clip)
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = layers.ReLU(name="Mixed_4f")(x)
    logits = layers.Dense(classes, name="logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "Mixed_4f": x})


def random_batch(seed: int = 0, labels: tuple[int, ...] = (0, -1, 2, -1)) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    clips = rng.uniform(-1, 1, (2, len(labels), *CLIP)).astype(np.float32)
    return {
        "observed": tf.constant(clips[0]),
        "future": tf.constant(clips[1]),
        "label": tf.constant(labels, tf.int64),
    }


def compiled(
    student: keras.Model,
    teacher: keras.Model | None = None,
    rate: float = 0.1,
    momentum: float = 0.0,
    xla: str = NOTHING,
    **kwargs,
) -> Distiller:
    """XLA, which compiles for seconds, changes rounding at most: test_xla.py."""
    distiller = Distiller(student, teacher, xla=xla, **kwargs)
    distiller.compile(optimizer=keras.optimizers.SGD(rate, momentum=momentum))
    distiller.optimizer.build(student.trainable_variables)
    return distiller


def weights_of(network: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: weight.numpy() for weight in network.weights}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def pool(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    weights = np.exp(np.einsum("bnd,bmd->bnm", queries, keys) / np.sqrt(queries.shape[-1]))
    return np.einsum("bnm,bmd->bnd", weights / weights.sum(axis=-1, keepdims=True), keys)


@pytest.mark.parametrize("feature_loss", ["none", "direct", "unidirectional", "bidirectional"])
def test_loss_is_classification_plus_weighted_feature_loss(feature_loss):
    student, teacher, batch = tiny_network(1), tiny_network(2), random_batch()
    losses = Distiller(
        student, teacher, feature_loss=feature_loss, feature_weight=0.7, penalty="squared"
    ).compute_losses(batch)
    student_outputs = {
        name: value.numpy().astype(np.float64) for name, value in student(batch["observed"]).items()
    }
    teacher_outputs = {
        name: value.numpy().astype(np.float64) for name, value in teacher(batch["future"]).items()
    }

    log_targets = log_softmax(teacher_outputs["logits"])
    divergence = (np.exp(log_targets) * (log_targets - log_softmax(student_outputs["logits"]))).sum(axis=-1)
    likelihood = log_softmax(student_outputs["logits"])
    classification = (-likelihood[0, 0] + divergence[1] - likelihood[2, 2] + divergence[3]) / 4
    a, r = student_outputs["Mixed_4f"].reshape(4, -1, 6), teacher_outputs["Mixed_4f"].reshape(4, -1, 6)
    unidirectional = np.mean((pool(r, a) - pool(r, r)) ** 2)
    features = {
        "none": 0.0,
        "direct": np.mean((a - r) ** 2),
        "unidirectional": unidirectional,
        "bidirectional": np.mean((pool(a, r) - pool(a, a)) ** 2) + unidirectional,
    }[feature_loss]

    np.testing.assert_allclose(float(losses["classification_loss"]), classification, rtol=1e-4)
    np.testing.assert_allclose(float(losses["feature_loss"]), features, rtol=1e-4)
    np.testing.assert_allclose(float(losses["loss"]), classification + 0.7 * features, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation": 2}, {"mixup": 0.4}])
def test_clips_in_eight_bits_are_scaled_in_the_step(settings):
    batch = random_batch()
    clips = {name: tf.cast(127.5 * (batch[name] + 1.0), tf.uint8) for name in ("observed", "future")}
    stored = batch | clips
    scaled = {name: value if name == "label" else scale(value) for name, value in stored.items()}
    found = []
    for batch in (stored, scaled):
        distiller = compiled(tiny_network(1), tiny_network(2), feature_loss="bidirectional", **settings)
        found.append((distiller.update(batch), weights_of(distiller.student)))
    (losses, weights), (expected, others) = found
    for name, value in losses.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)
    for path, value in weights.items():
        np.testing.assert_allclose(value, others[path], rtol=1e-6, atol=1e-7, err_msg=path)


def test_counts_are_of_labelled_samples_only():
    student, batch = tiny_network(1), random_batch(labels=(0, 0, 1, 2, -1, -1))
    losses = Distiller(student, tiny_network(2)).compute_losses(batch)
    predicted = student(batch["observed"])["logits"].numpy().argmax(axis=-1)
    assert float(losses["labeled"]) == 4
    assert float(losses["correct"]) == np.sum(predicted[:4] == [0, 0, 1, 2])


@pytest.mark.parametrize("feature_loss", ["none", "bidirectional"])
def test_training_reduces_the_loss_of_a_fixed_batch(feature_loss):
    distiller = compiled(
        tiny_network(1, batch_norm=True),
        tiny_network(2, batch_norm=True),
        rate=0.3,
        feature_loss=feature_loss,
        feature_weight=1.0,
    )
    step, batch = tf.function(distiller.update), random_batch()
    losses = [float(step(batch)["loss"]) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_without_a_teacher_it_learns_from_the_labels_of_its_view():
    student, batch = tiny_network(1), random_batch(labels=(0, 1, 2, 0))
    distiller = compiled(student, view="future", rate=0.3)
    del batch["observed"]
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        batch["label"], student(batch["future"])["logits"]
    )
    step = tf.function(distiller.update)
    losses = [step(batch) for _ in range(20)]
    np.testing.assert_allclose(float(losses[0]["loss"]), float(expected), rtol=1e-5)
    assert float(losses[0]["feature_loss"]) == 0
    assert float(losses[-1]["loss"]) < float(losses[0]["loss"])


def test_the_teacher_never_changes():
    student, teacher = tiny_network(1, batch_norm=True), tiny_network(2, batch_norm=True)
    before, student_before = weights_of(teacher), weights_of(student)
    distiller = compiled(
        student, teacher, feature_loss="bidirectional", feature_weight=1.0, momentum=0.9, weight_decay=0.1
    )
    step = tf.function(distiller.update)
    for seed in range(3):
        step(random_batch(seed))
    assert any("moving_mean" in path for path in before)
    for path, values in weights_of(teacher).items():
        np.testing.assert_array_equal(values, before[path], err_msg=path)
    for path, values in weights_of(student).items():
        assert np.abs(values - student_before[path]).max() > 0, path


def test_the_teachers_view_is_the_future_with_its_moving_statistics():
    student, teacher = tiny_network(1, batch_norm=True), tiny_network(2, batch_norm=True)
    batch = random_batch(labels=(-1, -1))
    distiller = Distiller(student, teacher)
    first = float(distiller.compute_losses(batch)["loss"])
    alone = {name: values[:1] for name, values in batch.items()}
    targets = tf.nn.softmax(teacher(alone["future"], training=False)["logits"]).numpy()
    whole = tf.nn.softmax(teacher(batch["future"], training=False)["logits"]).numpy()
    np.testing.assert_allclose(targets[0], whole[0], rtol=1e-5)
    logits = student(batch["observed"], training=True)["logits"].numpy().astype(np.float64)
    expected = np.mean((whole * (np.log(whole) - log_softmax(logits))).sum(axis=-1))
    np.testing.assert_allclose(first, expected, rtol=1e-3, atol=1e-6)


def test_one_step_decays_kernels_and_nothing_else():
    results = {}
    for decay in (0.0, 0.5):
        student = tiny_network(1, batch_norm=True)
        before = weights_of(student)
        compiled(student, tiny_network(2), rate=0.1, weight_decay=decay).update(random_batch())
        results[decay] = weights_of(student)
    kernels = {path for path in before if path.endswith("/kernel")}
    assert kernels == {"conv/kernel", "logits/kernel"}
    assert {"norm/beta", "norm/gamma", "conv/bias", "logits/bias"} < set(before)
    for path, plain in results[0.0].items():
        expected = plain - 0.1 * 0.5 * before[path] if path in kernels else plain
        np.testing.assert_allclose(results[0.5][path], expected, rtol=1e-5, atol=1e-6, err_msg=path)


def test_weight_decay_is_for_kernels_of_every_kind():
    keras.utils.set_random_seed(0)
    clip = layers.Input((3, 8, 8, 3))
    x = layers.TimeDistributed(layers.SeparableConv2D(4, 3, strides=4, name="separable"))(clip)
    x = layers.PReLU(name="prelu")(layers.LayerNormalization(axis=(-2, -1), name="norm")(x))
    frames = layers.Reshape((3, -1))(x)
    x = layers.GRU(5, return_sequences=True, name="gru")(frames)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", name="maps")(x)
    logits = layers.Dense(CLASSES, name="logits")(layers.GlobalAveragePooling1D()(x))
    network = keras.Model(clip, {"logits": logits, "maps": x})
    start = network.get_weights()
    clips = tf.random.stateless_uniform((4, 3, 8, 8, 3), (1, 2))
    batch = {"observed": clips, "label": tf.constant([0, 1, 2, 0])}
    ended = {}
    for decay in (0.0, 0.5):
        network.set_weights(start)
        compiled(network, rate=0.1, weight_decay=decay).update(batch)
        ended[decay] = network.get_weights()
    decayed = set()
    for variable, begun, plain, shrunk in zip(network.weights, start, *ended.values(), strict=True):
        if np.abs(plain - shrunk).max() > 1e-7:
            decayed.add(variable.path)
            np.testing.assert_allclose(shrunk, plain - 0.1 * 0.5 * begun, rtol=1e-4, atol=1e-6)
    assert decayed == {variable.path for variable in network.weights if variable.name.endswith("kernel")}
    assert {path.rsplit("/")[-1] for path in decayed} == {
        *("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")
    }
    assert {"norm/gamma", "prelu/alpha"} < {variable.path for variable in network.weights} - decayed


def test_two_devices_give_the_weights_of_one():
    options = {"feature_loss": "bidirectional", "feature_weight": 2.0, "weight_decay": 0.1, "momentum": 0.9}
    batches = [random_batch(seed) for seed in range(3)]

    single = compiled(tiny_network(1), tiny_network(2), **options)
    step = tf.function(single.update)
    expected = [float(step(batch)["loss"]) for batch in batches]

    strategy = make_strategy("cpu:2")
    with strategy.scope():
        mirrored = compiled(tiny_network(1), tiny_network(2), **options)

    @tf.function
    def run(batch):
        losses = strategy.run(mirrored.update, args=(batch,))
        return strategy.reduce("MEAN", losses["loss"], axis=None)

    losses = []
    for batch in strategy.experimental_distribute_dataset(_dataset(batches)):
        losses.append(float(run(batch)))

    before = weights_of(tiny_network(1))
    for path, values in weights_of(single.student).items():
        assert np.abs(values - before[path]).max() > 1e-3, path
        np.testing.assert_allclose(weights_of(mirrored.student)[path], values, atol=1e-5, err_msg=path)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def _dataset(batches: list[dict[str, tf.Tensor]]) -> tf.data.Dataset:
    samples = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
    return tf.data.Dataset.from_tensor_slices(samples).batch(len(batches[0]["label"]), drop_remainder=True)


def test_evaluation_changes_no_weight():
    student = tiny_network(1, batch_norm=True)
    before = weights_of(student)
    Distiller(student, tiny_network(2), feature_loss="direct").test_step(random_batch())
    for path, values in weights_of(student).items():
        np.testing.assert_array_equal(values, before[path], err_msg=path)


def test_calling_it_gives_the_students_outputs():
    student, clips = tiny_network(1), random_batch()["observed"]
    outputs = Distiller(student, tiny_network(2))(clips)
    for name, values in student(clips).items():
        np.testing.assert_array_equal(outputs[name], values)


def test_different_channels_are_refused():
    with pytest.raises(ValueError, match=r"as many channels as the teacher's.*6 and 5"):
        Distiller(tiny_network(1), tiny_network(2, channels=5), feature_loss="bidirectional")


def test_different_channels_matter_only_to_a_feature_loss():
    distiller = Distiller(tiny_network(1), tiny_network(2, channels=5))
    assert np.isfinite(float(distiller.compute_losses(random_batch())["loss"]))


def test_a_feature_loss_needs_a_teacher():
    with pytest.raises(ValueError, match=r"should be none without a teacher.*bidirectional"):
        Distiller(tiny_network(1), feature_loss="bidirectional")


def test_a_step_of_i3d_changes_all_of_its_weights_and_none_of_the_teachers():
    keras.utils.set_random_seed(0)
    student, teacher = (build_i3d(CLASSES, (8, 32, 32, 3), width=0.0625, dropout=0.0) for _ in range(2))
    distiller = compiled(student, teacher, feature_loss="bidirectional", feature_weight=1.0)
    rng = np.random.default_rng(0)
    clips = tf.constant(rng.uniform(-1, 1, (2, 8, 32, 32, 3)).astype(np.float32))
    before, frozen = weights_of(student), weights_of(teacher)
    losses = distiller.update({"observed": clips, "future": clips[::-1], "label": tf.constant([0, -1])})
    assert np.isfinite(float(losses["loss"]))
    for path, values in weights_of(teacher).items():
        np.testing.assert_array_equal(values, frozen[path], err_msg=path)
    after = weights_of(student)
    assert all(np.isfinite(values).all() for values in after.values())
    moving = [path for path in before if "moving" in path]
    assert len(moving) == 2 * 57
    assert all(np.abs(after[path] - before[path]).max() > 0 for path in moving)
    assert np.abs(after["Conv3d_1a_7x7.conv_3d/kernel"] - before["Conv3d_1a_7x7.conv_3d/kernel"]).max() > 0
