"""How a network answers clips: by which engine, in what precision, and how near to TensorFlow in float32.

TensorFlow and OpenVINO are imported where a network is opened, not before.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_records.errors import KdantError, RunError, first_line
from tf_records.heads import Heads

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    Infer = Callable[[tf.Tensor], tf.Tensor]

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
ENGINES = (TENSORFLOW, OPENVINO)
AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
PRECISIONS = (AUTO, FLOAT32, BFLOAT16)
# Largest difference of a probability from TensorFlow in float32, by precision.
TOLERANCES = {FLOAT32: 1e-4, BFLOAT16: 0.1}
# Shapes of clips that OpenVINO keeps a network compiled for: a stream has one, a benchmark one a batch size.
_COMPILED_SHAPES = 4
_TRIAL_CLIPS = 2
# Of a feature map whose size a network does not state.
_TRIAL_SIDE = 14
# Bytes of weights that a graph holds as constants; a serialised graph ends at 2 GiB.
_LARGEST_CONSTANTS = 1 << 30
_PROBABILITIES = "probabilities"
_CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What computes the answers of networks.

    Args:
        name: "tensorflow", or "openvino", which needs the extra of that name.
        precision: "float32"; "bfloat16", 16 bits of which 8 are digits; or "auto": bfloat16 where this
            processor has instructions for it (AVX-512 BF16 or AMX), with which both engines gain, else
            float32.
        report: called with a sentence on each network that is opened other than by default.

    Raises:
        KdantError: another name or precision, or the extra is not installed.

    Example:
        >>> Engine(name="tensorflow", precision="bfloat16").is_default
        False
    """

    name: str = TENSORFLOW
    precision: str = FLOAT32
    report: Callable[[str], None] = dataclasses.field(default=lambda line: None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for what, given, allowed in (
            ("engine", self.name, ENGINES),
            ("precision", self.precision, PRECISIONS),
        ):
            if given not in allowed:
                raise KdantError(f"`{what}` should be {' or '.join(allowed)}. Received: {given!r}.")
        if self.name == OPENVINO and importlib.util.find_spec(OPENVINO) is None:
            raise KdantError(
                "The engine openvino needs openvino, not installed here. Install what it needs: "
                'pip install "kdant-tf[openvino]".'
            )

    @property
    def is_default(self) -> bool:
        """TensorFlow in float32, as networks are trained and were always evaluated."""
        return (self.name, self.precision) == (TENSORFLOW, FLOAT32)


DEFAULT = Engine()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inference:
    """Clips in, probabilities out.

    Args:
        engine: its name.
        precision: "float32" or "bfloat16", what "auto" became.
        answer: prepared clips, float32 `(B, T, H, W, C)` → probabilities, float32 `(B, classes)`.
        difference: largest one of a probability from TensorFlow in float32, on two drawn clips; None of that
            itself.
    """

    engine: str
    precision: str
    answer: Callable[[tf.Tensor], Any]
    difference: float | None = None

    def __call__(self, clips: tf.Tensor) -> np.ndarray:
        import numpy as np

        return np.asarray(self.answer(clips))

    def to_dict(self) -> dict[str, Any]:
        """For evaluation.json."""
        named: dict[str, Any] = {"engine": self.engine, "precision": self.precision}
        return named if self.difference is None else {**named, "engine_difference": self.difference}


def open_inference(
    network: keras.Model, engine: Engine = DEFAULT, *, name: str = "network", heads: Heads = ()
) -> Inference:
    """The answers of a network of one's own or of a run.

    Args:
        network: functional, from clips to a dict with "logits".
        engine: that is to compute them.
        name: of the network, for messages.
        heads: of the network, see `tf_records.heads`.

    Raises:
        RunError: the engine cannot do this network, or says something else than TensorFlow in float32.
    """
    if engine.is_default:
        return Inference(engine=engine.name, precision=FLOAT32, answer=compile_inference(network, heads))
    from kdant_tf.models.batch_norm_folding import fold_batch_norm

    folded = fold_batch_norm(network)
    return convert_inference(
        lambda clips: folded(clips, training=False)["logits"],
        [folded],
        engine,
        shape=network.input.shape[1:],
        reference=lambda clips: network(clips, training=False)["logits"],
        name=name,
        heads=heads,
    )


def compile_inference(network: keras.Model, heads: Heads = ()) -> Infer:
    """Clips → class probabilities, in TensorFlow and float32; traced once for as long as it is kept."""
    import tensorflow as tf

    from kdant_tf.losses.heads import head_probabilities

    def infer(clips: tf.Tensor) -> tf.Tensor:
        return head_probabilities(network(clips, training=False)["logits"], heads)

    traced: Infer = tf.function(infer, reduce_retracing=True, autograph=False)
    return traced


def convert_inference(
    infer: Infer,
    networks: Sequence[keras.Model],
    engine: Engine,
    *,
    shape: Sequence[int | None],
    reference: Infer,
    name: str,
    heads: Heads = (),
) -> Inference:
    """What `engine` makes of a function, compared with TensorFlow in float32 before it is used.

    Args:
        infer: prepared clips → logits `(B, classes)`; calls `networks`, their batch normalisation folded.
        networks: whose weights become constants of the engine's graph.
        engine: other than the default.
        shape: of a prepared clip.
        reference: as `infer`, of the networks as they were trained.
        name: of the network, for messages.
        heads: of the networks.

    Raises:
        RunError: see `open_inference`.
    """
    import numpy as np
    import tensorflow as tf

    from kdant_tf.losses.heads import head_probabilities

    precision = engine.precision
    if precision == AUTO:
        precision = BFLOAT16 if processor_has_bfloat16() else FLOAT32
    spec = tf.TensorSpec((None, *shape), tf.float32, name="clips")
    clips = [tf.constant(clip[None]) for clip in _draw_clips(shape)]
    expected = np.concatenate([head_probabilities(reference(clip), heads).numpy() for clip in clips])

    def name_probabilities(clips: tf.Tensor) -> dict[str, tf.Tensor]:
        return {_PROBABILITIES: head_probabilities(infer(clips), heads)}

    try:
        if engine.name == OPENVINO:
            answer = _convert_to_openvino(freeze(name_probabilities, networks, [spec]), precision)
        else:
            frozen = freeze(name_probabilities, networks, [spec], precision)
            answer = _finite_or(lambda clips: head_probabilities(reference(clips), heads), frozen)
        given = np.concatenate([answer(clip) for clip in clips])
    except Exception as error:  # The converter and its runtime have their own.
        raise RunError(
            f"The engine {engine.name} cannot compute {name} in {precision}: {first_line(error)}. Leave "
            f"--engine and --precision out."
        ) from error
    difference, allowed = float(np.max(np.abs(given - expected))), TOLERANCES[precision]
    # A network that diverged in its training is named by what reads its answers.
    if np.isfinite(expected).all() and not difference <= allowed:
        raise RunError(
            f"{name} in {engine.name} and {precision} differs by {difference:.2g} in a probability from "
            f"TensorFlow in {FLOAT32}, more than {allowed:g}, on drawn clips. Leave --engine and --precision "
            f"out."
        )
    chosen = f"{precision}, chosen for this processor" if engine.precision == AUTO else precision
    engine.report(
        f"{name}: engine {engine.name}, {chosen}; probabilities of {_TRIAL_CLIPS} drawn clips differ by "
        f"{difference:.1g} from TensorFlow in {FLOAT32} (allowed: {allowed:g})."
    )
    return Inference(engine=engine.name, precision=precision, answer=answer, difference=difference)


def freeze(
    function: Callable[..., Any],
    networks: Sequence[keras.Model],
    specs: Sequence[tf.TensorSpec],
    precision: str = FLOAT32,
) -> Any:
    """A traced function whose weights are constants of its graph, which TensorFlow folds and arranges once.

    Args:
        function: of tensors as `specs` describe them; calls `networks`.
        networks: whose weights become constants, unless they are too large for a graph.
        specs: of the arguments.
        precision: "float32" or "bfloat16", in which all but the last layers compute.
    """
    import keras
    import tensorflow as tf

    # Read out here, since inside of the graph a variable has no value.
    values = [(variable, variable.numpy()) for network in networks for variable in network.variables]
    if sum(value.nbytes for _, value in values) > _LARGEST_CONSTANTS:
        values = []

    def frozen(*inputs: tf.Tensor) -> Any:
        constants = [(variable, tf.constant(value)) for variable, value in values]
        with keras.StatelessScope(state_mapping=constants):
            return function(*inputs)

    with _computing_in(precision, networks):
        return tf.function(frozen, input_signature=specs, autograph=False).get_concrete_function()


@contextmanager
def _computing_in(precision: str, networks: Sequence[keras.Model]) -> Iterator[None]:
    """Layers are shared with networks that go on in float32: they compute otherwise while traced alone."""
    if precision == FLOAT32:
        yield
        return
    from kdant_tf.models.networks import set_precision

    try:
        for network in networks:
            set_precision(network, f"mixed_{precision}")
        yield
    finally:
        for network in networks:
            set_precision(network, FLOAT32)


def processor_has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; where it does not, that is imitated, and slower."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _BFLOAT16_FLAGS.isdisjoint(flags.split())


def _draw_clips(shape: Sequence[int | None]) -> np.ndarray:
    """Noise, always the same, float32 `(_TRIAL_CLIPS, *shape)` in [-1, 1]."""
    import numpy as np

    sizes = (_TRIAL_CLIPS, *(size or _TRIAL_SIDE for size in shape))
    return np.random.default_rng(0).uniform(-1, 1, sizes).astype(np.float32)


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which else tells Intel of each import and conversion, unasked."""
    with without_telemetry():
        import openvino

    return openvino


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Imports within do not find the package by which OpenVINO and NNCF tell of their use."""
    module = "openvino_telemetry"
    kept = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if kept is None:
            del sys.modules[module]
        else:
            sys.modules[module] = kept


class OpenVinoNetwork:
    """A network compiled for each shape of inputs as it comes: two thirds of the time of one for any shape.

    Args:
        read: gives the model anew, which is changed.
        precision: "bfloat16", or another, which is computed in float32.
    """

    def __init__(self, read: Callable[[], Any], precision: str) -> None:
        self._core = import_openvino().Core()
        self._read = read
        self._hints = {
            # Left to itself it computes in 16 bits wherever the processor can.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == BFLOAT16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        read()  # A damaged file is found here.
        self._compiled: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import numpy as np

        compiled = self._compile({name: values.shape for name, values in inputs.items()})
        # A request holds the tensors of one call; one for each keeps threads apart.
        results = compiled.create_infer_request().infer(dict(inputs))
        return {output.get_any_name(): np.array(values) for output, values in results.items()}

    def _compile(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        key = tuple(sorted(shapes.items()))
        with self._lock:
            if key not in self._compiled:
                model = self._read()
                model.reshape({name: list(shape) for name, shape in shapes.items()})
                self._compiled[key] = self._core.compile_model(model, "CPU", self._hints)
            self._compiled.move_to_end(key)
            while len(self._compiled) > _COMPILED_SHAPES:
                self._compiled.popitem(last=False)
            return self._compiled[key]


def _finite_or(reference: Infer, function: Any) -> Infer:
    """Answers of `function`, of `reference` where they are not finite.

    TensorFlow's convolutions in bfloat16 now and then read memory that was never written: 13 of 1,200 answers
    of I3D at 1/16 of its width were NaN, at 1/8 and wider none of 1,000.
    """
    import numpy as np

    def answer(clips: tf.Tensor) -> tf.Tensor:
        given = function(clips)[_PROBABILITIES]
        return given if np.isfinite(given).all() else reference(clips)

    return answer


def _convert_to_openvino(function: Any, precision: str) -> Callable[[tf.Tensor], np.ndarray]:
    import numpy as np

    model = import_openvino().convert_model(function)
    network = OpenVinoNetwork(model.clone, precision)
    (name,) = (given.get_any_name() for given in model.inputs)

    def answer(clips: tf.Tensor) -> np.ndarray:
        # What no other operation reads is an output too.
        return network({name: np.asarray(clips)})[_PROBABILITIES]

    return answer
