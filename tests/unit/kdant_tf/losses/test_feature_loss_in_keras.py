"""FeatureLoss as Keras uses a loss: in `compile` and `fit`, weighted, reduced, saved and loaded."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdant_tf.losses import FEATURE_LOSS_NAMES, PENALTIES, REDUCTIONS
from kdant_tf.losses.features import FeatureLoss, feature_loss

pytestmark = pytest.mark.slow


def random_map(seed: int, *shape: int) -> np.ndarray:
    return np.maximum(2 * np.random.default_rng(seed).standard_normal(shape), 0).astype(np.float32)


STUDENT, TEACHER = random_map(1, 3, 1, 2, 2, 4), random_map(2, 3, 1, 2, 2, 4)


@pytest.mark.parametrize("chunk", [0, 3])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", FEATURE_LOSS_NAMES)
def test_it_is_feature_loss(name, penalty, reduction, chunk):
    settings = {"alpha": 0.7, "penalty": penalty, "delta": 0.5, "chunk": chunk}
    loss = FeatureLoss(name, map_reduction=reduction, **settings)
    expected = feature_loss(name, STUDENT, TEACHER, reduction=reduction, **settings)
    assert loss.name == name
    np.testing.assert_allclose(loss(TEACHER, STUDENT), expected, rtol=1e-5)


@pytest.mark.parametrize("chunk", [0, 3])
def test_each_sample_has_its_own_loss_and_weight(chunk):
    each = FeatureLoss(chunk=chunk, reduction=None)(TEACHER, STUDENT)
    alone = [feature_loss("bidirectional", STUDENT[i : i + 1], TEACHER[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(each, alone, rtol=1e-5)
    weights = np.array([0.0, 1.0, 3.0], np.float32)
    weighted = FeatureLoss(chunk=chunk)(TEACHER, STUDENT, sample_weight=weights)
    np.testing.assert_allclose(weighted, np.mean(weights * np.array(alone)), rtol=1e-5)


@pytest.mark.parametrize("chunk", [0, 3])
def test_weighted_gradients_are_those_of_each_sample_and_none_reaches_the_teacher(chunk):
    student, teacher = tf.Variable(STUDENT), tf.Variable(TEACHER)
    weights = np.array([0.0, 1.0, 3.0], np.float32)
    with tf.GradientTape() as tape:
        weighted = FeatureLoss(chunk=chunk)(teacher, student, sample_weight=weights)
    to_student, to_teacher = tape.gradient(weighted, [student, teacher], unconnected_gradients="zero")
    with tf.GradientTape() as tape:
        plain = feature_loss("bidirectional", student, teacher, chunk=chunk)
    expected = weights[:, None, None, None, None] * tape.gradient(plain, student).numpy()
    np.testing.assert_allclose(to_student, expected, rtol=1e-4, atol=1e-7)
    assert np.abs(expected).max() > 0
    assert not np.any(to_teacher)


def build_student() -> keras.Model:
    clip = keras.Input((1, 2, 2, 5))
    return keras.Model(clip, keras.layers.Dense(4, "relu", name="map")(clip))


def test_fit_brings_a_student_nearer_to_its_teacher(tmp_path):
    keras.utils.set_random_seed(0)
    student, clips = build_student(), random_map(3, 3, 1, 2, 2, 5)
    student.compile(keras.optimizers.SGD(0.01), loss=FeatureLoss(penalty="squared", map_reduction="sum"))
    before = student.evaluate(clips, TEACHER, verbose=0)
    np.testing.assert_allclose(
        before, feature_loss("bidirectional", student(clips), TEACHER, None, "squared", 1.0, "sum"), rtol=1e-5
    )
    losses = student.fit(clips, TEACHER, epochs=5, batch_size=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert loaded.loss.get_config() == student.loss.get_config()
    expected = student.evaluate(clips, TEACHER, verbose=0)
    np.testing.assert_allclose(loaded.evaluate(clips, TEACHER, verbose=0), expected, rtol=1e-6)


def test_it_is_one_loss_among_others_of_a_network_with_two_outputs():
    clip = keras.Input((1, 2, 2, 5))
    maps = keras.layers.Dense(4, "relu")(clip)
    logits = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling3D()(maps))
    student = keras.Model(clip, {"logits": logits, "map": maps})
    weights = {"logits": 1.0, "map": 0.3}
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("sgd", loss={"logits": cross_entropy, "map": FeatureLoss()}, loss_weights=weights)
    clips, labels = random_map(3, 3, 1, 2, 2, 5), np.array([0, 1, 1])
    result = student.evaluate(clips, {"logits": labels, "map": TEACHER}, verbose=0, return_dict=True)
    outputs = student(clips)
    both = cross_entropy(labels, outputs["logits"]) + 0.3 * feature_loss(
        "bidirectional", outputs["map"], TEACHER
    )
    np.testing.assert_allclose(result["loss"], both, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"name": "unidirectional", "alpha": 2.0, "penalty": "squared", "map_reduction": "sum", "chunk": 5}],
)
def test_it_comes_back_from_its_config(settings):
    loss = FeatureLoss(delta=0.25, reduction="mean_with_sample_weight", **settings)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, FeatureLoss)
    assert again.get_config() == loss.get_config()
    assert float(again(TEACHER, STUDENT)) == float(loss(TEACHER, STUDENT))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_maps_and_policies_give_a_float32_loss(dtype):
    half = [tf.cast(each, dtype) for each in (TEACHER, STUDENT)]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        value = FeatureLoss()(*half)
    finally:
        keras.config.set_dtype_policy(policy)
    assert value.dtype == tf.float32
    assert float(value) == float(FeatureLoss()(*(tf.cast(each, "float32") for each in half)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "both"}, r"`name` should be one of none, direct.*'both'"),
        ({"penalty": "l1"}, r"`penalty` should be one of huber, squared.*'l1'"),
        ({"delta": 0.0}, r"`delta` should be positive\. Received: 0\.0"),
        ({"map_reduction": "max"}, r"`map_reduction` should be one of mean, sum.*'max'"),
        ({"alpha": -1.0}, r"`alpha` should be finite"),
        ({"chunk": -1}, r"`chunk` should be a number of queries"),
        ({"reduction": "sum"}, r"`reduction` is Keras', .*give map_reduction='sum'"),
        ({"reduction": "all"}, r"Invalid value for argument `reduction`"),
    ],
)
def test_settings_out_of_range_are_refused_when_it_is_made(settings, message):
    with pytest.raises(ValueError, match=message):
        FeatureLoss(**settings)
