"""Which network a training builds, and what it refuses of a network of one's own."""

import itertools
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from kdant_tf.config import ConfigError, TrainConfig
from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.networks import (
    NetworkError,
    build_network,
    check_network_settings,
    feature_map_name,
    import_own,
    load_network,
    load_teacher,
)
from kdant_tf.runs import load_run
from tf_records.errors import RunError

pytestmark = pytest.mark.slow

CLIP = (4, 8, 8, 3)
NUMBERS = itertools.count()
GOOD = """
    import keras
    from keras import layers

    def build(num_classes, input_shape):
        clip = layers.Input(input_shape)
        x = layers.Conv3D(4, 3, padding="same", activation="relu")(clip)
        logits = layers.Dense(num_classes)(layers.GlobalAveragePooling3D()(x))
        return keras.Model(clip, {"logits": logits, "map": x})
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module into the current folder and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])

    def write(text: str) -> str:
        name = f"own_network_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    return write


def returning(expression: str, clip: str = "layers.Input(input_shape, name='clip')") -> str:
    return f"""
        import keras
        from keras import layers, ops

        def build(num_classes, input_shape):
            clip = {clip}
            pooled = layers.GlobalAveragePooling3D()(clip)
            logits = layers.Dense(num_classes)(pooled)
            return {expression}
    """


def build_own(model: str) -> keras.Model:
    return build_network(TrainConfig(model=model), 3, CLIP)


@pytest.mark.parametrize(
    ("settings", "name", "feature_map", "shape"),
    [
        ({"width": 0.0625, "endpoint": "Mixed_3b"}, "i3d", "Mixed_3b", (4, 4, 4, 16)),
        ({"model": "tsn", "segments": 2}, "tsn", "frames", (2, 2, 2, 8)),
        ({"model": "frame-mlp"}, "frame_mlp", "hidden", (8, 1024)),
    ],
)
def test_every_model_has_logits_and_one_map(tiny_backbone, settings, name, feature_map, shape):
    backbone = None if name == "i3d" else tiny_backbone
    network = build_network(TrainConfig(**settings, backbone=backbone, dropout=0.0), 5, (8, 32, 32, 3))
    assert network.name == name
    assert feature_map_name(network) == feature_map
    assert network.output["logits"].shape == (None, 5)
    assert network.output[feature_map].shape == (None, *shape)
    outputs = network(np.zeros((2, 8, 32, 32, 3), np.float32))
    assert {key: value.shape for key, value in outputs.items()} == {
        "logits": (2, 5),
        feature_map: (2, *shape),
    }


@pytest.mark.parametrize(("model", "backbone"), [("tsn", "ResNet50"), ("frame-mlp", "ResNet152")])
def test_without_a_backbone_it_is_the_papers(monkeypatch, model, backbone):
    built = []
    for kind in ("tsn", "frame_mlp"):
        monkeypatch.setattr(
            f"kdant_tf.models.networks.build_{kind}", lambda *args, **kwargs: built.append((args, kwargs))
        )
    build_network(TrainConfig(model=model), 3, CLIP)
    ((args, kwargs),) = built
    assert backbone in (*args, *kwargs.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "Mixed_4g"}, r"`endpoint` should be one of .*Mixed_4f.* Received: 'Mixed_4g'"),
        (
            {"model": "tsn", "backbone": "VGG16"},
            r"`backbone` should be one of ResNet50, .* Received: 'VGG16'",
        ),
        (
            {"model": "tsn", "segments": 9},
            r"`segments` should be at most the 8 frames of a clip\. Received: 9",
        ),
    ],
)
def test_settings_that_no_network_has_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_network_settings(TrainConfig(**settings), 8)


def test_as_many_segments_as_frames_and_any_number_without_tsn_are_accepted():
    check_network_settings(TrainConfig(model="tsn", segments=8, backbone="MobileNetV2"), 8)
    check_network_settings(TrainConfig(segments=9), 8)


def test_a_network_of_ones_own_is_built_from_the_current_folder(own):
    network = build_own(f"{own(GOOD)}:build")
    assert feature_map_name(network) == "map"
    assert network.input.shape == (None, *CLIP)
    assert network(np.zeros((1, *CLIP), np.float32))["logits"].shape == (1, 3)


def test_a_three_dimensional_map_is_one_too(own):
    name = own(returning('keras.Model(clip, {"logits": logits, "x": layers.Reshape((-1, 3))(clip)})'))
    assert build_own(f"{name}:build").output["x"].shape == (None, 256, 3)


def test_kdants_own_models_are_no_modules():
    assert [import_own(model) for model in ("i3d", "tsn", "frame-mlp")] == [None] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"Network 'absent_module:build' cannot be imported: .*No module named 'absent_module'\. Give ",
        ),
        ("other = 1", r"cannot be imported: .*has no attribute 'build'\. Give MODULE:FUNCTION"),
        ("def build(:", r"cannot be imported: .*invalid syntax"),
        ("1 / 0", r"cannot be imported: .*division by zero"),
        ("import absent_module", r"cannot be imported: .*No module named 'absent_module'"),
        ("build = 3", r":build\(3, \(4, 8, 8, 3\)\) failed: TypeError: 'int' object is not callable"),
        ("def build(): pass", r"failed: TypeError: build\(\) takes 0 positional arguments but 2 were given"),
        (
            "def build(n, shape): raise RuntimeError('first\\nsecond')",
            r"failed: RuntimeError: first\. See where",
        ),
        ("def build(n, shape): pass", r"Received: NoneType, which is no functional keras\.Model"),
        ("def build(n, shape): return lambda clip: clip", r"Received: function, which is no functional"),
    ],
)
def test_what_cannot_be_imported_or_called_is_refused_in_one_line(own, text, message):
    name = "absent_module" if text is None else own(text)
    with pytest.raises(NetworkError, match=message) as error:
        build_own(f"{name}:build")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("keras.Model(clip, logits)", r"outputs KerasTensor"),
        ('keras.Model(clip, {"logits": logits})', r"outputs \['logits'\]"),
        ('keras.Model(clip, {"scores": logits, "x": clip})', r"outputs \['scores', 'x'\]"),
        ('keras.Model(clip, {"logits": logits, "x": clip, "y": clip})', r"outputs \['logits', 'x', 'y'\]"),
        ("keras.Sequential([clip, layers.Dense(num_classes)])", r"Received: "),
        ('keras.Model(clip, {"logits": layers.Dense(4)(pooled), "x": clip})', r"logits of shape \(None, 4\)"),
        ('keras.Model(clip, {"logits": layers.Dense(3)(clip), "x": clip})', r"logits of shape \(None, 4, 8"),
        ('keras.Model(clip, {"logits": logits, "x": pooled})', r"map of shape \(None, 3\), not 3-D or 5-D"),
        ('keras.Model(clip, {"logits": logits, "x": clip[:, 0]})', r"map of shape \(None, 8, 8, 3\), not"),
        ('keras.Model(clip, {"logits": [logits, logits], "x": clip})', r"Received: "),
        ('keras.Model({"clip": clip}, {"logits": logits, "x": clip * 2})', r"Received: .*input"),
        ('keras.Model([clip, layers.Input((1,))], {"logits": logits, "x": clip * 2})', r"Received: .*input"),
    ],
)  # fmt: skip
def test_networks_with_other_outputs_or_inputs_are_refused_in_one_line(own, expression, message):
    with pytest.raises(
        NetworkError, match=f"should return a keras.Model from clips to a dict.*{message}"
    ) as error:
        build_own(f"{own(returning(expression))}:build")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", ["(4, 8, 9, 3)", "(4, 8, 8, 2)", "(None, 8, 8, 3)"])
def test_a_network_for_other_clips_is_refused(own, shape):
    text = returning('keras.Model(clip, {"logits": logits, "x": clip * 2})', f"layers.Input({shape})")
    with pytest.raises(NetworkError, match=r"Received: an input of shape \(None, "):
        build_own(f"{own(text)}:build")


UNSAVABLE = {
    "lambda": 'keras.Model(clip, {"logits": logits, "x": layers.Lambda(lambda x: 2 * x)(clip)})',
    "unregistered": 'keras.Model(clip, {"logits": logits, "x": Twice()(clip)})',
}
TWICE = """

