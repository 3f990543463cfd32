"""Where a network's first weights come from: `--init random|kinetics|imagenet|PATH`."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
from absl import logging

from kdant_tf.models.frame_mlp import STEM
from kdant_tf.models.imagenet import BACKBONES, build_backbone
from kdant_tf.models.weights import (
    WeightsError,
    check_published_width,
    first_line,
    load_deepmind_checkpoint,
    load_keras_weights,
)
from kdant_tf.runs import CONFIG_NAME, load_run

# DeepMind's own repository, at the commit whose files these are.
REPOSITORY_URL = (
    "https://github.com/google-deepmind/kinetics-i3d/raw/0667e889a5904b4dc122e0ded4c332f49f8df42c"
)
_INDEX_SHA256 = {
    "rgb_imagenet": "f4bfd6f4af485f276c68333d3eca3697b691bb647f0167a03fe021147ca7f8eb",
    "flow_imagenet": "71594ac5f63cb0eb58512a13b56097dc0368d09e5959dffcc6e7a45b19832366",
}


def initialize(network: keras.Model, init: str | None, *, modality: str) -> None:
    """Loads first weights into a network of `build_network`.

    Args:
        network: whose head stays random where the number of classes differs.
        init: "random"; "kinetics", DeepMind's I3D from ImageNet and Kinetics; "imagenet", Keras'
            backbones; or the path of a DeepMind checkpoint, a run folder or a .keras file. None is
            "imagenet" for a network with a frozen backbone, "random" for others.
        modality: of the records, "rgb" or "flow"; says which of DeepMind's networks.

    Raises:
        WeightsError: weights that cannot be fetched or read, or are of another network.
    """
    if init is None:
        init = "imagenet" if _frozen_stem(network) is not None else "random"
    if init == "random":
        return
    if init == "imagenet":
        _load_imagenet(network)
        return
    if init == "kinetics":
        check_published_width(network)
        with_head = load_deepmind_checkpoint(network, fetch_kinetics_checkpoint(modality))
    elif not Path(init).exists() and not Path(f"{init}.index").exists():
        raise WeightsError(
            f"`--init` should be random, kinetics, imagenet or a path that exists. Received: {init!r}."
        )
    elif (Path(init) / CONFIG_NAME).is_file():
        with_head = load_keras_weights(network, load_run(init).model_path)
    elif init.endswith(".keras"):
        with_head = load_keras_weights(network, Path(init))
    else:
        with_head = load_deepmind_checkpoint(network, init)
    logging.info("Loaded %s, %s its head.", init, "with" if with_head else "without")


def fetch_kinetics_checkpoint(modality: str) -> str:
    """Prefix of DeepMind's checkpoint in the Keras cache, downloaded on first use.

    Args:
        modality: "rgb" or "flow".

    Raises:
        WeightsError: it cannot be downloaded (says what to do without a network).
    """
    name = f"{modality}_imagenet"
    paths = [
        _download(name, "index", _INDEX_SHA256[name]),
        _download(name, "data-00000-of-00001", None),
    ]
    return paths[0].removesuffix(".index")


def _download(name: str, part: str, sha256: str | None) -> str:
    url = f"{REPOSITORY_URL}/data/checkpoints/{name}/model.ckpt.{part}"
    advice = (
        "On a machine with a network, fetch model.ckpt.index and model.ckpt.data-00000-of-00001 from there "
        "and give their folder as --init"
    )
    with _downloading(f"DeepMind's {name} weights", advice):
        return str(keras.utils.get_file(f"{name}.ckpt.{part}", url, cache_subdir="kdant", file_hash=sha256))


def _load_imagenet(network: keras.Model) -> None:
    stem = _frozen_stem(network)
    backbones = [layer for layer in (stem or network).layers if layer.name in BACKBONES]
    if len(backbones) != 1:
        raise WeightsError(
            f"`--init imagenet` is for networks with one ImageNet backbone, as tsn and frame-mlp have. "
            f"Received: network {network.name!r} with {len(backbones)}."
        )
    backbone = backbones[0]
    advice = "Copy the file into ~/.keras/models on this machine, or give --init random"
    with _downloading(f"ImageNet weights of {backbone.name}", advice):
        trained = build_backbone(backbone.name, backbone.input.shape[1:], weights="imagenet")
    backbone.set_weights(trained.get_weights())


def _frozen_stem(network: keras.Model) -> keras.Model | None:
    return next((layer for layer in network.layers if layer.name == STEM), None)


@contextlib.contextmanager
def _downloading(what: str, advice: str) -> Iterator[None]:
    """Keras' progress on stderr, its failures as a WeightsError."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        # get_file raises bare Exception where the network fails.
        except Exception as error:
            raise WeightsError(f"{what} could not be downloaded: {first_line(error)}. {advice}.") from error
