"""`--init`: which weights it stands for, where they are fetched from, and what it says offline."""

import functools
import hashlib
import shutil
import socket
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.models import weights
from kdant_tf.models.baselines import HEAD, STEM, build_frame_mlp, build_tsn
from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.weights import WeightsError, fetch_kinetics_checkpoint, initialize
from tf_records.errors import RunError

pytestmark = pytest.mark.slow

DEEPMIND = Path(__file__).resolve().parents[5] / "shared" / "data" / "i3d"
COMMIT = "https://github.com/google-deepmind/kinetics-i3d/raw/0667e889a5904b4dc122e0ded4c332f49f8df42c"
PARTS = ("index", "data-00000-of-00001")


def small_network(num_classes: int = 4) -> keras.Model:
    """Any network whose last layer is called Logits."""
    clip = layers.Input((2, 4, 4, 3))
    x = layers.Conv3D(2, 1, name="conv")(clip)
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "map": x}, name="small")


def values_of(network: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in network.weights}


def changed(network: keras.Model, before: dict[str, np.ndarray]) -> set[str]:
    return {path for path, value in values_of(network).items() if not np.array_equal(value, before[path])}


@pytest.fixture
def keras_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for `get_file`, in place of the user's own."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(
        keras.utils, "get_file", functools.partial(keras.utils.get_file, cache_dir=str(folder))
    )
    return folder


@pytest.fixture
def offline(keras_cache, monkeypatch) -> None:
    """No name can be resolved, and nothing is cached."""

    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """A folder in place of DeepMind's repository, with a checkpoint of each modality."""
    folder = tmp_path / "mirror" / "data" / "checkpoints"
    for modality in ("rgb", "flow"):
        (folder / f"{modality}_imagenet").mkdir(parents=True)
        for part in PARTS:
            (folder / f"{modality}_imagenet" / f"model.ckpt.{part}").write_text(f"{modality} {part}")
    monkeypatch.setattr(weights, "REPOSITORY_URL", f"file://{tmp_path}/mirror")
    sums = {f"{m}_imagenet": hashlib.sha256(f"{m} index".encode()).hexdigest() for m in ("rgb", "flow")}
    monkeypatch.setattr(weights, "_INDEX_SHA256", sums)
    return folder


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_the_files_are_deepminds_of_the_modality(monkeypatch, tmp_path, modality):
    asked = []

    def get_file(name, origin, cache_subdir, file_hash):
        asked.append((origin, file_hash is not None))
        return str(tmp_path / cache_subdir / name)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    prefix = Path(fetch_kinetics_checkpoint(modality))
    assert asked == [
        (f"{COMMIT}/data/checkpoints/{modality}_imagenet/model.ckpt.{part}", part == "index")
        for part in PARTS
    ]
    assert prefix == tmp_path / "kdant" / f"{modality}_imagenet.ckpt"


@pytest.mark.parametrize("name", ["rgb_imagenet", "flow_imagenet"])
def test_the_expected_checksum_is_of_deepminds_index(name):
    index = DEEPMIND / f"{name}.ckpt.index"
    if not index.is_file():
        pytest.skip(f"no {index}")
    assert weights._INDEX_SHA256[name] == hashlib.sha256(index.read_bytes()).hexdigest()


def test_files_are_downloaded_once_into_the_keras_cache(keras_cache, mirror, capsys):
    prefix = fetch_kinetics_checkpoint("flow")
    for part in PARTS:
        assert Path(f"{prefix}.{part}").read_text() == f"flow {part}"
        assert Path(f"{prefix}.{part}").parent == keras_cache / "kdant"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Downloading data from file://" in printed.err
    shutil.rmtree(mirror)
    assert fetch_kinetics_checkpoint("flow") == prefix
    assert capsys.readouterr().out == ""


def test_a_download_of_other_bytes_is_refused(keras_cache, mirror):
    (mirror / "rgb_imagenet" / "model.ckpt.index").write_text("something else")
    with pytest.raises(WeightsError, match=r"could not be downloaded: .*hash"):
        fetch_kinetics_checkpoint("rgb")


def test_offline_it_says_what_to_do_in_one_line(offline):
    with pytest.raises(WeightsError) as error:
        fetch_kinetics_checkpoint("rgb")
    message = str(error.value)
    assert "\n" not in message
    assert "rgb_imagenet weights could not be downloaded" in message
    assert f"{COMMIT}/data/checkpoints/rgb_imagenet/model.ckpt.index" in message
    assert "Name or service not known" in message
    assert "give their folder as --init" in message


def test_kinetics_is_loaded_into_an_i3d_whose_head_stays_random(monkeypatch, tmp_path):
    network = build_i3d(3, (8, 32, 32, 3))
    names = {
        path: "RGB/inception_i3d/" + path.replace(".", "/").replace("/kernel", "/w")
        for path in values_of(network)
    }
    arrays = {name: np.full(network.weights[i].shape, i, np.float32) for i, name in enumerate(names.values())}
    arrays["RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/w"] = np.ones((1, 1, 1, 1024, 400), np.float32)
    arrays["RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/b"] = np.ones(400, np.float32)
    del arrays["RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/bias"]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "rgb_imagenet.ckpt"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    monkeypatch.setattr(keras.utils, "get_file", lambda name, *args, **kwargs: str(tmp_path / name))
    before = values_of(network)
    initialize(network, "kinetics", modality="rgb")
    for number, (path, value) in enumerate(values_of(network).items()):
        if path.startswith("Logits"):
            np.testing.assert_array_equal(value, before[path])
        else:
            assert np.all(value == number), path
    again = build_i3d(3, (8, 32, 32, 3))
    initialize(again, str(tmp_path), modality="rgb")
    assert np.all(again.weights[0].numpy() == 0)
    assert np.all(again.weights[1].numpy() == 1)