class Twice(layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.mark.parametrize("kind", UNSAVABLE)
def test_a_network_that_could_not_be_loaded_again_is_refused_before_it_is_trained(own, kind):
    name = own(textwrap.dedent(returning(UNSAVABLE[kind])) + TWICE)
    with pytest.raises(NetworkError, match=r"register_keras_serializable") as error:
        build_own(f"{name}:build")
    assert "\n" not in str(error.value)


def test_a_registered_layer_is_welcome(own):
    text = TWICE.replace("class", '@keras.saving.register_keras_serializable("test")\nclass')
    name = own(textwrap.dedent(returning(UNSAVABLE["unregistered"])) + text)
    assert build_own(f"{name}:build").output["x"].shape == (None, *CLIP)


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A copy of a finished run's config.json, with a small network of the test's own beside it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text((finished_run / "config.json").read_text())
    return tmp_path / "run"


def test_a_runs_own_layers_are_imported_before_its_network_is_loaded(own, run):
    text = TWICE.replace("class", '@keras.saving.register_keras_serializable("test")\nclass')
    name = own(textwrap.dedent(returning(UNSAVABLE["unregistered"])) + text)
    build_own(f"{name}:build").save(run / "model.keras")
    config = run / "config.json"
    config.write_text(config.read_text().replace('"model": "i3d"', f'"model": "{name}:build"'))
    del sys.modules[name]
    keras.saving.get_custom_objects().pop("test>Twice")
    assert load_network(load_run(run)).output["x"].shape == (None, *CLIP)
    (Path.cwd() / f"{name}.py").unlink()
    del sys.modules[name]
    with pytest.raises(NetworkError, match="cannot be imported"):
        load_network(load_run(run))


def test_a_runs_layers_that_are_registered_no_more_are_refused_in_one_line(own, run):
    """Keras says so in ten lines."""
    name = own(textwrap.dedent(returning(UNSAVABLE["unregistered"])) + TWICE)
    import_own(f"{name}:build")(3, CLIP).save(run / "model.keras")
    with pytest.raises(RunError, match=r"model\.keras cannot be read: .*\. Train the run again\.") as error:
        load_network(load_run(run))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["junk", "empty", "cut", "flipped"])
