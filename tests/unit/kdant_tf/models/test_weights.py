"""Weights from elsewhere: all of them by name, or none, and a sentence for every way it can fail."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.weights import (
    WeightsError,
    assign_weights,
    find_checkpoint,
    load_deepmind_checkpoint,
    load_keras_weights,
)

pytestmark = pytest.mark.slow

DEEPMIND = Path(__file__).resolve().parents[5] / "shared" / "data" / "i3d"
DATA = ".data-00000-of-00001"
HEAD = "Logits.Conv3d_0c_1x1.conv_3d"
MISNAMED = "Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w"
CLIP = (8, 32, 32)


def deepmind_name(variable: keras.Variable) -> str:
    """The name in DeepMind's checkpoints, after the scope."""
    path = variable.path.replace(".", "/")
    return path.removesuffix("kernel") + "w" if path.endswith("kernel") else re.sub("bias$", "b", path)


def draw(names_and_shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, dtype=np.float32) for name, shape in sorted(names_and_shapes.items())}


def write_checkpoint(prefix: Path, arrays: dict[str, np.ndarray]) -> Path:
    """What TensorFlow 1's Saver writes: PREFIX.index and PREFIX.data-00000-of-00001."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    return prefix


def fill(network: keras.Model, value: float = 7.0) -> None:
    for variable in network.weights:
        variable.assign(np.full(variable.shape, value, np.float32))


def untouched(network: keras.Model, value: float = 7.0) -> bool:
    return all(np.all(variable.numpy() == value) for variable in network.weights)


def assert_holds(network: keras.Model, arrays: dict[str, np.ndarray], scope: str, head: bool = True) -> None:
    """Every variable has the values of its name; without `head`, the head's are as `fill` left them."""
    seen = set()
    for variable in network.weights:
        name = scope + deepmind_name(variable)
        seen.add(name)
        if variable.path.startswith(HEAD) and not head:
            assert np.all(variable.numpy() == 7.0), name
        else:
            np.testing.assert_array_equal(variable.numpy().ravel(), arrays[name].ravel(), err_msg=name)
    assert len(seen) == 230


@pytest.fixture(scope="module")
def rgb() -> keras.Model:
    """The published network for Kinetics-400."""
    return build_i3d(400, (*CLIP, 3))


@pytest.fixture(scope="module")
def flow() -> keras.Model:
    return build_i3d(400, (*CLIP, 2))


@pytest.fixture(scope="module")
def values(rgb) -> dict[str, np.ndarray]:
    """Values of an RGB checkpoint under DeepMind's names, derived from the network's."""
    return draw({f"RGB/inception_i3d/{deepmind_name(v)}": tuple(v.shape) for v in rgb.weights})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, values) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("deepmind") / "model.ckpt", values)


@pytest.fixture
def copy(tmp_path, checkpoint) -> Path:
    """The checkpoint under another name, whose files can be damaged."""
    for part in (".index", DATA):
        os.link(f"{checkpoint}{part}", tmp_path / f"copy.ckpt{part}")
    return tmp_path / "copy.ckpt"


def replace(path: str, content: bytes) -> None:
    """Writes a new file, so that hard links keep the old one."""
    os.unlink(path)
    Path(path).write_bytes(content)


def published(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one of DeepMind's checkpoints, from its index alone."""
    prefix = DEEPMIND / f"{name}.ckpt"
    if not Path(f"{prefix}.index").is_file():
        pytest.skip(f"no {prefix}.index")
    shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    assert len(shapes) == 230
    return {name: tuple(shape) for name, shape in shapes.items()}


def as_kinetics_600(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The Kinetics-600 checkpoint as far as it differs: no scope, BN of five axes, slots, a counter."""
    variables: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        own = name.removeprefix("RGB/inception_i3d/")
        if own.startswith("Logits"):
            variables[own] = (*shape[:-1], 600)
        else:
            variables[own] = (1, 1, 1, 1, *shape) if "batch_norm" in own else shape
    slots = {
        f"{name}/Momentum": shape for name, shape in variables.items() if name.endswith(("/w", "/b", "/beta"))
    }
    return {**variables, **slots, "global_step": ()}


@pytest.mark.parametrize(("file", "scope"), [("rgb_imagenet", "RGB"), ("flow_imagenet", "Flow")])
def test_deepminds_own_names_are_loaded_each_where_it_belongs(request, tmp_path, file, scope):
    network = request.getfixturevalue(scope.lower())
    arrays = draw(published(file))
    fill(network)
    assert load_deepmind_checkpoint(network, write_checkpoint(tmp_path / "model.ckpt", arrays)) is True
    assert_holds(network, arrays, f"{scope}/inception_i3d/")
    assert f"{scope}/inception_i3d/{MISNAMED}" in arrays


def test_kinetics_600_is_loaded_without_its_slots_and_its_counter(rgb, tmp_path):
    arrays = draw(as_kinetics_600(published("rgb_imagenet")))
    assert len(arrays) == 230 + 57 * 2 + 2 + 1
    write_checkpoint(tmp_path / "model.ckpt", arrays)
    fill(rgb)
    assert load_deepmind_checkpoint(rgb, tmp_path) is False
    assert_holds(rgb, arrays, "", head=False)
    kinetics_600 = build_i3d(600, (*CLIP, 3))
    assert load_deepmind_checkpoint(kinetics_600, tmp_path) is True
    assert_holds(kinetics_600, arrays, "")


def test_a_network_of_other_classes_keeps_its_head(checkpoint, values):
    network = build_i3d(21, (*CLIP, 3))
    fill(network)
    assert load_deepmind_checkpoint(network, checkpoint) is False
    assert_holds(network, values, "RGB/inception_i3d/", head=False)


@pytest.mark.parametrize("part", ["", ".index", DATA], ids=["prefix", "index", "data"])
def test_a_checkpoint_is_found_by_its_prefix_or_one_of_its_files(tmp_path, part):
    for name in ("a.ckpt.index", f"a.ckpt{DATA}", "b.ckpt.index"):
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path / f"a.ckpt{part}") == str(tmp_path / "a.ckpt")
    assert find_checkpoint(str(tmp_path / f"a.ckpt{part}")) == str(tmp_path / "a.ckpt")


def test_a_checkpoint_is_found_by_its_folder_whatever_else_lies_there(tmp_path):
    for name in ("model.ckpt.index", f"model.ckpt{DATA}", "checkpoint", "README.md", "model.ckpt.meta"):
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path) == str(tmp_path / "model.ckpt")


def test_a_folder_with_several_checkpoints_or_none_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"should have one checkpoint.*Found: none\.$"):
        find_checkpoint(tmp_path)
    for name in ("rgb.ckpt.index", "flow.ckpt.index"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=r"Found: flow\.ckpt, rgb\.ckpt\.$"):
        find_checkpoint(tmp_path)


def test_a_path_that_is_no_checkpoint_is_named(rgb, tmp_path):
    (tmp_path / "file.ckpt").write_text("junk")
    for path in (tmp_path / "absent.ckpt", tmp_path / "file.ckpt", tmp_path / f"absent{DATA}"):
        with pytest.raises(WeightsError, match=r"There is no checkpoint .*\.index does not exist\. Give the"):
            load_deepmind_checkpoint(rgb, path)


def scoped(name: str) -> str:
    return f"RGB/inception_i3d/{name}"


def test_a_missing_variable_is_named_and_nothing_assigned(rgb, tmp_path, values):
    arrays = {name: value for name, value in values.items() if name != scoped(MISNAMED)}
    arrays[scoped(f"{MISNAMED}/Momentum")] = values[scoped(MISNAMED)]
    write_checkpoint(tmp_path / "model.ckpt", arrays)
    fill(rgb)
    with pytest.raises(WeightsError, match=f"model.ckpt lacks the variable {MISNAMED}: ") as error:
        load_deepmind_checkpoint(rgb, tmp_path)
    assert "\n" not in str(error.value)
    assert untouched(rgb)


def test_a_left_over_variable_is_named_and_nothing_assigned(rgb, tmp_path, values):
    extra = {scoped("Mixed_6a/conv_3d/w"): np.zeros((2, 2), np.float32)}
    write_checkpoint(tmp_path / "model.ckpt", {**values, **extra})
    fill(rgb)
    message = r"model\.ckpt has, and the network lacks, the variable Mixed_6a/conv_3d/w: "
    with pytest.raises(WeightsError, match=message):
        load_deepmind_checkpoint(rgb, tmp_path)
    assert untouched(rgb)


def test_a_misshapen_variable_is_named_with_both_shapes_and_nothing_assigned(rgb, tmp_path, values):
    # Named last in the alphabet: all the others have fitted by then.
    name = "Mixed_5c/Branch_3/Conv3d_0b_1x1/conv_3d/w"
    write_checkpoint(tmp_path / "model.ckpt", {**values, scoped(name): np.zeros((832, 128), np.float32)})
    fill(rgb)
    message = rf"{name} has shape \(832, 128\), the network's has \(1, 1, 1, 832, 128\)\."
    with pytest.raises(WeightsError, match=message):
        load_deepmind_checkpoint(rgb, tmp_path)
    assert untouched(rgb)


@pytest.mark.parametrize("part", ["w", "b"])
def test_half_a_head_is_refused(rgb, tmp_path, values, part):
    name = f"Logits/Conv3d_0c_1x1/conv_3d/{part}"
    arrays = {key: value for key, value in values.items() if key != scoped(name)}
    write_checkpoint(tmp_path / "model.ckpt", arrays)
    fill(rgb)
    with pytest.raises(WeightsError, match=f"lacks the variable {name}: "):
        load_deepmind_checkpoint(rgb, tmp_path)
    assert untouched(rgb)


def test_weights_of_the_other_modality_are_refused(flow, checkpoint):
    fill(flow)
    message = r"Conv3d_1a_7x7/conv_3d/w has shape \(7, 7, 7, 3, 64\), the network's has \(7, 7, 7, 2, 64\)"
    with pytest.raises(WeightsError, match=f"{message}.*modality"):
        load_deepmind_checkpoint(flow, checkpoint)
    assert untouched(flow)


def test_a_narrow_network_is_refused(checkpoint):
    narrow = build_i3d(400, (*CLIP, 3), width=0.5)
    fill(narrow)
    with pytest.raises(WeightsError, match=r"width 1\.0\. Received a network of width 0\.5\. Use --width 1"):
        load_deepmind_checkpoint(narrow, checkpoint)
    assert untouched(narrow)


def test_another_kind_of_network_is_refused(checkpoint):
    clip = layers.Input((*CLIP, 3))
    other = keras.Model(clip, layers.GlobalAveragePooling3D()(clip), name="other")
    with pytest.raises(WeightsError, match=r"fits I3D only\. Received: network 'other'\.$"):
        load_deepmind_checkpoint(other, checkpoint)


def test_a_missing_data_file_is_named(rgb, copy):
    Path(f"{copy}{DATA}").unlink()
    fill(rgb)
    with pytest.raises(WeightsError, match=r"copy\.ckpt cannot be read: .*data-00000-of-00001.*fetch them"):
        load_deepmind_checkpoint(rgb, copy)
    assert untouched(rgb)


@pytest.mark.parametrize("share", [0.5, 0.999999])
def test_a_data_file_cut_short_is_refused(rgb, copy, share):
    content = Path(f"{copy}{DATA}").read_bytes()
    replace(f"{copy}{DATA}", content[: int(share * len(content))])
    fill(rgb)
    with pytest.raises(WeightsError, match=r"copy\.ckpt cannot be read: .*\. Delete its files and fetch"):
        load_deepmind_checkpoint(rgb, copy)
    assert untouched(rgb)


@pytest.mark.parametrize("share", [0.4, 0.999999])
def test_a_flipped_bit_in_the_data_is_noticed(rgb, copy, share):
    content = bytearray(Path(f"{copy}{DATA}").read_bytes())
    content[int(share * len(content))] ^= 0x10
    replace(f"{copy}{DATA}", content)
    fill(rgb)
    with pytest.raises(WeightsError, match=r"cannot be read: .*Checksum does not match") as error:
        load_deepmind_checkpoint(rgb, copy)
    assert "\n" not in str(error.value)
    assert untouched(rgb)


@pytest.mark.parametrize("length", [0, 5000, -1])
def test_an_index_cut_short_is_refused(rgb, copy, length):
    replace(f"{copy}.index", Path(f"{copy}.index").read_bytes()[:length])
    with pytest.raises(WeightsError, match=r"copy\.ckpt cannot be read: .*sstable"):
        load_deepmind_checkpoint(rgb, copy)


@given(place=st.integers(0, 9000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_index_is_noticed(rgb, checkpoint, tmp_path_factory, place, bit):
    damaged = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    content = bytearray(Path(f"{checkpoint}.index").read_bytes())
    content[place] ^= 1 << bit
    Path(f"{damaged}.index").write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.ckpt cannot be read: ") as error:
        load_deepmind_checkpoint(rgb, damaged)
    assert "\n" not in str(error.value)


class Recorder:
    """A variable that counts its assignments."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.values: list[np.ndarray] = []

    def assign(self, value: np.ndarray) -> None:
        self.values.append(value)


SHAPES = {"a/w": (2, 3), "b/w": (1, 3), "Logits/w": (3, 4), "Logits/b": (4,)}


def recorders(**shapes: tuple[int, ...]) -> dict[str, Recorder]:
    return {name: Recorder(shape) for name, shape in {**SHAPES, **shapes}.items()}


def test_every_variable_is_assigned_once():
    variables, arrays = recorders(), draw(SHAPES)
    assert assign_weights(variables, arrays, "here") is True
    for name, variable in variables.items():
        (value,) = variable.values
        np.testing.assert_array_equal(value, arrays[name])


def test_leading_axes_of_length_one_are_dropped_and_no_others():
    variables = recorders()
    arrays = draw({**SHAPES, "a/w": (1, 1, 2, 3), "b/w": (1, 1, 3)})
    assign_weights(variables, arrays, "here")
    np.testing.assert_array_equal(variables["a/w"].values[0], arrays["a/w"][0, 0])
    assert variables["b/w"].values[0].shape == (1, 3)
    for shape in ((2, 1, 3), (2, 2, 3), (6,), (3, 2), (2, 3, 1), ()):
        misshapen = recorders()
        with pytest.raises(WeightsError, match=re.escape(f"here: a/w has shape {shape}, the network's has")):
            assign_weights(misshapen, draw({**SHAPES, "a/w": shape}), "here")
        assert not any(variable.values for variable in misshapen.values())


def test_of_several_wrong_variables_one_is_named_and_the_others_counted():
    with pytest.raises(WeightsError, match=r"here lacks the variable a/w and 1 others: "):
        assign_weights(recorders(), draw({"Logits/w": (3, 4), "Logits/b": (4,)}), "here")


def test_a_head_that_disagrees_in_more_than_its_classes_is_misshapen():
    with pytest.raises(WeightsError, match=r"Logits/w has shape \(5, 4\)"):
        assign_weights(recorders(), draw({**SHAPES, "Logits/w": (5, 4)}), "here")


def small_network(num_classes: int = 4, channels: int = 2, head: str = "Logits") -> keras.Model:
    clip = layers.Input((2, 4, 4, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv3D(channels, 1, name="conv")(clip))
    logits = layers.Dense(num_classes, name=head)(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "map": x}, name="small")


@pytest.fixture(scope="module")
def small() -> keras.Model:
    network = small_network()
    for number, variable in enumerate(network.weights):
        variable.assign(np.full(variable.shape, 10 + number, np.float32))
    return network


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "network.keras"
    small.save(path)
    return path


def test_a_saved_i3d_is_loaded_by_name_into_one_of_another_clip_and_endpoint(tmp_path):
    network, other = build_i3d(4, (*CLIP, 3), width=0.0625), build_i3d(4, (16, 48, 32, 3), 0.0625, ())
    for number, variable in enumerate(network.weights):
        variable.assign(np.full(variable.shape, number, np.float32))
    network.save(tmp_path / "network.keras")
    assert load_keras_weights(other, tmp_path / "network.keras") is True
    assert [variable.path for variable in other.weights] == [variable.path for variable in network.weights]
    for number, variable in enumerate(other.weights):
        assert np.all(variable.numpy() == number), variable.path


def test_a_saved_network_of_other_classes_gives_all_but_its_head(small, saved):
    network = small_network(num_classes=7)
    fill(network)
    assert load_keras_weights(network, saved) is False
    for variable, expected in zip(network.weights, small.weights, strict=True):
        if variable.path.startswith("Logits/"):
            assert np.all(variable.numpy() == 7.0)
        else:
            np.testing.assert_array_equal(variable, expected, err_msg=variable.path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 3}, r"Logits/kernel has shape \(2, 4\), the network's has \(3, 4\)\. Give weights of"),
        ({"head": "scores"}, r"network\.keras lacks the variable scores/bias and 1 others: "),
    ],
)
def test_a_saved_network_of_another_kind_is_refused(saved, arguments, message):
    network = small_network(**arguments)
    fill(network)
    with pytest.raises(WeightsError, match=message):
        load_keras_weights(network, saved)
    assert untouched(network)


