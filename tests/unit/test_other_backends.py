"""The method without TensorFlow: the equations' tests once more on the other backends of Keras."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EQUATIONS = ROOT / "tests" / "golden" / "test_equations_on_any_backend.py"
# Keras converts torch's tensors in a way that NumPy 2 deprecates.
KERAS_COPIES = "__array__ implementation doesn't accept a copy keyword"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_equations_hold_on_another_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    # conftest.py imports TensorFlow; pyproject.toml's plug-ins may be absent beside another backend.
    options = ["--noconftest", "-c", os.devnull, "-q", "-p", "no:cacheprovider", "-o", "markers=slow"]
    options += ["-W", "error", "-W", f"ignore:{KERAS_COPIES}:DeprecationWarning"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(EQUATIONS)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert " passed" in finished.stdout
