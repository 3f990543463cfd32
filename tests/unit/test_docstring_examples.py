"""What an `Example:` of a docstring prints is what it says there."""

import doctest
import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("kdant_tf", "tf_records")
    for path in (ROOT / package).rglob("*.py")
    if ">>>" in path.read_text("utf-8")
)


@pytest.fixture
def folders(record_folder: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder with `records`, and with the runs `teacher` and `student`, for examples to open."""
    for name, folder in {"records": record_folder, "teacher": finished_run, "student": finished_run}.items():
        (tmp_path / name).symlink_to(folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name, capsys):
    module = importlib.import_module(name)
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    assert found, f"{name} has >>> outside its docstrings"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found:
        runner.run(test, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out


def test_the_public_layer_loss_and_network_have_examples():
    assert {"kdant_tf.layers.attention_pooling", "kdant_tf.losses.features", "kdant_tf.models.i3d"} <= set(
        MODULES
    )
