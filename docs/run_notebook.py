"""Runs the notebook of the tutorials anew, and says where its outputs differ from those in the file.

    .venv/bin/python docs/run_notebook.py            # runs it and writes its outputs into the file
    .venv/bin/python docs/run_notebook.py --check    # runs it, compares, and exits with 1 where they differ

Text is compared, pictures are not. In cells with the tag `numbers-vary`, which train, any number fits any
other: the last digits of a training depend on the processor.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).parent / "tutorials" / "python.ipynb"
NUMBERS_VARY = "numbers-vary"
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare; write nothing")
    options = parser.parse_args(arguments)
    committed = nbformat.read(NOTEBOOK, as_version=4)
    fresh = execute(nbformat.read(NOTEBOOK, as_version=4))
    if options.check:
        found = differences(committed, fresh)
        print("\n".join(found) or f"{NOTEBOOK.name}: outputs are those of its code.")
        return 1 if found else 0
    nbformat.write(fresh, NOTEBOOK)
    return 0


def execute(notebook: NotebookNode) -> NotebookNode:
    """Runs every cell in order, in a new kernel; an exception in one is an error here."""
    client = NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True)
    client.execute()
    # Nothing of the machine that it ran on.
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    return notebook


def differences(committed: NotebookNode, fresh: NotebookNode) -> list[str]:
    """A line for each code cell whose text outputs differ, or that printed to stderr."""
    found = []
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    new_cells = [cell for cell in fresh.cells if cell.cell_type == "code"]
    for number, (cell, new_cell) in enumerate(zip(cells, new_cells, strict=True), 1):
        varies = NUMBERS_VARY in cell.metadata.get("tags", ())
        old, new = (text_of(each, varies=varies) for each in (cell, new_cell))
        if old != new:
            found.append(
                f"Code cell {number} should print\n{old}\nIt printed\n{new}\nRun {Path(__file__).name}."
            )
        if any(output.get("name") == "stderr" for output in cell.outputs):
            found.append(f"Code cell {number} has lines of stderr in the file.")
    return found


def text_of(cell: NotebookNode, *, varies: bool = False) -> str:
    """What a cell printed to stdout, its value, and the kinds of its pictures, with # for what varies."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts += [output.text] if output.name == "stdout" else []
        else:
            kinds = [kind for kind in output.data if kind.startswith("image/")]
            parts.append(", ".join(kinds) or output.data.get("text/plain", ""))
    text = "\n".join(parts)
    return re.sub(r" *\d+(\.\d+)?", " #", text) if varies else text


if __name__ == "__main__":
    sys.exit(main())
