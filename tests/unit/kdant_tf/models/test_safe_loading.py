"""A model file from elsewhere runs no Python when it is loaded."""

import ast
from pathlib import Path

import keras
import pytest

from kdant_tf.models.networks import load_saved
from tf_records.errors import RunError

REPOSITORY = Path(__file__).resolve().parents[4]
# Modules and calls that run what they read.
RUNS_WHAT_IT_READS = {"pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle", "eval", "exec"}
# Workers on other machines get their shards' tasks from the process that submits them.
ALLOWED = {("tf_records/beam.py", "pickle")}


def test_code_in_a_keras_file_is_not_run(tmp_path):
    ran = tmp_path / "ran"
    frames = keras.Input((4,))
    name = str(ran)
    code = keras.layers.Lambda(lambda values: (open(name, "w").close(), values)[1])
    keras.Model(frames, {"logits": code(frames)}).save(tmp_path / "model.keras")
    ran.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        load_saved(tmp_path / "model.keras")
    assert not ran.exists()


def test_nothing_is_unpickled_or_evaluated():
    found = set()
    for folder in ("tf_records", "kdant_tf", "cli"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            names = _names(ast.parse(path.read_text("utf-8"))) & RUNS_WHAT_IT_READS
            found |= {(str(path.relative_to(REPOSITORY)), name) for name in names}
    assert found == ALLOWED


def _names(tree: ast.Module) -> set[str]:
    """Top-level names of all imports, and functions that are called by their name alone."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names.add(node.func.id)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
    return names
