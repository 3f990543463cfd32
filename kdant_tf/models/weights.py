"""First weights of a network: DeepMind's I3D checkpoints, Keras' backbones, and networks saved by Keras.

`initialize` takes what `--init random|kinetics|imagenet|PATH` names. Weights are assigned by name, after
every name and shape was compared: a network is loaded as a whole or not at all. Layers whose name begins
with "Logits" are the head; it is loaded where the number of classes agrees, and stays as it is where not. Of
a run, whose classes have names, those that agree by name are loaded.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from absl import logging

from kdant_tf.archive import is_address
from kdant_tf.models.baselines import BACKBONES, STEM, build_backbone
from kdant_tf.models.i3d import width_of
from kdant_tf.private_apis import remember_what_is_not_saved
from kdant_tf.runs import CONFIG_NAME, load_run
from tf_records.errors import KdantError, first_line

_HEAD = "Logits"
_SCOPE = re.compile(r"^(?:RGB|Flow)/inception_i3d/")
_CHECKPOINT_FILE = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")
# Sonnet's names in DeepMind's checkpoints, where they are not Keras'.
_SONNET_NAMES = {"kernel": "w", "bias": "b"}
# DeepMind's own repository, at the commit whose files these are.
REPOSITORY_URL = (
    "https://github.com/google-deepmind/kinetics-i3d/raw/0667e889a5904b4dc122e0ded4c332f49f8df42c"
)
_INDEX_SHA256 = {
    "rgb_imagenet": "f4bfd6f4af485f276c68333d3eca3697b691bb647f0167a03fe021147ca7f8eb",
    "flow_imagenet": "71594ac5f63cb0eb58512a13b56097dc0368d09e5959dffcc6e7a45b19832366",
}


class WeightsError(KdantError):
    """Weights that are missing, damaged, or of another network."""


def initialize(
    network: keras.Model, init: str | None, *, modality: str, classes: Sequence[str] | None = None
) -> None:
    """Loads first weights into a network of `build_network`.

    Args:
        network: whose head stays random where the number of classes differs.
        init: "random"; "kinetics", DeepMind's I3D from ImageNet and Kinetics; "imagenet", Keras'
            backbones; or the path of a DeepMind checkpoint, a run folder, a .keras file, or a Keras .h5 or
            .weights.h5 file of a backbone. None is "imagenet" for a network with a frozen backbone, "random"
            for others.
        modality: of the records, "rgb" or "flow"; says which of DeepMind's networks.
        classes: names of what `network` is to tell apart, by which a run's head is loaded; None loads it
            where the number agrees.

    Raises:
        WeightsError: weights that cannot be fetched or read, or are of another network.
    """
    if init is None:
        init = "imagenet" if _frozen_stem(network) is not None else "random"
    if init == "random":
        return
    if init == "imagenet":
        load_imagenet(find_backbone(network, "`--init imagenet`"))
        return
    if init == "kinetics":
        check_published_width(network)
        with_head = load_deepmind_checkpoint(network, fetch_kinetics_checkpoint(modality))
    elif not is_address(init) and not Path(init).exists() and not Path(f"{init}.index").exists():
        raise WeightsError(
            f"`--init` should be random, kinetics, imagenet, an archive's address or a path that exists. "
            f"Received: {init!r}."
        )
    elif is_address(init) or (Path(init) / CONFIG_NAME).is_file():
        run = load_run(init)
        names = None if classes is None or tuple(classes) == run.classes else (run.classes, classes)
        with_head = load_keras_weights(network, run.model_path, names=names)
    elif init.endswith(".keras"):
        with_head = load_keras_weights(network, Path(init))
    elif is_backbone_file(init):
        load_backbone_file(find_backbone(network, init), init)
        with_head = False
    else:
        with_head = load_deepmind_checkpoint(network, init)
    logging.info("Loaded %s, %s its head.", init, "with" if with_head else "without")


def pretrained_variables(network: keras.Model, init: str | None) -> list[keras.Variable]:
    """Those that learn of what `initialize` loads, without the head, whether it was loaded or not.

    It looks at names alone, so that a training that is resumed needs no weights again.

    Args:
        network, init: as for `initialize`.
    """
    if init in (None, "random") or _frozen_stem(network) is not None:
        return []
    if init == "imagenet" or is_backbone_file(str(init)):
        return list(find_backbone(network, "`--init`").trainable_variables)
    return [each for each in network.trainable_variables if not each.path.startswith(_HEAD)]


def load_deepmind_checkpoint(model: keras.Model, path: str | os.PathLike[str]) -> bool:
    """Loads one of DeepMind's I3D checkpoints (TensorFlow 1) into a model of `build_i3d`.

    RGB and Flow, from ImageNet or from scratch, Kinetics-400 or -600. Optimizer slots and step
    counters are left out. Nothing is assigned unless everything fits.

    Args:
        model: of `build_i3d` at width 1.0, with 3 channels for RGB or 2 for flow.
        path: prefix of the checkpoint ("…/model.ckpt"), one of its files, or the folder it lies in.

    Returns:
        Whether the head was loaded too, which it is where the number of classes agrees.

    Raises:
        WeightsError: no or a damaged checkpoint, another network or width, or a variable that is
            missing, left over or misshapen (names it).

    Example::

        network = build_i3d(400, (16, 224, 224, 3))
        load_deepmind_checkpoint(network, "rgb_imagenet/model.ckpt")

    Source: Carreira and Zisserman 2017, github.com/google-deepmind/kinetics-i3d. Deviations: none.
    """
    prefix = find_checkpoint(path)
    check_published_width(model)
    variables = {_sonnet_name(variable.path): variable for variable in model.weights}
    return assign_weights(variables, _read_checkpoint(prefix), prefix)


def load_keras_weights(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    names: tuple[Sequence[str], Sequence[str]] | None = None,
) -> bool:
    """Copies the weights of a network that Keras saved as `path` (.keras) into `model`, by name.

    Args:
        model: to be loaded.
        path: of the file.
        names: classes of the file's head and of `model`, which are others or in another order: what the head
            knows of a class that both have goes to its place, and a log line says of which.

    Returns:
        Whether the head was loaded too, which it is where the number of classes agrees.

    Raises:
        WeightsError: the file cannot be read, or a variable is missing, left over or misshapen.
    """
    remember_what_is_not_saved()
    try:
        source = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras, zipfile and h5py each have their own for a damaged file.
        raise WeightsError(f"{path} cannot be read as a Keras model: {first_line(error)}.") from error
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in _by_path(source).items()}
    variables = _by_path(model)
    if names is not None:
        arrays |= _reorder_head(variables, arrays, *names)
    return assign_weights(variables, arrays, path)


def _reorder_head(
    variables: Mapping[str, keras.Variable],
    arrays: Mapping[str, np.ndarray],
    given: Sequence[str],
    wanted: Sequence[str],
) -> dict[str, np.ndarray]:
    """The head's arrays with the shared classes in the places of `wanted`, the others as they were."""
    shared = [name for name in wanted if name in given]
    new, old = [wanted.index(name) for name in shared], [list(given).index(name) for name in shared]
    head = {}
    for name in arrays:
        variable = variables.get(name)
        fits = variable is not None and variable.shape[-1:] == (len(wanted),)
        if name.startswith(_HEAD) and fits and arrays[name].shape[-1] == len(given):
            head[name] = np.array(keras.ops.convert_to_numpy(variable))
            head[name][..., new] = arrays[name][..., old]
    if head:
        known = f"{len(shared)} of these {len(wanted)} classes" + (f": {', '.join(shared)}" if shared else "")
        logging.warning("Of the head, what is known is loaded (%s); the others begin at random.", known)
    return head


def weights_paths(init: str | None) -> tuple[Path, ...]:
    """Where the first weights lie on this machine; nowhere for "random", "kinetics", "imagenet" and None."""
    paths = () if init is None else (Path(init), Path(f"{init}.index"))
    return tuple(path for path in paths if path.exists())


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


def assign_weights(
    variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray], where: object
) -> bool:
    """Assigns to every variable the array of its name, or to none at all.

    Values with leading axes of length 1, as Kinetics-600's batch normalisation has them, fit too.

    Args:
        variables, arrays: by the same names.
        where: the arrays come from, for errors.

    Returns:
        Whether the head was assigned too, which it is where the number of classes agrees.

    Raises:
        WeightsError: a variable is missing, left over or misshapen (names it and both shapes).
    """
    own_head, given_head = (
        {name for name in names if name.startswith(_HEAD)} for names in (variables, arrays)
    )
    with_head = bool(given_head) and all(
        variables[name].shape[-1:] == arrays[name].shape[-1:] for name in own_head & given_head
    )
    skipped = set() if with_head else own_head | given_head
    wanted, given = variables.keys() - skipped, arrays.keys() - skipped
    for problem, names in (("lacks", wanted - given), ("has, and the network lacks,", given - wanted)):
        if names:
            raise WeightsError(
                f"{where} {problem} the variable {min(names)}{_and_others(names)}: it is of another network."
            )
    values = {
        name: _fitted(name, arrays[name], tuple(variables[name].shape), where) for name in sorted(wanted)
    }
    for name, value in values.items():
        variables[name].assign(value)
    return with_head