def test_a_damaged_model_is_refused_in_one_line(own, run, damage):
    build_own(f"{own(GOOD)}:build").save(run / "model.keras")
    content = (run / "model.keras").read_bytes()
    flipped = bytearray(content)
    flipped[content.index(b"config.json") + 200] ^= 0x10
    damaged = {"junk": b"junk", "empty": b"", "cut": content[:1000], "flipped": bytes(flipped)}
    (run / "model.keras").write_bytes(damaged[damage])
    with pytest.raises(RunError, match=r"model\.keras cannot be read: .*\. Train the run again\.") as error:
        load_network(load_run(run))
    assert "\n" not in str(error.value)


def test_a_teacher_gives_the_map_that_its_student_learns_from(finished_run, monkeypatch):
    endpoints = ("Conv3d_2c_3x3", "Mixed_3c", "MaxPool3d_4a_3x3", "Mixed_4f")
    trained = build_i3d(4, (8, 32, 32, 3), width=0.0625, endpoints=endpoints)
    saved = keras.Model(trained.input, {key: trained.output[key] for key in ("logits", "Mixed_4f")})
    monkeypatch.setattr("kdant_tf.models.networks.load_network", lambda run: saved)
    clip = np.random.default_rng(0).uniform(-1, 1, (1, 8, 32, 32, 3)).astype(np.float32)
    expected = trained(clip)
    for endpoint in endpoints:
        teacher = load_teacher(load_run(finished_run), TrainConfig(endpoint=endpoint))
        assert set(teacher.output) == {"logits", endpoint}
        for name, value in teacher(clip).items():
            np.testing.assert_array_equal(value, expected[name])


def test_a_teacher_of_another_kind_keeps_its_map(finished_run, monkeypatch):
    saved = build_i3d(4, (8, 32, 32, 3), width=0.0625)
    monkeypatch.setattr("kdant_tf.models.networks.load_network", lambda run: saved)
    student = TrainConfig(model="frame-mlp", endpoint="Mixed_3c")
    assert load_teacher(load_run(finished_run), student) is saved
