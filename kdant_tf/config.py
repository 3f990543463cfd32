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
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from kdant_tf.losses import DEFAULT_LOCALITY, FEATURE_LOSS_NAMES, NORMALIZATIONS, PENALTIES, REDUCTIONS
from kdant_tf.settings import (
    AT_LEAST_0,
    AT_LEAST_1,
    BETWEEN_0_AND_1,
    POSITIVE,
    SHARE,
    SHARE_BELOW_1,
    Range,
    setting,
    settings_of,
)
from tf_records.errors import KdantError
from tf_records.schema import CHANNELS

TEACHER = "teacher"
STUDENT = "student"
MODELS = ("i3d", "tsn", "frame-mlp", "features3d")
# Image networks whose maps features can be of, and their names in keras.applications.
FRAME_STEMS = {
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
}
# Pixels for each position of the last map of I3D.
SMALLEST_CROP = 32
# Where weights may come from by name, and the models they are for.
INITS = {"random": MODELS, "kinetics": ("i3d",), "imagenet": ("tsn", "frame-mlp")}
# Values of `class_balance` that the numbers of pairs are counted for.
COUNTED_BALANCES = ("inverse", "effective")
# Largest norm of the gradient of a network that begins with trained weights.
_SAFE_NORM = 2.0
_OWN_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ConfigError(KdantError):
    """A setting that is unknown or out of range."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training but the records, the teacher and the devices.

    Defaults are the paper's for JHMDB (§4.2) where it gives a value. Meaning, values and unit of each setting
    stand at its field, in docs/reference/settings.md and in `kdant distill --help`.

    Raises:
        ConfigError: a value out of range, or values that do not go together.

    Example:
        >>> config = TrainConfig(epochs=2, learning_rate=0.5, decay_epochs=(1,), decay_factor=0.5)
        >>> [config.learning_rate_at(epoch) for epoch in range(2)]
        [0.5, 0.25]
    """

    model: str = setting(
        "i3d",
        "Network",
        "i3d, tsn, frame-mlp, features3d (on records of features), or MODULE:FUNCTION for a network of "
        "your own.",
        inherited=True,
    )
    init: str | None = setting(
        None,
        "Network",
        "First weights: kinetics (i3d), imagenet (tsn, frame-mlp), random, or the path of a DeepMind "
        "checkpoint, a run folder, a .keras file, or a Keras .h5 file of the backbone.",
        unset="imagenet for frame-mlp, else random",
    )
    backbone: str | None = setting(
        None,
        "Network",
        "Network of keras.applications that tsn or frame-mlp runs on each frame.",
        unset="ResNet50 for tsn, ResNet152 for frame-mlp",
        inherited=True,
    )
    segments: int = setting(
        3, "Network", "Frames that tsn sees of a clip.", unit="frames", range=AT_LEAST_1, inherited=True
    )
    width: float = setting(
        1.0,
        "Network",
        "Multiplies the channels of i3d (1 is the published network) or features3d (1 is 128).",
        range=POSITIVE,
        inherited=True,
    )
    dropout: float = setting(
        0.5, "Network", "Share that is dropped before the last layer.", unit="share", range=SHARE_BELOW_1
    )
    batch_norm_momentum: float = setting(
        0.9,
        "Network",
        "Momentum of batch normalisation's moving statistics.",
        range=BETWEEN_0_AND_1,
        inherited=True,
    )
    sync_batch_norm: bool = setting(
        False, "Network", "Batch normalisation by the whole batch, not by each device's share of it."
    )
    freeze_batch_norm: bool = setting(
        False,
        "Network",
        "Batch normalisation by the moving statistics of the first weights, which are kept, as are its "
        "scale and shift: for fine-tuning on small batches.",
    )
    endpoint: str = setting("Mixed_4f", "Network", "Layer of I3D whose map is distilled.", inherited=True)
    clip_frames: int | None = setting(
        None,
        "Data",
        "Frames of a clip, which the records have to have.",
        unit="frames",
        range=AT_LEAST_1,
        unset="the records'",
    )
    modality: str | None = setting(
        None,
        "Data",
        "What the network sees, where records hold both.",
        choices=tuple(CHANNELS),
        unset="the records', rgb of both",
        inherited=True,
    )
    crop: int = setting(
        224,
        "Data",
        "Side of the square that the network sees.",
        unit="pixels",
        range=Range(f"at least {SMALLEST_CROP} pixels, I3D's stride", lambda pixels: pixels >= SMALLEST_CROP),
        inherited=True,
    )
    views: int = setting(
        0,
        "Data",
        "Starts, crops, flips and colours that are drawn of each pair, once, and gone through in turn, an "
        "epoch each; 0 draws anew in every epoch.",
        range=AT_LEAST_0,
    )
    jitter_brightness: float = setting(
        0.0,
        "Data",
        "Multiplies the values of both clips of a pair, where black is 0, by 1 - it to 1 + it, drawn.",
        range=SHARE,
    )
    jitter_contrast: float = setting(
        0.0,
        "Data",
        "Likewise their distance from middle grey.",
        range=SHARE,
    )
    jitter_saturation: float = setting(
        0.0,
        "Data",
        "Likewise their distance from the grey of the same luma.",
        range=SHARE,
    )
    jitter_hue: float = setting(
        0.0,
        "Data",
        "Turns the colours of both clips of a pair by -it to it, drawn.",
        unit="turns",
        range=Range("from 0 to 0.5 turns", lambda turns: 0 <= turns <= 0.5),
    )
    observed_share: str | None = setting(
        None,
        "Data",
        "random draws for each pair and epoch 0.1, 0.2 … or 1 of the video, and the observed clip from its "
        "first so much: one network for every share seen. For records of JHMDB.",
        choices=("random",),
        unset="what the records observe",
    )
    mixup: float = setting(
        0.0,
        "Data",
        "Mixes each pair with another of the batch, both clips and the label in one share, which is drawn "
        "from Beta(it, it); 0 does not.",
        range=AT_LEAST_0,
    )
    cutmix: float = setting(
        0.0,
        "Data",
        "Likewise puts a box of the other pair's clips in their place, whose share is drawn so; with both, "
        "either is drawn for each pair.",
        range=AT_LEAST_0,
    )
    windows: int = setting(
        5,
        "Validation",
        "Evenly spaced windows of a segment that evaluation averages over, at most.",
        range=AT_LEAST_1,
        inherited=True,
    )
    teacher_view: str = setting(
        "future",
        "Data",
        "Segments that are trained on: future; both, where the action fills both (JHMDB, §4.2); observed, "
        "for an anticipation network from labels alone (§4.3, §4.4).",
        choices=("future", "both", "observed"),
        role=TEACHER,
    )
    label_fraction: float = setting(
        1.0,
        "Data",
        "Share of the labelled training pairs whose label is used (§4.4).",
        unit="share",
        range=SHARE,
    )
    label_seed: int = setting(
        0,
        "Data",
        "Draws that share, and the videos of --validation-fraction; the same for a teacher and its students.",
        range=AT_LEAST_0,
    )
    validation_fraction: float = setting(
        0.0,
        "Validation",
        "Share of the labelled training videos that are kept out of training, to validate on after each "
        "epoch.",
        unit="share",
        range=SHARE_BELOW_1,
    )
    validation_split: str | None = setting(
        None,
        "Validation",
        "Or the records' split to validate on, such as val. The best epoch's network is kept.",
        unset="none",
    )
    epochs: int = setting(80, "Optimisation", "Passes over the training pairs.", range=AT_LEAST_1)
    batch_size: int = setting(
        16, "Optimisation", "Pairs that an update sees, over all devices.", unit="pairs", range=AT_LEAST_1
    )
    gradient_accumulation: int = setting(
        1,
        "Optimisation",
        "Micro-batches that a batch is computed in, one after the other, in less memory; a divisor of the "
        "batch size. Batch normalisation sees a micro-batch.",
        range=AT_LEAST_1,
    )
    optimizer: str = setting(
        "sgd",
        "Optimisation",
        "sgd with momentum (§4.2), or adamw, whose weight decay is no part of the gradients.",
        choices=("sgd", "adamw"),
    )
    learning_rate: float = setting(
        0.01, "Optimisation", "Learning rate at the start, or after --warmup-epochs.", range=POSITIVE
    )
    pretrained_learning_rate: float | None = setting(
        None,
        "Optimisation",
        "Learning rate, at the same time, of layers whose weights came from --init; the head has "
        "--learning-rate.",
        range=POSITIVE,
        unset="--learning-rate",
    )
    warmup_epochs: float = setting(
        0.0,
        "Optimisation",
        "Epochs in which the learning rate rises to its value in equal steps, an update each.",
        unit="epochs",
        range=AT_LEAST_0,
    )
    schedule: str = setting(
        "step",
        "Optimisation",
        "How the learning rate falls: step, at --decay-epochs; cosine, at each update, towards 0 at the end.",
        choices=("step", "cosine"),
    )
    decay_epochs: tuple[int, ...] = setting(
        (20,),
        "Optimisation",
        "Epochs, counted from 0, at which --schedule step multiplies the learning rate by --decay-factor.",
        unit="epoch",
        range=AT_LEAST_0,
    )
    decay_factor: float = setting(
        0.1, "Optimisation", "Multiplies the learning rate at each of --decay-epochs.", range=POSITIVE
    )
    momentum: float = setting(0.9, "Optimisation", "Momentum of sgd, or adamw's beta 1.", range=SHARE_BELOW_1)
    weight_decay: float = setting(
        1e-5,
        "Optimisation",
        "Of kernels: L2 factor of sgd; for adamw the share that an update takes off, times its rate.",
        range=AT_LEAST_0,
    )
    clip_norm: float | None = setting(
        None,
        "Optimisation",
        "Largest norm of a batch's gradient, over all variables; 0 for any.",
        range=AT_LEAST_0,
        unset=f"{_SAFE_NORM:g} where --init gives trained weights to layers that learn, else 0",
    )
    ema_decay: float = setting(
        0.0,
        "Optimisation",
        "Of an exponential moving average of the weights over updates, which is validated and saved in their "
        "place; 0 for none.",
        range=SHARE_BELOW_1,
    )
    label_smoothing: float = setting(
        0.0,
        "Optimisation",
        "Share of a label that is spread evenly over all classes.",
        unit="share",
        range=SHARE_BELOW_1,
    )
    class_balance: str = setting(
        "none",
        "Optimisation",
        "Weights of labelled pairs, for classes of unequal size: inverse, by the class's number of pairs; "
        "effective, likewise up to about a thousand; focal, by how unsure of the label the network is.",
        choices=("none", *COUNTED_BALANCES, "focal"),
    )
    precision: str = setting(
        "float32",
        "Optimisation",
        "The mixed ones, on a GPU, compute convolutions and products in 16 bits (float16 with loss "
        "scaling), and keep weights, softmax, losses and logits in float32.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    feature_loss: str = setting(
        "bidirectional",
        "Distillation",
        "How the student's map is compared with the teacher's: none, not at all; direct, place by place; "
        "unidirectional and bidirectional by attention pooling, which tolerates that things move; local "
        "likewise, but near by; jaccard by mean vectors; mmd by second moments; infonce by mean vectors, "
        "against the other samples of the batch.",
        choices=FEATURE_LOSS_NAMES,
        symbol="Ld (eq. 7) is bidirectional",
        role=STUDENT,
    )
    soft_weight: float = setting(
        0.0,
        "Distillation",
        "Share of a labelled pair's loss that comes from the teacher's probabilities (Hinton et al. 2015); 0 "
        "is the paper's eq. 2, in which they teach unlabelled pairs alone.",
        unit="share",
        range=SHARE,
        role=STUDENT,
    )
    temperature: float = setting(
        1.0,
        "Distillation",
        "Divides both networks' logits in that share, whose loss is multiplied by its square.",
        range=POSITIVE,
        role=STUDENT,
    )
    feature_weight: float = setting(
        0.3,
        "Distillation",
        "Weight of the feature loss, for --reduction mean.",
        range=AT_LEAST_0,
        symbol="lambda (eq. 3)",
        role=STUDENT,
    )
    projection: bool = setting(
        False,
        "Distillation",
        "Learn a 1x1x1 convolution from the student's channels to the teacher's, for the feature loss alone.",
        role=STUDENT,
    )
    alpha: float | None = setting(
        None,
        "Distillation",
        "Sharpness of the attention pooling.",
        range=AT_LEAST_0,
        unset="1/sqrt(channels); 10 with --feature-normalization and for infonce",
        symbol="alpha (eq. 5)",
        role=STUDENT,
    )
    locality: float = setting(
        DEFAULT_LOCALITY,
        "Distillation",
        "How fast the weights of --feature-loss local fall with the square of the distance, in units of the "
        "map: 0 is bidirectional, 8 a standard deviation of a quarter of the map.",
        range=AT_LEAST_0,
        role=STUDENT,
    )
    feature_normalization: str = setting(
        "none",
        "Distillation",
        "Of each position's vector before feature losses compare or pool it: l2 by its length, layer also by "
        "its mean over channels. Alpha then counts in cosines.",
        choices=NORMALIZATIONS,
        role=STUDENT,
    )
    penalty: str = setting(
        "huber",
        "Distillation",
        "On the difference of two vectors: huber (§4.2) or squared (eq. 8).",
        choices=PENALTIES,
        role=STUDENT,
    )
    huber_delta: float = setting(
        1.0,
        "Distillation",
        "Difference from which on huber grows in a straight line.",
        range=POSITIVE,
        symbol="delta (§4.2)",
        role=STUDENT,
    )
    reduction: str = setting(
        "mean",
        "Distillation",
        "Of the feature loss, over positions and channels; sum is the paper's (eq. 8).",
        choices=REDUCTIONS,
        role=STUDENT,
    )
    seed: int = setting(0, "Optimisation", "Draws weights, order, crops and dropout.", range=AT_LEAST_0)

    def __post_init__(self) -> None:
        for name, info in settings_of(TrainConfig).items():
            value, expected = info.check(getattr(self, name))
            self._require(name, not expected, expected)
            object.__setattr__(self, name, value)
        self._check_network()
        divides = self.batch_size % self.gradient_accumulation == 0
        self._require("gradient_accumulation", divides, f"a divisor of the batch size, {self.batch_size}")
        self._require("validation_split", self.validation_split != "train", "a split that is not trained on")
        warmup = self.warmup_epochs == 0 or self.warmup_epochs < self.epochs
        self._require("warmup_epochs", warmup, f"below the {self.epochs} epochs")
        both = self.validation_fraction > 0 and self.validation_split is not None
        balanced = self.class_balance != "none"
        self._require("class_balance", not (balanced and self.mixes), "none beside mixup and cutmix")
        self._require("validation_split", not both, "left out beside `validation_fraction`")

    def _check_network(self) -> None:
        own = _OWN_MODEL.fullmatch(self.model) is not None
        self._require("model", own or self.model in MODELS, f"one of {', '.join(MODELS)}, or MODULE:FUNCTION")
        fitting = [name for name, models in INITS.items() if own or self.model in models]
        fits = self.init not in INITS or self.init in fitting
        self._require("init", fits, f"one of {', '.join(fitting)}, or a path, for {self.model}")
        frozen = self.freeze_batch_norm
        self._require(
            "freeze_batch_norm", not (frozen and self.sync_batch_norm), "off beside sync_batch_norm"
        )
        random = self.init == "random" or (self.init is None and self.model in ("i3d", "tsn", "features3d"))
        self._require("freeze_batch_norm", not (frozen and random), "off where `init` is random")
        fits = self.pretrained_learning_rate is None or self.is_pretrained
        self._require("pretrained_learning_rate", fits, "left out where no layer that learns is pretrained")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"Setting `{name}` should be {expected}. Received: {getattr(self, name)!r}.")

    @property
    def is_pretrained(self) -> bool:
        """Whether layers that learn begin with trained weights; those of frame-mlp begin at random."""
        return self.init not in (None, "random") and self.model != "frame-mlp"

    @property
    def largest_gradient_norm(self) -> float | None:
        """`clip_norm` with its default; None for any."""
        given = self.clip_norm
        if given is None:
            return _SAFE_NORM if self.is_pretrained else None
        return given or None

    def learning_rate_at(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """The rate of one update.

        With W warm-up epochs, E epochs and t = epoch + step / steps it is `learning_rate` times
        min(1, (t + 1 / steps) / W), times `decay_factor` for each of the decay epochs passed, or for cosine
        times (1 + cos(pi · (t − W) / (E − W))) / 2 once t > W.

        Args:
            epoch: counted from 0.
            step: in that epoch, counted from 0.
            steps: an epoch.

        Source: Goyal et al. 2017, section 2.2; Loshchilov and Hutter 2017, eq. 5. Deviations: none.
        """
        done, warmup = epoch + step / steps, self.warmup_epochs
        if self.schedule == "cosine":
            share = min(max((done - warmup) / (self.epochs - warmup), 0.0), 1.0)
            rate = self.learning_rate * (1 + math.cos(math.pi * share)) / 2
        else:
            passed = sum(epoch >= decay_epoch for decay_epoch in self.decay_epochs)
            rate = self.learning_rate * self.decay_factor**passed
        return rate * min(1.0, (done + 1 / steps) / warmup) if warmup else rate

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0

    def draw_at(self, epoch: int) -> int:
        """Number of the starts, crops and flips that `epoch`, counted from 0, sees the pairs in."""
        return epoch % self.views if self.views else epoch


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a training runs; when it is resumed, these may differ: its results change in rounding at most.

    Raises:
        KdantError: a value out of range.
    """

    devices: str = setting(
        "auto",
        "Execution",
        "auto, cpu, gpu, cpu:N or gpu:N; of each worker where there are several. auto takes all GPUs, or "
        "the CPU.",
    )
    strategy: str = setting(
        "auto",
        "Execution",
        "auto: the workers that TF_CONFIG lists, else mirrored over the devices.",
        choices=("auto", "one", "mirrored", "multiworker"),
    )
    checkpoint_minutes: float = setting(
        10.0,
        "Execution",
        "Save this often within an epoch, besides at its end; 0 never does.",
        unit="minutes",
        range=AT_LEAST_0,
    )
    deterministic: bool = setting(
        False,
        "Execution",
        "The same bits each time on one device, also when killed and resumed; somewhat slower.",
    )
    xla: str = setting(
        "auto",
        "Execution",
        "What XLA compiles: the whole step (on), the feature loss alone (pooling), nothing (off); auto: what "
        "is fastest, the step on GPUs, and on CPUs the loss of maps of 1,024 positions or more.",
        choices=("auto", "on", "pooling", "off"),
    )
    cache_teacher: bool = setting(
        False,
        "Execution",
        "Compute the teacher's outputs once and read them back; needs --views.",
        role=STUDENT,
    )

    def __post_init__(self) -> None:
        for name, info in settings_of(Execution).items():
            value, expected = info.check(getattr(self, name))
            if expected:
                raise KdantError(f"`{info.option}` should be {expected}. Received: {value!r}.")
            object.__setattr__(self, name, value)


DEFAULT_EXECUTION = Execution()


def resolve_config(
    role: str,
    *,
    inherited: Mapping[str, Any] = types.MappingProxyType({}),
    preset: str | None = None,
    file: str | Path | None = None,
    options: Mapping[str, Any] = types.MappingProxyType({}),
) -> TrainConfig:
    """Merges all sources of settings for a "teacher" or a "student".

    Args:
        role: which of the tables [teacher] and [student] of a TOML file applies after its top level.
        inherited: settings a student takes over from its teacher.
        preset: name of a TOML file in kdant_tf/presets.
        file: TOML file of the user.
        options: given on the command line, or to a function; None counts as not given.

    Raises:
        ConfigError: an unknown preset, key or type, a file that cannot be read, a value out of range.
    """
    settings = dict(inherited)
    if preset is not None:
        settings |= _settings_of(_read_preset(preset), role, f"Preset {preset}")
    if file is not None:
        settings |= _settings_of(_read_toml(Path(file)), role, str(file))
    given = {name: value for name, value in options.items() if value is not None}
    settings |= {name: _checked(name, value, "The call") for name, value in given.items()}
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
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
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
    settings = settings_of(TrainConfig)
    if name not in settings:
        raise ConfigError(f"{where} has an unknown setting `{name}`.{_suggestion(name, tuple(settings))}")
    value, expected = settings[name].check_type(value)
    if expected:
        raise ConfigError(f"{where}: `{name}` should be {expected}. Received: {value!r}.")
    return value


def _suggestion(name: str, choices: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    return f" Did you mean `{close[0]}`?" if close else ""