def find_checkpoint(path: str | os.PathLike[str]) -> str:
    """Prefix of the TensorFlow checkpoint that a prefix, one of its files, or a folder stands for.

    Raises:
        WeightsError: there is none, or a folder has several.
    """
    if os.path.isdir(path):
        # The file `checkpoint` that DeepMind ships there points into their own file system.
        found = sorted(str(file).removesuffix(".index") for file in Path(path).glob("*.index"))
        if len(found) != 1:
            names = ", ".join(Path(prefix).name for prefix in found) or "none"
            raise WeightsError(
                f"Folder {path} should have one checkpoint, NAME.index and its data file. Found: {names}."
            )
        return found[0]
    prefix = _CHECKPOINT_FILE.sub("", os.fspath(path))
    if not os.path.isfile(f"{prefix}.index"):
        raise WeightsError(
            f"There is no checkpoint {prefix}: {prefix}.index does not exist. "
            f"Give the prefix of a TensorFlow checkpoint, or the folder it lies in."
        )
    return prefix


def check_published_width(model: keras.Model) -> None:
    """Raises a WeightsError where `model` is no I3D of width 1.0, which all of DeepMind's are."""
    width = width_of(model)
    if width is None:
        raise WeightsError(f"A checkpoint of DeepMind's fits I3D only. Received: network {model.name!r}.")
    if width != 1:
        raise WeightsError(
            f"DeepMind's weights fit I3D at width 1.0. Received a network of width {width:g}. Use --width 1."
        )


def is_backbone_file(init: str) -> bool:
    """Whether `init` names a file of weights in one of Keras' HDF5 layouts, .h5 or .weights.h5."""
    return init.endswith(".h5")


def find_backbone(network: keras.Model, what: str) -> keras.Model:
    """The one network of `build_backbone` within a tsn or frame-mlp.

    Raises:
        WeightsError: there is none (says so of `what`).
    """
    layers = (_frozen_stem(network) or network).layers
    backbones = [layer for layer in layers if layer.name in BACKBONES]
    if len(backbones) != 1:
        raise WeightsError(
            f"{what} is for networks with one ImageNet backbone, as tsn and frame-mlp have. "
            f"Received: network {network.name!r} with {len(backbones)}."
        )
    return backbones[0]


def load_imagenet(backbone: keras.Model) -> None:
    """Gives a network of `build_backbone` the weights that Keras has in its cache, or downloads."""
    advice = "Copy the file into ~/.keras/models on this machine, or give --init random"
    with _downloading(f"ImageNet weights of {backbone.name}", advice):
        trained = build_backbone(backbone.name, _sizes_of(backbone), weights="imagenet")
    backbone.set_weights(trained.get_weights())


def load_backbone_file(backbone: keras.Model, path: str) -> None:
    """Gives a network of `build_backbone` the weights of a Keras .h5 or .weights.h5 file, all or none.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    loaded = build_backbone(backbone.name, _sizes_of(backbone))
    try:
        loaded.layers[-1].load_weights(path)
    except Exception as error:  # Keras and h5py each have their own for a file that does not fit.
        raise WeightsError(
            f"{path} does not hold the weights of {backbone.name} without its head: {first_line(error)} Give "
            f"a Keras .h5 or .weights.h5 file of that network, or another --backbone."
        ) from error
    backbone.set_weights(loaded.get_weights())


def _sizes_of(backbone: keras.Model) -> tuple[int, int, int]:
    """(H, W, 3) of its frames, or those of ImageNet where it takes any."""
    height, width, channels = backbone.input.shape[1:]
    return (height or 224, width or 224, channels)


def _frozen_stem(network: keras.Model) -> keras.Model | None:
    return next((layer for layer in network.layers if layer.name == STEM), None)


def _download(name: str, part: str, sha256: str | None) -> str:
    url = f"{REPOSITORY_URL}/data/checkpoints/{name}/model.ckpt.{part}"
    advice = (
        "On a machine with a network, fetch model.ckpt.index and model.ckpt.data-00000-of-00001 from there "
        "and give their folder as --init"
    )
    with _downloading(f"DeepMind's {name} weights", advice):
        return str(keras.utils.get_file(f"{name}.ckpt.{part}", url, cache_subdir="kdant", file_hash=sha256))


@contextlib.contextmanager
def _downloading(what: str, advice: str) -> Iterator[None]:
    """Keras' progress on stderr, its failures as a WeightsError."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        # get_file raises bare Exception where the network fails.
        except Exception as error:
            raise WeightsError(f"{what} could not be downloaded: {first_line(error)}. {advice}.") from error


def _read_checkpoint(prefix: str) -> dict[str, np.ndarray]:
    """Values by name, without scope, optimizer slots and step counters."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
        # A slot, "…/conv_3d/w/Momentum", lies under its variable; counters are scalars.
        names = [name for name in shapes if shapes[name] and name.rpartition("/")[0] not in shapes]
        return {_SCOPE.sub("", name): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise WeightsError(
            f"Checkpoint {prefix} cannot be read: {first_line(error)}. "
            f"Delete its files and fetch them again, NAME.index and NAME.data-00000-of-00001."
        ) from error


def _by_path(model: keras.Model) -> dict[str, keras.Variable]:
    variables = {variable.path: variable for variable in model.weights}
    if len(variables) != len(model.weights):
        raise WeightsError(
            f"Network {model.name!r} has several variables of one name, so its weights cannot be told apart. "
            f"Give its layers names of their own."
        )
    return variables


def _sonnet_name(path: str) -> str:
    """ "Mixed_4f.Branch_0.Conv3d_0a_1x1.conv_3d/kernel" → "Mixed_4f/Branch_0/Conv3d_0a_1x1/conv_3d/w"."""
    layer, _, variable = path.rpartition("/")
    return f"{layer.replace('.', '/')}/{_SONNET_NAMES.get(variable, variable)}"


def _fitted(name: str, value: np.ndarray, shape: tuple[int, ...], where: object) -> np.ndarray:
    """`value` without leading axes of length 1 that `shape` does not have."""
    leading = value.shape[: max(value.ndim - len(shape), 0)]
    if value.shape[len(leading) :] != shape or any(size != 1 for size in leading):
        raise WeightsError(
            f"{where}: {name} has shape {value.shape}, the network's has {shape}. "
            f"Give weights of the same network, width and modality."
        )
    return value.reshape(shape)


def _and_others(names: set[str]) -> str:
    return f" and {len(names) - 1} others" if len(names) > 1 else ""
