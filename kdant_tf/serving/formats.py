"""The file formats of exported networks, and how each is run. No TensorFlow but for SavedModels.

A version holds one network in a file whose name tells the format. A SavedModel is run by TensorFlow; the
others by a runtime of their own, which an extra of the package brings, and which starts in a fraction of
TensorFlow's time.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from kdant_tf.models.inference import BFLOAT16, FLOAT32, OPENVINO, OpenVinoNetwork, import_openvino
from tf_records.errors import KdantError, RunError, first_line
from tf_records.start_tensorflow import without_native_messages

# `kdant export --help` names the formats, and is there at once.
if TYPE_CHECKING:
    import numpy as np

SAVED_MODEL, ONNX, LITERT = "savedmodel", "onnx", "litert"
FLOAT16, INT8 = "float16", "int8"

Arrays: TypeAlias = "Mapping[str, np.ndarray]"
Answer: TypeAlias = "Callable[[Arrays], dict[str, np.ndarray]]"


class Format(NamedTuple):
    """A file format of networks.

    Args:
        file: whose presence in a version says that this is its format.
        title: its name in messages.
        extra: of this package, which brings what follows; "" where the base install does.
        writes, runs: top-level modules of the packages that write it, and that run it.
        precisions: that it can be written in, the default first.
        quantizes: top-level modules of the packages that INT8 needs besides.
    """

    file: str
    title: str
    extra: str = ""
    writes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    precisions: tuple[str, ...] = (FLOAT32,)
    quantizes: tuple[str, ...] = ()


FORMATS = {
    SAVED_MODEL: Format("saved_model.pb", "SavedModel", precisions=(FLOAT32, BFLOAT16)),
    OPENVINO: Format(
        file="model.xml",
        title="OpenVINO",
        extra="openvino",
        writes=("openvino",),
        runs=("openvino",),
        precisions=(FLOAT32, BFLOAT16, FLOAT16, INT8),
        quantizes=("nncf",),
    ),
    ONNX: Format(
        file="model.onnx",
        title="ONNX",
        extra="onnx",
        writes=("onnx", "tf2onnx"),
        runs=("onnxruntime",),
        precisions=(FLOAT32, FLOAT16, INT8),
    ),
    LITERT: Format(
        file="model.tflite",
        title="LiteRT",
        extra="litert",
        runs=("ai_edge_litert",),
        precisions=(FLOAT32, FLOAT16, INT8),
    ),
}
PRECISIONS = tuple(dict.fromkeys(name for each in FORMATS.values() for name in each.precisions))


def format_of(version: str | Path) -> str | None:
    """The key of FORMATS whose file lies in the folder `version`, or None."""
    return next((name for name, each in FORMATS.items() if (Path(version) / each.file).is_file()), None)


def check_precision(name: str, precision: str) -> None:
    """Refuses a precision that a format is not written in.

    Raises:
        KdantError: names those that it is.
    """
    if precision not in FORMATS[name].precisions:
        others = [other for other, each in FORMATS.items() if precision in each.precisions]
        elsewhere = f" {precision} is for the format {' or '.join(others)}." if others else ""
        raise KdantError(
            f"The format {name} is written in {' or '.join(FORMATS[name].precisions)}. Received: "
            f"{precision}.{elsewhere}"
        )


def check_installed(name: str, *, writing: bool = False, precision: str = FLOAT32) -> None:
    """Refuses a format whose packages are not all here.

    Args:
        name: key of FORMATS.
        writing: it is to be written, and then run; else only run.
        precision: that it is to be written in.

    Raises:
        KdantError: names what is missing, and the extra that brings it.
    """
    chosen = FORMATS[name]
    wanted = dict.fromkeys((*chosen.writes, *chosen.runs) if writing else chosen.runs)
    if writing and precision == INT8:
        wanted |= dict.fromkeys(chosen.quantizes)
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    if missing:
        raise KdantError(
            f"The format {name} needs {' and '.join(missing)}, not installed here. Install what it needs: "
            f'pip install "kdant-tf[{chosen.extra}]".'
        )


def open_network(version: str | Path, name: str, precision: str = FLOAT32) -> Answer:
    """Loads the network of a version that is no SavedModel.

    Args:
        version: folder with the file.
        name: key of FORMATS.
        precision: that it was exported in.

    Returns:
        uint8 clips by input's name → arrays by output's name. Several threads may call it at a time.

    Raises:
        KdantError: the runtime is not installed.
        RunError: the file cannot be loaded.
    """
    check_installed(name)
    path = Path(version) / FORMATS[name].file
    opens: dict[str, Callable[[Path, str], Answer]] = {OPENVINO: _open_openvino, ONNX: _Onnx, LITERT: _LiteRt}
    try:
        return opens[name](path, precision)
    except Exception as error:  # Each runtime has its own for a damaged file.
        raise RunError(
            f"{path} cannot be loaded by {FORMATS[name].title}: {first_line(error)}. Export the run again."
        ) from error


def _open_openvino(path: Path, precision: str) -> Answer:
    core = import_openvino().Core()
    return OpenVinoNetwork(lambda: core.read_model(str(path)), precision)


class _Onnx:
    def __init__(self, path: Path, precision: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # Errors alone.
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        answers = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, answers, strict=True))


class _LiteRt:
    """One clip at a time, one thread after the other: an interpreter holds the tensors of one call."""

    def __init__(self, path: Path, precision: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with without_native_messages():
            interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
            interpreter.allocate_tensors()  # It tells of its delegate, once.
            self._run = interpreter.get_signature_runner()
        self._lock = threading.Lock()

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        import numpy as np

        count = len(next(iter(inputs.values())))
        with self._lock:
            answers = [
                self._run(**{name: values[number, None] for name, values in inputs.items()})
                for number in range(count)
            ]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
