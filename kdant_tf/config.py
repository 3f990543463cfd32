"""Settings of a training, and where they come from. No TensorFlow here.

Precedence: defaults < what a student takes over from its teacher < preset < configuration file <
options of the command line.
"""

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tf_records.errors import KdantError
from tf_records.schema import CHANNELS

TEACHER = "teacher"
STUDENT = "student"
FEATURE_LOSS_NAMES = ("none", "direct", "unidirectional", "bidirectional")
TEACHER_VIEWS = ("future", "both", "observed")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
MODELS = ("i3d", "tsn", "frame-mlp")
# Where weights may come from by name, and the models they are for.
INITS = {"random": MODELS, "kinetics": ("i3d",), "imagenet": ("tsn", "frame-mlp")}
_OWN_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ConfigError(KdantError):
    """A setting that is unknown or out of range."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training but the records, the teacher and the devices.

    Defaults are the paper's for JHMDB (§4.2) where it gives a value.

    Args:
        model: one of MODELS, or "package.module:function" for a network of one's own.
        init: first weights: a key of INITS, or the path of a DeepMind checkpoint, a run folder or a
            .keras file; None is "imagenet" for frame-mlp and "random" for the others.
        backbone: of tsn (None: ResNet50) and frame-mlp (None: ResNet152), from keras.applications.
        segments: frames that tsn sees of a clip.
        width: float > 0, multiplies I3D's channels.
        dropout: share dropped before the last layer, in [0, 1).
        batch_norm_momentum: of the moving statistics, in (0, 1).
        sync_batch_norm: batch normalisation by the whole batch, not by each device's share of it.
        freeze_batch_norm: or by the moving statistics of the first weights, which are kept, as are its
            scale and shift.
        endpoint: layer of I3D whose map is distilled.
        clip_frames: frames a clip; None takes the records'.
        modality: "rgb" or "flow"; None takes the records', RGB where they hold both.
        crop: pixels of the square the network sees.
        views: starts, crops and flips that training draws of each pair, once, and goes through in turn,
            an epoch each; 0 draws anew in every epoch.
        windows: evenly spaced windows of a segment that evaluation averages over, at most.
        teacher_view: segments a teacher trains on: "future", or "both" where the action fills both
            (JHMDB: "all the available frames", §4.2). "observed" trains an anticipation network from labels
            alone, without a teacher, which §4.3 and §4.4 compare with.
        label_fraction: share of the labelled training pairs whose label is used, in [0, 1] (§4.4).
        label_seed: draws that share, and the videos of `validation_fraction`; the same for a teacher and its
            students.
        validation_fraction: share of the videos with labelled training pairs that are kept out of training,
            to validate on after each epoch, in [0, 1).
        validation_split: or the records' split to validate on.
        epochs, batch_size: of the training; `batch_size` is what one update sees, over all devices.
        gradient_accumulation: micro-batches of batch_size / gradient_accumulation each that an update is
            computed in, one after the other; batch normalisation sees a micro-batch.
        learning_rate: at the start; multiplied by `decay_factor` at each of `decay_epochs`.
        momentum: of SGD.
        weight_decay: L2 factor on kernels.
        clip_norm: largest norm of a batch's gradient, over all variables; None for any.
        precision: one of PRECISIONS. The mixed ones compute convolutions and products in 16 bits and keep
            weights, softmax, losses and logits in float32.
        feature_loss: one of FEATURE_LOSS_NAMES (students).
        feature_weight: the paper's lambda (eq. 3), for reduction "mean".
        projection: learn a 1x1x1 convolution from the student's channels to the teacher's, for the
            feature loss alone.
        alpha: of the attention pooling; None for 1/sqrt(d).
        penalty, huber_delta, reduction: see `kdant_tf.losses.features.feature_loss`.
        seed: of weights, order, crops and dropout.
    """

    model: str = "i3d"
    init: str | None = None
    backbone: str | None = None
    segments: int = 3
    width: float = 1.0
    dropout: float = 0.5
    batch_norm_momentum: float = 0.9
    sync_batch_norm: bool = False
    freeze_batch_norm: bool = False
    endpoint: str = "Mixed_4f"
    clip_frames: int | None = None
    modality: str | None = None
    crop: int = 224
    views: int = 0
    windows: int = 5
    teacher_view: str = "future"
    label_fraction: float = 1.0
    label_seed: int = 0
    validation_fraction: float = 0.0
    validation_split: str | None = None
    epochs: int = 80
    batch_size: int = 16
    gradient_accumulation: int = 1
    learning_rate: float = 0.01
    decay_epochs: tuple[int, ...] = (20,)
    decay_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-5
    clip_norm: float | None = None
    precision: str = "float32"
    feature_loss: str = "bidirectional"
    feature_weight: float = 0.3
    projection: bool = False
    alpha: float | None = None
    penalty: str = "huber"
    huber_delta: float = 1.0
    reduction: str = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            self._require(field.name, not isinstance(value, float) or math.isfinite(value), "finite")
        own = _OWN_MODEL.fullmatch(self.model) is not None
        self._require("model", own or self.model in MODELS, f"{_one_of(MODELS)}, or MODULE:FUNCTION")
        fitting = [name for name, models in INITS.items() if own or self.model in models]
        fits = self.init not in INITS or self.init in fitting
        self._require("init", fits, f"{_one_of(tuple(fitting))}, or a path, for {self.model}")
        for name in ("epochs", "batch_size", "gradient_accumulation", "windows", "segments"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("crop", self.crop >= 32, "at least 32 pixels, I3D's stride")
        self._require("clip_frames", self.clip_frames is None or self.clip_frames >= 1, "at least 1")
        self._require("modality", self.modality in (None, *CHANNELS), _one_of(tuple(CHANNELS)))
        for name in ("width", "learning_rate", "decay_factor", "huber_delta"):
            self._require(name, getattr(self, name) > 0, "positive")
        divides = self.batch_size % self.gradient_accumulation == 0
        self._require("gradient_accumulation", divides, f"a divisor of the batch size, {self.batch_size}")
        self._require("clip_norm", self.clip_norm is None or self.clip_norm > 0, "positive")
        self._require("precision", self.precision in PRECISIONS, _one_of(PRECISIONS))
        self._require("alpha", self.alpha is None or self.alpha >= 0, "not negative")
        for name in ("weight_decay", "feature_weight", "seed", "label_seed", "views"):
            self._require(name, getattr(self, name) >= 0, "not negative")
        self._require("label_fraction", 0 <= self.label_fraction <= 1, "from 0 to 1")
        self._require("validation_fraction", 0 <= self.validation_fraction < 1, "from 0 to below 1")
        self._require("validation_split", self.validation_split != "train", "a split that is not trained on")
        both = self.validation_fraction > 0 and self.validation_split is not None
        self._require("validation_split", not both, "left out beside `validation_fraction`")
        self._require("dropout", 0 <= self.dropout < 1, "from 0 to below 1")
        self._require("momentum", 0 <= self.momentum < 1, "from 0 to below 1")
        self._require("batch_norm_momentum", 0 < self.batch_norm_momentum < 1, "between 0 and 1")
        self._check_frozen_batch_norm()
        self._require("feature_loss", self.feature_loss in FEATURE_LOSS_NAMES, _one_of(FEATURE_LOSS_NAMES))
        self._require("teacher_view", self.teacher_view in TEACHER_VIEWS, _one_of(TEACHER_VIEWS))
        self._require("penalty", self.penalty in ("huber", "squared"), "huber or squared")
        self._require("reduction", self.reduction in ("mean", "sum"), "mean or sum")

    def _check_frozen_batch_norm(self) -> None:
        frozen = self.freeze_batch_norm
        self._require(
            "freeze_batch_norm", not (frozen and self.sync_batch_norm), "off beside sync_batch_norm"
        )
        random = self.init == "random" or (self.init is None and self.model in ("i3d", "tsn"))
        self._require("freeze_batch_norm", not (frozen and random), "off where `init` is random")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"Setting `{name}` should be {expected}. Received: {getattr(self, name)!r}.")

    def learning_rate_at(self, epoch: int) -> float:
        """The step-wise decayed rate of `epoch`, counted from 0."""
        passed = sum(epoch >= decay_epoch for decay_epoch in self.decay_epochs)
        return self.learning_rate * self.decay_factor**passed

    def draw_at(self, epoch: int) -> int:
        """Number of the starts, crops and flips that `epoch`, counted from 0, sees the pairs in."""
        return epoch % self.views if self.views else epoch


