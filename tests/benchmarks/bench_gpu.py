"""I3D and the distillation step on a GPU, under JAX or PyTorch, without TensorFlow.

    KERAS_BACKEND=jax python tests/benchmarks/bench_gpu.py --json gpu.json
    KERAS_BACKEND=torch python tests/benchmarks/bench_gpu.py --peer FOLDER

Needs Keras' wheel, click, and JAX or PyTorch, with a GPU or without; kdant is taken from the folder above.
First logits and L_d are compared with those of the CPU, then steps are timed until the time is up, the most
telling ones first; what is left out is said. In JAX a whole step is one compiled call (`jit`); PyTorch runs
it operation by operation. A step that fails is named and the others go on; the JSON is written after each,
and at `--limit-s` the script ends with what there is.

Without a GPU, every step in a few minutes of a core:

    KERAS_BACKEND=torch python tests/benchmarks/bench_gpu.py --sizes 8x64 --batches 2 --width 0.125 \\
        --repeats 3 --precision float32 --budget-s 1500 --limit-s 1800 --peer FOLDER
"""

import contextlib
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")
# PyTorch's port in its own process needs memory too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click
import keras
import numpy as np
from keras import ops

from kdant_tf.losses.classification import classification_loss
from kdant_tf.losses.features import feature_loss
from kdant_tf.models.i3d import build_i3d

CLASSES = 21
ENDPOINT = "Mixed_4f"
STEPS = ("distillation", "training", "forward")
PRECISIONS = ("bfloat16", "float32")
# Largest difference from the CPU in float32, as a share of the largest logit, and of L_d. float32 is TF32 on
# a GPU, whose products have 10 bits; bfloat16 has 7.
TOLERANCES = {"float32": 0.02, "bfloat16": 0.1}
_FEATURE_WEIGHT = 10.0
_SQUARE = 16
_LEARNING_RATE = 1e-5
_WARM_UPS = 2
BACKEND = keras.backend.backend()


class Size(NamedTuple):
    """Of a clip: such as 8x224."""

    frames: int
    pixels: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.pixels}"


class Measured(NamedTuple):
    """Times of one step."""

    step: str
    size: str
    precision: str
    batch: int
    seconds: tuple[float, ...]
    peer_seconds: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        median = statistics.median(self.seconds)
        peer = statistics.median(self.peer_seconds) if self.peer_seconds else None
        return {
            **{name: getattr(self, name) for name in ("step", "size", "precision", "batch")},
            "median_s": median,
            "minimum_s": min(self.seconds),
            "clips_per_second": self.batch / median,
            "peer_median_s": peer,
            "of_peer": None if peer is None else median / peer,
        }


def build(size: Size, precision: str, width: float) -> keras.Model:
    """A random I3D, its first and last layers as ever; weights are float32."""
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        keras.utils.set_random_seed(0)
        shape = (size.frames, size.pixels, size.pixels, 3)
        return build_i3d(CLASSES, shape, width, endpoints=(ENDPOINT,), seed=0)
    finally:
        keras.config.set_dtype_policy("float32")