def test_a_file_that_is_no_saved_network_is_refused(small, saved, tmp_path):
    content = saved.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(b"config.json") + 200] ^= 0x10
    damaged = {"junk": b"junk", "empty": b"", "cut": content[: len(content) // 2], "flipped": bytes(flipped)}
    for name, damage in damaged.items():
        (tmp_path / f"{name}.keras").write_bytes(damage)
    for name in ("absent", *damaged):
        with pytest.raises(WeightsError, match=rf"{name}\.keras cannot be read as a Keras model: ") as error:
            load_keras_weights(small, tmp_path / f"{name}.keras")
        assert "\n" not in str(error.value)


def test_variables_of_one_name_cannot_be_told_apart(saved):
    clip = layers.Input((3,))
    x = clip
    for _ in range(2):
        inner = layers.Input((3,))
        x = keras.Model(inner, layers.Dense(3, name="same")(inner))(x)
    network = keras.Model(clip, x, name="twice")
    with pytest.raises(WeightsError, match=r"Network 'twice' has several variables of one name"):
        load_keras_weights(network, saved)


def test_the_head_of_a_run_of_other_classes_is_loaded_by_name(small, saved, caplog):
    network = small_network(num_classes=3)
    fill(network)
    names = (("run", "walk", "golf", "jump"), ("jump", "swim", "run"))
    assert load_keras_weights(network, saved, names=names) is True
    given = {variable.path: variable.numpy() for variable in small.weights}
    for variable in network.weights:
        if variable.path.startswith("Logits/"):
            own, theirs = variable.numpy(), given[variable.path]
            np.testing.assert_array_equal(own[..., 0], theirs[..., 3])
            np.testing.assert_array_equal(own[..., 2], theirs[..., 0])
            assert np.all(own[..., 1] == 7.0)
    assert "(2 of these 3 classes: jump, run); the others begin at random." in caplog.text