def resolve_config(
    role: str,
    *,
    inherited: Mapping[str, Any] = types.MappingProxyType({}),
    preset: str | None = None,
    file: Path | None = None,
    options: Mapping[str, Any] = types.MappingProxyType({}),
) -> TrainConfig:
    """Merges all sources of settings for a "teacher" or a "student".

    Args:
        role: which of the tables [teacher] and [student] of a TOML file applies after its top level.
        inherited: settings a student takes over from its teacher.
        preset: name of a TOML file in kdant_tf/presets.
        file: TOML file of the user.
        options: given on the command line; None counts as not given.

    Raises:
        ConfigError: an unknown preset, key or type, a file that cannot be read, a value out of range.
    """
    settings = dict(inherited)
    if preset is not None:
        settings |= _settings_of(_read_preset(preset), role, f"Preset {preset}")
    if file is not None:
        settings |= _settings_of(_read_toml(file), role, str(file))
    settings |= {name: value for name, value in options.items() if value is not None}
    return TrainConfig(**settings)


def config_from_dict(settings: Mapping[str, Any]) -> TrainConfig:
    """The TrainConfig that `dataclasses.asdict` and JSON made `settings` from."""
    return TrainConfig(**{name: _checked(name, value, "config.json") for name, value in settings.items()})


