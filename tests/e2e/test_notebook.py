"""The notebook of the tutorials runs, and prints what it is committed with."""

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "run_notebook.py"


@pytest.fixture(scope="module")
def run_notebook():
    spec = importlib.util.spec_from_file_location("run_notebook", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed(run_notebook) -> nbformat.NotebookNode:
    return nbformat.read(run_notebook.NOTEBOOK, as_version=4)


def test_the_outputs_are_those_of_the_code():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def printing(notebook: nbformat.NotebookNode, *, varies: bool) -> nbformat.NotebookNode:
    """The first cell that prints a number and whose numbers vary, or do not."""
    return next(
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and ("numbers-vary" in cell.metadata.get("tags", ())) is varies
        and any(char.isdigit() for output in cell.outputs for char in output.get("text", ""))
    )


def test_another_output_is_noticed_where_it_matters(run_notebook, committed):
    assert run_notebook.differences(committed, copy.deepcopy(committed)) == []
    for varies in (False, True):
        fresh = copy.deepcopy(committed)
        output = printing(fresh, varies=varies).outputs[0]
        output.text = output.text.translate(str.maketrans("0123456789", "1234567890"))
        assert len(run_notebook.differences(committed, fresh)) == (0 if varies else 1)
        output.text += "a line more\n"
        (found,) = run_notebook.differences(committed, fresh)
        assert "a line more" in found


def test_a_picture_that_is_missing_and_lines_of_stderr_are_noticed(run_notebook, committed):
    fresh = copy.deepcopy(committed)
    cell = next(cell for cell in fresh.cells if any("data" in out for out in cell.get("outputs", ())))
    cell.outputs = []
    assert len(run_notebook.differences(committed, fresh)) == 1
    noisy = copy.deepcopy(committed)
    printing(noisy, varies=False).outputs.append(
        nbformat.v4.new_output("stream", name="stderr", text="I0000 oneDNN\n")
    )
    (found,) = run_notebook.differences(noisy, committed)
    assert "stderr" in found


def test_the_file_says_nothing_of_the_machine(run_notebook, committed):
    assert set(committed.metadata) == {"kernelspec", "language_info"}
    text = json.dumps(committed)
    assert str(Path.home()) not in text
    assert "/tmp/" not in text
    assert run_notebook.NOTEBOOK.stat().st_size < 1_000_000
