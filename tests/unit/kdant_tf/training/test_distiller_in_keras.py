"""Distiller in Keras' own compile, fit, evaluate, predict, save and load_model."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_distiller import random_batch, tiny_network, weights_of

from kdant_tf.losses.features import FeatureLoss
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.strategy import NOTHING, POOLING, make_strategy
from tf_records.records import Records

pytestmark = pytest.mark.slow

LOSSES = {"loss", "classification_loss", "feature_loss"}
BATCHES = [random_batch(0), random_batch(1, (1, -1, 0, 0)), random_batch(2, (2, -1))]


def dataset(*batches: dict[str, tf.Tensor]) -> tf.data.Dataset:
    """The batches one after the other; the last may be smaller."""
    samples = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
    return tf.data.Dataset.from_tensor_slices(samples).batch(4)


def distiller(**options) -> Distiller:
    # XLA, which compiles for seconds, is test_xla.py's subject.
    settings = {"feature_loss": "bidirectional", "feature_weight": 2.0, "xla": NOTHING}
    channels = 5 if options.get("projection") else 6
    return Distiller(tiny_network(1, channels), tiny_network(2), **{**settings, **options})


def evaluate(model: Distiller) -> dict[str, float]:
    return model.evaluate(dataset(*BATCHES), verbose=0, return_dict=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", keras.optimizers.AdamW(0.01)])
def test_fit_reports_accuracy_and_both_parts_of_the_loss(optimizer):
    model = distiller()
    model.compile(optimizer=optimizer, jit_compile=False)
    teacher = weights_of(model.teacher)
    data = dataset(*BATCHES)
    history = model.fit(data, validation_data=data, epochs=2, shuffle=False, verbose=0).history
    names = LOSSES | {"accuracy", "pooling_entropy", "map_variation"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert all(len(values) == 2 and np.isfinite(values).all() for values in history.values())
    assert history["loss"][1] < history["loss"][0]
    for part in ("", "val_"):
        parts = [np.array(history[f"{part}{name}"]) for name in ("classification_loss", "feature_loss")]
        np.testing.assert_allclose(history[f"{part}loss"], parts[0] + 2.0 * parts[1], rtol=1e-5)
    for path, values in weights_of(model.teacher).items():
        np.testing.assert_array_equal(values, teacher[path], err_msg=path)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation": 2, "clip_norm": 0.3, "weight_decay": 0.1}])
def test_fit_makes_the_updates_of_kdants_own_loop(options):
    batches = BATCHES[:2]
    fitted, updated = distiller(**options), distiller(**options)
    for model in (fitted, updated):
        model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    history = fitted.fit(dataset(*batches), epochs=1, shuffle=False, verbose=0).history
    losses = [updated.update(batch) for batch in batches]
    for path, values in weights_of(updated.student).items():
        np.testing.assert_allclose(weights_of(fitted.student)[path], values, atol=1e-6, err_msg=path)
    for name in LOSSES:
        np.testing.assert_allclose(history[name], [np.mean([each[name] for each in losses])], rtol=1e-5)


def test_evaluate_gives_means_over_samples_and_counts_labelled_ones_alone():
    model = distiller()
    top_2 = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")
    top_1 = keras.metrics.SparseTopKCategoricalAccuracy(1, name="top_1")
    model.compile(metrics=["accuracy", top_2], weighted_metrics=[top_1], jit_compile=False)
    before = weights_of(model.student)
    result = evaluate(model)
    sizes = [len(batch["label"]) for batch in BATCHES]
    for name in LOSSES:
        values = [float(model.compute_losses(batch, training=False)[name]) for batch in BATCHES]
        np.testing.assert_allclose(result[name], np.average(values, weights=sizes), rtol=1e-5)
    labels = np.concatenate([batch["label"] for batch in BATCHES])
    logits = np.concatenate([model(batch["observed"])["logits"] for batch in BATCHES])[labels >= 0]
    ranks = (-logits).argsort(axis=-1) == labels[labels >= 0][:, None]
    np.testing.assert_allclose(result["accuracy"], ranks[:, 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(result["top_2"], ranks[:, :2].any(axis=-1).mean(), rtol=1e-6)
    np.testing.assert_allclose(result["top_1"], ranks[:, 0].mean(), rtol=1e-6)
    for path, values in weights_of(model.student).items():
        np.testing.assert_array_equal(values, before[path], err_msg=path)


def test_predict_gives_the_students_outputs_for_its_view():
    model = distiller()
    model.compile(jit_compile=False)
    outputs = model.predict(dataset(*BATCHES[:2]), verbose=0)
    expected = model.student(tf.concat([batch["observed"] for batch in BATCHES[:2]], axis=0))
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-5, atol=1e-6)


def test_without_a_teacher_it_learns_from_labels():
    model = Distiller(tiny_network(1), view="future")
    model.compile(optimizer=keras.optimizers.Adam(0.02), jit_compile=False)
    data = dataset(random_batch(labels=(0, 1, 2, 0)))
    history = model.fit(data, epochs=8, shuffle=False, verbose=0).history
    assert history["feature_loss"] == [0.0] * 8
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    np.testing.assert_allclose(history["classification_loss"], history["loss"])


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.5, "penalty": "squared", "reduction": "sum", "weight_decay": 0.1},
        {"projection": True, "feature_loss": "unidirectional", "gradient_accumulation": 2},
        {"label_smoothing": 0.1, "class_weights": (0.5, 1.0, 2.0), "focusing": 2.0},
    ],
)
def test_saving_and_loading_gives_the_same_distiller(options, tmp_path: Path):
    model = distiller(**options)
    model.compile(optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"], jit_compile=False)
    data = dataset(*BATCHES[:2])
    model.fit(data, epochs=1, shuffle=False, verbose=0)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert isinstance(loaded, Distiller)
    assert {name: getattr(loaded, name) for name in options if name != "projection"} == {
        name: value for name, value in options.items() if name != "projection"
    }
    assert not loaded.teacher.trainable_variables
    assert evaluate(loaded) == evaluate(model)
    clips = BATCHES[0]["observed"]
    for name, values in model(clips).items():
        np.testing.assert_array_equal(loaded(clips)[name], values)
    # It goes on like the other: with the optimizer's state, and through the same projection.
    for each in (model, loaded):
        each.fit(data, epochs=1, shuffle=False, verbose=0)
    for one, other in zip(model.trainable_variables, loaded.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=one.path)


def test_a_loaded_distiller_has_its_feature_loss_compiled_as_the_saved_one_had(tmp_path: Path):
    model = distiller(xla=POOLING)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.xla == POOLING
    losses = [each.compute_losses(BATCHES[0], training=False)["feature_loss"] for each in (model, loaded)]
    assert float(losses[0]) == float(losses[1]) > 0


@keras.saving.register_keras_serializable(package="test_distiller_in_keras")
def difference_of_means(teacher_map, student_map):
    """One value a sample."""
    own, other = (keras.ops.mean(each, axis=(1, 2, 3)) for each in (student_map, teacher_map))
    return keras.ops.sum(keras.ops.square(own - other), axis=-1)


@pytest.mark.parametrize(
    "loss", [difference_of_means, keras.losses.MeanAbsoluteError(), FeatureLoss("local")]
)
def test_a_feature_loss_may_be_a_function_or_a_loss_of_keras(loss, tmp_path: Path):
    model, batch = distiller(feature_loss=loss), BATCHES[0]
    teacher_map, student_map = model.teacher(batch["future"]), model.student(batch["observed"])
    losses = model.compute_losses(batch)
    expected = np.mean(loss(teacher_map["Mixed_4f"], student_map["Mixed_4f"]))
    np.testing.assert_allclose(losses["feature_loss"], expected, rtol=1e-5)
    parts = float(losses["classification_loss"]) + 2.0 * expected
    np.testing.assert_allclose(losses["loss"], parts, rtol=1e-5)
    assert {"map_variation"} <= set(losses)
    assert "pooling_entropy" not in losses
    before = weights_of(model.student)
    model.compile(optimizer=keras.optimizers.SGD(0.05), jit_compile=False)
    history = model.fit(dataset(*BATCHES[:2]), epochs=8, shuffle=False, verbose=0).history
    assert history["feature_loss"][-1] < history["feature_loss"][0]
    assert not np.array_equal(weights_of(model.student)["conv/kernel"], before["conv/kernel"])
    model.save(tmp_path / "distiller.keras")
    assert evaluate(keras.saving.load_model(tmp_path / "distiller.keras")) == evaluate(model)


def test_a_feature_loss_that_is_neither_name_nor_function_is_refused():
    with pytest.raises(ValueError, match=r"`feature_loss` should be a name or a function\. Received: 0\.3"):
        distiller(feature_loss=0.3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fit_on_two_devices_gives_the_weights_and_numbers_of_one(optimizer):
    def fit() -> tuple[Distiller, dict[str, list[float]]]:
        model = distiller(weight_decay=0.1)
        model.compile(
            optimizer=optimizer, metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2)], jit_compile=False
        )
        data = dataset(*BATCHES[:2])
        return model, model.fit(data, validation_data=data, epochs=2, shuffle=False, verbose=0).history

    one, expected = fit()
    with make_strategy("cpu:2").scope():
        two, history = fit()
    assert set(history) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-3, atol=1e-6, err_msg=name)
    for path, weights in weights_of(one.student).items():
        np.testing.assert_allclose(weights_of(two.student)[path], weights, atol=1e-5, err_msg=path)


def test_fit_takes_a_record_folders_datasets(record_folder):
    records, clip_shape = Records.open(record_folder), (8, 16, 16, 3)
    keras.utils.set_random_seed(0)
    networks = [tiny_network(seed, clip=clip_shape, classes=4, strides=4) for seed in range(2)]
    model = Distiller(*networks, feature_loss="bidirectional")
    model.compile(optimizer="adam")
    data = records.dataset(batch_size=10, crop=16)
    test = records.dataset(split="test", batch_size=8, crop=16)
    history = model.fit(data, validation_data=test, epochs=2, shuffle=False, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert 0 <= history["val_accuracy"][-1] <= 1


def test_networks_with_other_outputs_are_refused():
    clip = keras.layers.Input((2, 4, 4, 3))
    plain = keras.Model(clip, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling3D()(clip)))
    with pytest.raises(ValueError, match=r"`student` should be a functional .* with a dict"):
        Distiller(plain)
    with pytest.raises(ValueError, match=r"`teacher` should be a functional .* with a dict"):
        Distiller(tiny_network(1), plain)