def draw(size: Size, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed clips of noise and future ones of coarse squares, in [-1, 1], and labels."""
    rng = np.random.default_rng(0)
    shape = (batch, size.frames, size.pixels, size.pixels, 3)
    observed = rng.uniform(-1, 1, shape).astype(np.float32)
    side = -(-size.pixels // _SQUARE)
    coarse = rng.uniform(-1, 1, (batch, 1, side, side, 3)).astype(np.float32)
    squares = coarse.repeat(_SQUARE, axis=2).repeat(_SQUARE, axis=3)[:, :, : size.pixels, : size.pixels]
    return observed, np.broadcast_to(squares, shape).copy(), np.arange(batch, dtype=np.int32) % CLASSES


def compute_loss(outputs: Any, labels: Any, future_map: Any | None) -> Any:
    """Cross-entropy, and with the teacher's map L_d."""
    loss = classification_loss(outputs["logits"], labels)
    if future_map is None:
        return loss
    return loss + _FEATURE_WEIGHT * feature_loss("bidirectional", outputs[ENDPOINT], future_map)


def make_step(step: str, size: Size, precision: str, batch: int, width: float) -> Callable[[], None]:
    """A function that runs the step once and waits until it is done."""
    make = {"jax": _make_jax_step, "torch": _make_torch_step}[BACKEND]
    student = build(size, precision, width)
    teacher = build(size, precision, width) if step == "distillation" else None
    return make(step, student, teacher, draw(size, batch))


def _make_jax_step(step: str, student: Any, teacher: Any, batch: Sequence[np.ndarray]) -> Callable[[], None]:
    import jax

    observed, future, labels = (jax.device_put(each) for each in batch)
    frozen = None if teacher is None else [variable.value for variable in teacher.variables]
    if step == "forward":
        weights = [variable.value for variable in student.variables]
        forward = jax.jit(lambda values, clips: _call(student, values, clips)["logits"])
        return lambda: jax.block_until_ready(forward(weights, observed))
    optimizer = keras.optimizers.SGD(_LEARNING_RATE, momentum=0.9, weight_decay=1e-5)
    optimizer.build(student.trainable_variables)

    def loss_of(trainable: Any, others: Any, clips: Any, future_map: Any) -> Any:
        outputs, others = student.stateless_call(trainable, others, clips, training=True)
        return compute_loss(outputs, labels, future_map), others

    def train(state: Any, clips: Any, future: Any, teacher_values: Any) -> Any:
        trainable, others, slots = state
        future_map = None if teacher is None else _call(teacher, teacher_values, future)[ENDPOINT]
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradients = gradient(trainable, others, clips, future_map)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return loss, (trainable, others, slots)

    compiled = jax.jit(train, donate_argnums=0)
    state = tuple(
        [jax.numpy.array(variable.value) for variable in variables]
        for variables in (
            student.trainable_variables,
            student.non_trainable_variables,
            optimizer.variables,
        )
    )

    def run() -> None:
        nonlocal state
        loss, state = compiled(state, observed, future, frozen)
        jax.block_until_ready(loss)

    return run


def _call(network: Any, values: Any, clips: Any) -> Any:
    """Outputs of a network whose `variables` have `values`, at inference."""
    trained = {id(variable) for variable in network.trainable_variables}
    pairs = list(zip(network.variables, values, strict=True))
    outputs, _ = network.stateless_call(
        [value for variable, value in pairs if id(variable) in trained],
        [value for variable, value in pairs if id(variable) not in trained],
        clips,
        training=False,
    )
    return outputs


def _make_torch_step(
    step: str, student: Any, teacher: Any, batch: Sequence[np.ndarray]
) -> Callable[[], None]:
    import torch

    observed, future, labels = (ops.convert_to_tensor(each) for each in batch)

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def forward() -> None:
        with torch.no_grad():
            student(observed, training=False)
        wait()

    if step == "forward":
        return forward
    optimizer = keras.optimizers.SGD(_LEARNING_RATE, momentum=0.9, weight_decay=1e-5)
    optimizer.build(student.trainable_variables)

    def run() -> None:
        future_map = None
        if teacher is not None:
            with torch.no_grad():
                future_map = teacher(future, training=False)[ENDPOINT]
        student.zero_grad()
        compute_loss(student(observed, training=True), labels, future_map).backward()
        gradients = [variable.value.grad for variable in student.trainable_variables]
        with torch.no_grad():
            optimizer.apply(gradients, student.trainable_variables)
        wait()

    return run


def compare_with_cpu(size: Size, precision: str, width: float) -> dict[str, Any]:
    """Logits and L_d of two clips on the device, beside the CPU's in float32.

    Returns:
        "logits" and "loss": largest difference as a share of the largest logit, and of L_d; "tolerance".
    """
    found = {}
    with keras.device("cpu"):
        reference = build(size, "float32", width)
        found["cpu"] = _answers(reference, size)
    network = build(size, precision, width)
    network.set_weights(reference.get_weights())
    found["device"] = _answers(network, size)
    (own, own_loss), (logits, loss) = found["cpu"], found["device"]
    return {
        "logits": float(np.abs(logits - own).max() / np.abs(own).max()),
        "loss": float(abs(loss - own_loss) / abs(own_loss)),
        "tolerance": TOLERANCES[precision],
    }


def _answers(network: keras.Model, size: Size) -> tuple[np.ndarray, float]:
    observed, future, _ = draw(size, 1)
    clips = np.concatenate([observed, future])
    logits, loss = _outputs(network, clips)
    return ops.convert_to_numpy(logits).astype(np.float64), float(ops.convert_to_numpy(loss))


def _outputs(network: keras.Model, clips: np.ndarray) -> tuple[Any, Any]:
    """Logits, and L_d of the first clip's map from the second's."""

    def answer(outputs: Any) -> tuple[Any, Any]:
        first, second = outputs[ENDPOINT][:1], outputs[ENDPOINT][1:]
        return outputs["logits"], feature_loss("bidirectional", first, second)

    if BACKEND == "torch":
        import torch

        with torch.no_grad():
            return answer(network(clips, training=False))
    import jax

    # Operation by operation JAX would compile each for itself.
    compiled = jax.jit(lambda values, given: answer(_call(network, values, given)))
    return compiled([variable.value for variable in network.variables], clips)  # type: ignore[no-any-return]


def use_tensor_cores() -> dict[str, str]:
    """Lets float32 products be TF32 on a GPU, and tells versions and the device."""
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
        device = jax.devices()[0]
        return {"backend": f"jax {jax.__version__}", "device": f"{device.platform} {device.device_kind}"}
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    has_gpu = torch.cuda.is_available()
    device = f"gpu {torch.cuda.get_device_name()}" if has_gpu else "cpu"
    return {"backend": f"torch {torch.__version__}", "device": device}


class Peer:
    """PyTorch's port (peer_worker.py) in a process of its own, for one size, batch and precision."""

    def __init__(self, python: str, folder: Path, size: Size, batch: int, precision: str) -> None:
        worker = Path(__file__).with_name("peer_worker.py")
        options = {"batch-size": batch, "frames": size.frames, "classes": CLASSES}
        given = [f"--{name}={value}" for name, value in (*options.items(), ("precision", precision))]
        command = [python, str(worker), str(folder), *given, "--device=auto"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._pixels = size.pixels
        self._read()

    def step(self) -> None:
        """One distillation step."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended, which `_read` says.
            self._process.stdin.write(f"{self._pixels}\n")
            self._process.stdin.flush()
        self._read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise click.ClickException("The PyTorch process ended; its own message is above.")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def time_step(run: Callable[[], None], peer: Peer | None, repeats: int) -> tuple[tuple[float, ...], ...]:
    """Seconds of the step and of the peer's, in turns; the first calls compile and do not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(_WARM_UPS + repeats):
        for times, function in zip(seconds, (run, None if peer is None else peer.step), strict=True):
            if function is None:
                continue
            began_s = time.perf_counter()
            function()
            if number >= _WARM_UPS:
                times.append(time.perf_counter() - began_s)
    return tuple(map(tuple, seconds))


def _plan(
    sizes: Sequence[Size], batches: Sequence[int], steps: Sequence[str], precisions: Sequence[str]
) -> Iterator[tuple[str, Size, str, int]]:
    """Each step at the first size and batch in the precisions, and then the rest."""
    first = [(step, sizes[0], precision, batches[0]) for step in steps for precision in precisions]
    yield from first
    ordered = [batches[0], *sorted(set(batches[1:]), reverse=True)]
    for size, batch, step, precision in itertools.product(sizes, ordered, steps, precisions):
        if (step, size, precision, batch) not in first:
            yield step, size, precision, batch


def _parse_sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Size, ...]:
    try:
        return tuple(Size(*map(int, part.split("x"))) for part in value.split(","))
    except (TypeError, ValueError) as error:
        raise click.BadParameter(f"should be sizes such as 8x224,16x224. Received: {value!r}.") from error


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--sizes", default="8x224,16x224", show_default=True, callback=_parse_sizes)
@click.option("--batches", default="8,16,32,64", show_default=True, help="Clips a step.")
@click.option("--width", default=1.0, show_default=True, help="Multiplies I3D's channels.")
@click.option("--only", multiple=True, type=click.Choice(STEPS), default=STEPS, help="Steps to time.")
@click.option("--precision", multiple=True, type=click.Choice(PRECISIONS), default=PRECISIONS)
@click.option("--repeats", default=10, show_default=True, type=click.IntRange(1))
@click.option(
    "--budget-s", default=400.0, show_default=True, help="Seconds; what would take longer is left out."
)
@click.option("--limit-s", default=470.0, show_default=True, help="Seconds after which all ends.")
@click.option("--peer", type=click.Path(exists=True, path_type=Path), help="Folder with pytorch_i3d.py.")
@click.option("--peer-python", default=sys.executable, help="Interpreter with PyTorch; default: this one.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="File for the results.")
def main(
    sizes: tuple[Size, ...],
    batches: str,
    width: float,
    only: tuple[str, ...],
    precision: tuple[str, ...],
    repeats: int,
    budget_s: float,
    limit_s: float,
    peer: Path | None,
    peer_python: str,
    json_path: Path | None,
) -> None:
    """Compare with the CPU, then time the steps; exit code 1 where a difference is above its tolerance."""
    began_s = time.perf_counter()
    result: dict[str, Any] = {
        "machine": use_tensor_cores() | {"keras": keras.__version__, "width": str(width)}
    }
    click.echo(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    plans = [*_plan(sizes, [int(part) for part in batches.split(",")], only, precision)]
    result |= {
        "parity": {},
        "rows": [],
        "failed": {},
        "left_out": [" ".join(map(str, plan)) for plan in plans],
    }

    def save() -> None:
        result["seconds"] = time.perf_counter() - began_s
        if json_path is not None:
            json_path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")

    def end() -> None:
        save()
        click.echo(f"The time is up. Left out: {'; '.join(result['left_out'])}.")
        os._exit(int(bool(result["failed"])))  # A compilation cannot be interrupted.

    watch = threading.Timer(limit_s, end)
    watch.daemon = True
    watch.start()
    for name in reversed(precision):
        _compare(name, sizes[0], width, result)
    longest_s: dict[str, float] = {}
    for plan, title in zip(plans, [*result["left_out"]], strict=True):
        started_s = time.perf_counter()
        # A step is taken to need as long as its like did, the first of its kind as long as any other.
        expected_s = longest_s.get(plan[0], max(longest_s.values(), default=0.0))
        if started_s - began_s + expected_s > budget_s or plan[2] not in result["parity"]:
            continue
        result["left_out"].remove(title)
        try:
            row = _measure(*plan, width=width, repeats=repeats, peer=peer, peer_python=peer_python)
        except Exception as error:  # JAX and PyTorch have errors of their own for a full memory and all else.
            result["failed"][title] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
            click.echo(f"{title} failed: {result['failed'][title]}")
        else:
            result["rows"].append(row.to_dict())
            _print(result["rows"][-1])
        longest_s[plan[0]] = max(longest_s.get(plan[0], 0.0), time.perf_counter() - started_s)
        save()
    watch.cancel()
    save()
    if result["left_out"]:
        click.echo(f"Left out: {'; '.join(result['left_out'])}.")
    wrong = [
        name
        for name, each in result["parity"].items()
        if not max(each["logits"], each["loss"]) <= each["tolerance"]
    ]
    if wrong:
        raise click.ClickException(f"{' and '.join(wrong)}: not what the CPU computes, see above.")
    if not result["rows"]:
        raise click.ClickException("Nothing was measured.")


def _compare(precision: str, size: Size, width: float, result: dict[str, Any]) -> None:
    """Adds what differs from the CPU to `result`, or why that is not known."""
    try:
        found = compare_with_cpu(size, precision, width)
    except NotImplementedError:  # PyTorch pools no bfloat16 in three dimensions on a CPU.
        click.echo(f"{precision}: {BACKEND} lacks an operation of it on this device.")
        return
    result["parity"][precision] = found
    click.echo(
        f"{size} {precision}: logits differ by {found['logits']:.2g} of the largest, L_d by "
        f"{found['loss']:.2g} of itself, from the CPU in float32 (allowed: {found['tolerance']:g})"
    )


def _measure(
    step: str,
    size: Size,
    precision: str,
    batch: int,
    *,
    width: float,
    repeats: int,
    peer: Path | None,
    peer_python: str,
) -> Measured:
    """The step's times, and the peer's where it can run the step too."""
    try:
        run = make_step(step, size, precision, batch, width)
        run()
        if peer is not None and step == "distillation":
            try:
                with contextlib.closing(Peer(peer_python, peer, size, batch, precision)) as beside:
                    return Measured(step, str(size), precision, batch, *time_step(run, beside, repeats))
            except click.ClickException as error:
                click.echo(f"Without PyTorch's port: {error.message}")
        return Measured(step, str(size), precision, batch, *time_step(run, None, repeats))
    finally:
        keras.utils.clear_session()
        gc.collect()
        if BACKEND == "torch":
            import torch

            torch.cuda.empty_cache()


def _print(row: dict[str, Any]) -> None:
    of_peer = "" if row["of_peer"] is None else f", {row['of_peer']:.2f} of PyTorch's port"
    click.echo(
        f"{row['step']:12} {row['size']:7} {row['precision']:8} batch {row['batch']:3}: "
        f"{1000 * row['median_s']:9.1f} ms ({1000 * row['minimum_s']:.1f}), "
        f"{row['clips_per_second']:8.1f} clips/s{of_peer}"
    )


if __name__ == "__main__":
    main()
