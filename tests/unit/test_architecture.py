"""The house: data flows tf_records → kdant_tf → cli, and nothing imports upward."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "tf_records": {"kdant_tf", "kdant_cli", "cli", "keras"},
    "kdant_tf": {"kdant_cli", "cli"},
}
MODULES = [
    pytest.param(package, path, id=str(path.relative_to(REPOSITORY)))
    for package in FORBIDDEN
    for path in sorted((REPOSITORY / package).rglob("*.py"))
]
LIGHT_MODULES = (
    "kdant_cli.main, kdant_tf, kdant_tf.config, kdant_tf.runs, kdant_tf.report.report, tf_records, "
    "tf_records.schema, tf_records.plan, tf_records.flow, tf_records.sources.jhmdb, tf_records.writer, "
    "kdant_tf.studies.paper_tables, kdant_tf.studies.sweep, kdant_tf.studies.runner, "
    "kdant_tf.studies.results, kdant_tf.studies.study_folder, kdant_tf.serving.model, "
    "kdant_tf.anticipation.anticipate, kdant_tf.anticipation.overlay, kdant_tf.serving.benchmark"
)


def imported_packages(tree: ast.Module) -> set[str]:
    """Top-level names of all absolute imports, also those inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(("package", "path"), MODULES)
def test_no_module_imports_upward(package, path):
    assert not imported_packages(ast.parse(path.read_text("utf-8"))) & FORBIDDEN[package]


@pytest.mark.parametrize(("package", "path"), MODULES)
def test_everything_public_has_a_docstring(package, path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "the module"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("package", FORBIDDEN)
def test_the_walk_finds_the_package(package):
    assert len([module for module in MODULES if module.values[0] == package]) > 10


def test_settings_and_building_import_no_tensorflow():
    code = (
        f"import sys, {LIGHT_MODULES}\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'cv2'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "[]", "")


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_importing_kdant_turns_onednn_on_unless_told_otherwise(given, expected, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    code = "import os, kdant_tf; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected
