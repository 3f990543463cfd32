"""The house: data flows tf_records → kdant_tf → cli, and nothing imports upward."""

import ast
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "tf_records": {"kdant_tf", "kdant_cli", "cli", "keras"},
    "kdant_tf": {"kdant_cli", "cli"},
}
# A room imports only what stands before it; the package itself, with its public names, is the last.
ROOMS = (
    *(
        "version",
        "archive",
        "private_apis",
        "layers",
        "losses",
        "settings",
        "config",
        "runs",
        "run_list",
        "models",
        "evaluation",
        "visualization",
        "training",
    ),
    *("studies", "report", "serving", "anticipation", "demo", "api", ""),
)
SOURCES = {
    package: sorted((REPOSITORY / package).rglob("*.py")) for package in ("tf_records", "kdant_tf", "cli")
}
MODULES = [
    pytest.param(package, path, id=str(path.relative_to(REPOSITORY)))
    for package in FORBIDDEN
    for path in SOURCES[package]
]
LIGHT_MODULES = (
    "kdant_cli.main, kdant_tf, kdant_tf.private_apis, kdant_tf.losses, kdant_tf.config, kdant_tf.archive, "
    "kdant_tf.runs, kdant_tf.report.report, tf_records, "
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


def module_name(path: Path) -> str:
    """Such as "kdant_tf.models.i3d", or "cli.main" for what is installed as kdant_cli.main."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: Collection[str]) -> set[str]:
    """Names of the `modules` that a file imports, also inside functions, but for `if TYPE_CHECKING:`."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Only cli has relative imports, all of its one folder.
            base = ".".join(part for part in ("cli" if node.level else "", node.module) if part)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in modules else base)
    return found & set(modules)


PATHS = {module_name(path): path for paths in SOURCES.values() for path in paths}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Which modules each module imports."""
    return {name: imports_of(path, PATHS) for name, path in PATHS.items()}


def room_of(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def test_no_room_imports_one_above_it(imports):
    rooms = {name: room_of(name) for name in imports if name.partition(".")[0] == "kdant_tf"}
    assert set(rooms.values()) <= set(ROOMS), "a room that has no place in the order"
    upward = [
        f"{name} imports {other}"
        for name in rooms
        for other in imports[name] & set(rooms)
        if ROOMS.index(rooms[other]) > ROOMS.index(rooms[name])
    ]
    assert upward == []


def in_circles(imports: Mapping[str, Collection[str]]) -> list[str]:
    """What is left once modules that import none that is left are taken away, again and again."""
    left = {name: set(others) for name, others in imports.items()}
    while leaves := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in leaves}
    return [f"{name} imports {', '.join(sorted(others & left.keys()))}" for name, others in left.items()]


def test_no_modules_import_each_other(imports):
    assert in_circles(imports) == []


def test_a_circle_would_be_found():
    assert in_circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [
        *("a imports b", "b imports c", "c imports b"),
    ]


def test_a_class_has_a_name_of_its_own():
    """In the whole repository, so that a name says what is meant; also of private classes."""
    modules: dict[str, list[str]] = {}
    for module, path in PATHS.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                modules.setdefault(node.name, []).append(module)
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}


def test_there_are_few_files():
    """A file is a topic; what is cut by size alone makes every journey long."""
    assert len(PATHS) <= 150


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