def preset_names() -> tuple[str, ...]:
    """Names of the presets that ship with kdant."""
    files = resources.files("kdant_tf").joinpath("presets").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def preset_text(name: str) -> str:
    """The TOML file of a preset.

    Raises:
        ConfigError: no such preset (says which there are).
    """
    if name not in preset_names():
        raise ConfigError(
            f"There is no preset {name!r}.{_suggestion(name, preset_names())} "
            f"Presets: {', '.join(preset_names())}."
        )
    return resources.files("kdant_tf").joinpath("presets", f"{name}.toml").read_text("utf-8")


def _read_preset(name: str) -> dict[str, Any]:
    return tomllib.loads(preset_text(name))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Configuration file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"Configuration file {path} is not valid TOML: {error}.") from error


def _settings_of(tables: dict[str, Any], role: str, where: str) -> dict[str, Any]:
    """The top level's settings, overridden by those of the role's own table."""
    for name in (TEACHER, STUDENT):
        if not isinstance(tables.get(name, {}), dict):
            raise ConfigError(f"{where}: `{name}` should be a table, [{name}]. Received: {tables[name]!r}.")
    shared = {name: value for name, value in tables.items() if name not in (TEACHER, STUDENT)}
    merged = {**shared, **tables.get(role, {})}
    return {name: _checked(name, value, where) for name, value in merged.items()}


def _checked(name: str, value: Any, where: str) -> Any:
    """`value` in the type of the field `name`; whole numbers pass for float."""
    kinds = typing.get_type_hints(TrainConfig)
    if name not in kinds:
        raise ConfigError(f"{where} has an unknown setting `{name}`.{_suggestion(name, tuple(kinds))}")
    kind = kinds[name]
    if kind == tuple[int, ...]:
        if isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
            return tuple(value)
        raise ConfigError(f"{where}: `{name}` should be a list of whole numbers. Received: {value!r}.")
    allowed = typing.get_args(kind) or (kind,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:
        names = " or ".join(item.__name__ for item in allowed if item is not types.NoneType)
        raise ConfigError(f"{where}: `{name}` should be {names}. Received: {value!r}.")
    return value


def _suggestion(name: str, choices: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    return f" Did you mean `{close[0]}`?" if close else ""


def _one_of(choices: tuple[str, ...]) -> str:
    return f"one of {', '.join(choices)}"


# How a training runs, as against what it trains. No TensorFlow here.


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What may differ when a run is resumed: its results change in rounding at most.

    Args:
        devices, strategy: see `kdant_tf.training.strategy.make_strategy`.
        checkpoint_minutes: save within an epoch as often as this, besides at its end; 0 never does.
        deterministic: make every operation give the same bits each time, at some cost.
        xla: "auto", "on" or "off", see `kdant_tf.training.distiller.choose_xla`.
        cache_teacher: compute the teacher's outputs once for each pair and view (students).
    """

    devices: str = "auto"
    strategy: str = "auto"
    checkpoint_minutes: float = 10.0
    deterministic: bool = False
    xla: str = "auto"
    cache_teacher: bool = False

    def __post_init__(self) -> None:
        minutes = self.checkpoint_minutes
        if not (math.isfinite(minutes) and minutes >= 0):
            raise KdantError(f"`--checkpoint-minutes` should be 0 or more. Received: {minutes}.")


DEFAULT_EXECUTION = Execution()