def test_a_narrow_i3d_is_refused_before_anything_is_downloaded(offline):
    with pytest.raises(WeightsError, match=r"Received a network of width 0\.0625\. Use --width 1"):
        initialize(build_i3d(4, (8, 32, 32, 3), width=0.0625), "kinetics", modality="rgb")


def test_random_leaves_every_weight_alone(offline):
    network = small_network()
    before = values_of(network)
    for init in ("random", None):
        initialize(network, init, modality="rgb")
        assert not changed(network, before)


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A finished run of `small_network`."""
    (tmp_path / "run").mkdir()
    shutil.copy(finished_run / "config.json", tmp_path / "run")
    small_network().save(tmp_path / "run" / "model.keras")
    return tmp_path / "run"


@pytest.mark.parametrize("file", ["", "model.keras"])
@pytest.mark.parametrize("num_classes", [4, 5])
def test_a_run_gives_its_weights_and_its_head_where_the_classes_agree(run, file, num_classes):
    source = values_of(keras.saving.load_model(run / "model.keras"))
    network = small_network(num_classes)
    before = values_of(network)
    initialize(network, str(run / file), modality="rgb")
    for path, value in values_of(network).items():
        kept = path.startswith("Logits") and num_classes != 4
        np.testing.assert_array_equal(value, before[path] if kept else source[path], err_msg=path)


def test_a_run_that_is_not_finished_is_refused(run):
    (run / "model.keras").unlink()
    with pytest.raises(RunError, match=r"no model\.keras: its training has not finished"):
        initialize(small_network(), str(run), modality="rgb")


def test_a_path_that_is_nothing_is_named(tmp_path):
    network = small_network()
    for init in ("kinetcs", str(tmp_path / "absent.keras"), str(tmp_path / "absent" / "model.ckpt")):
        with pytest.raises(WeightsError, match="or a path that exists") as error:
            initialize(network, init, modality="rgb")
        assert repr(init) in str(error.value)
    with pytest.raises(WeightsError, match=r"should have one checkpoint.*Found: none"):
        initialize(network, str(tmp_path), modality="rgb")


def tiny(build, backbone: str) -> keras.Model:
    return build(3, (4, 32, 32, 3), backbone)


@pytest.mark.parametrize(
    ("build", "init"), [(build_tsn, "imagenet"), (build_frame_mlp, "imagenet"), (build_frame_mlp, None)]
)
def test_imagenet_is_loaded_into_the_backbone_and_nothing_else(tiny_backbone, build, init):
    network = tiny(build, tiny_backbone)
    before = values_of(network)
    initialize(network, init, modality="rgb")
    now = values_of(network)
    backbone = {path for path in before if path.startswith(("conv/", "norm/"))}
    assert len(backbone) == 6
    assert all(np.all(now[path] == np.float32(0.01)) for path in backbone)
    assert not changed(network, before) - backbone


def test_a_tsn_without_init_is_random(tiny_backbone):
    network = tiny(build_tsn, tiny_backbone)
    before = values_of(network)
    initialize(network, None, modality="rgb")
    assert not changed(network, before)


def test_imagenet_into_a_network_without_backbone_is_refused():
    with pytest.raises(WeightsError, match=r"`--init imagenet` .*network 'small'"):
        initialize(small_network(), "imagenet", modality="rgb")


def test_imagenet_offline_says_what_to_do_in_one_line(offline):
    network = build_frame_mlp(3, (2, 32, 32, 3), "MobileNetV2")
    before = values_of(network)
    with pytest.raises(
        WeightsError, match=r"ImageNet weights of MobileNetV2 could not be downloaded"
    ) as error:
        initialize(network, None, modality="rgb")
    assert "\n" not in str(error.value)
    assert "--init random" in str(error.value)
    assert not changed(network, before)


def test_a_frame_mlp_is_loaded_with_its_stem(tiny_backbone, tmp_path):
    source = tiny(build_frame_mlp, tiny_backbone)
    source.save(tmp_path / "network.keras")
    network = tiny(build_frame_mlp, tiny_backbone)
    initialize(network, str(tmp_path / "network.keras"), modality="rgb")
    assert not changed(network, values_of(source))
    assert not network.get_layer(STEM).trainable
    assert network.get_layer(HEAD).trainable


def test_imagenet_into_ones_own_network_needs_one_backbone():
    clip = layers.Input((2, 4, 4, 3))
    names = ("ResNet50", "ResNet101")
    x = clip
    for name in names:
        inner = layers.Input(x.shape[1:])
        x = keras.Model(inner, layers.Conv3D(3, 1)(inner), name=name)(x)
    own = keras.Model(clip, {"logits": layers.GlobalAveragePooling3D()(x), "map": x}, name="own")
    with pytest.raises(WeightsError, match=r"`--init imagenet`.*network 'own'"):
        initialize(own, "imagenet", modality="rgb")
