"""How Sphinx builds these pages: `make docs`. Nothing is fetched."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from docutils import nodes

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdant_tf.version import __version__

project = "kdant"
author = "The kdant maintainers"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "equations",
]
exclude_patterns = ["_build"]
# Quotes and hyphens as they are written: `--views` is no dash.
smartquotes = False
# `single backticks` in docstrings.
default_role = "code"

html_theme = "furo"
html_title = f"kdant {version}"
html_static_path = ["_static"]
html_css_files = ["kdant.css"]
html_logo = html_favicon = "_static/logo.svg"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db4ee", "color-brand-content": "#7db4ee"},
}

# Markdown. Every heading has an anchor, as on code hosts; notebooks are committed with their outputs, which a
# test runs anew.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
html_math_renderer = "drawn"

# Python. A public name stands under `kdant_tf`, as it is imported.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call Args", "params_style"), ("Output", "returns_style")]
copybutton_prompt_text = "$ "
nitpicky = True
nitpick_ignore_regex = [
    # Classes of Python and of other packages: their pages lie elsewhere, and building needs no network.
    ("py:.*", r"(tf|tensorflow|keras|np|numpy|collections|pathlib|os|types|typing|datetime)\..*"),
    ("py:.*", r"(KerasTensor|Path|PathLike|Fraction|Callable|Sequence|Mapping|Iterator|Iterable|Self|Any)"),
    ("py:exc", r"(ValueError|RuntimeError|TypeError|OSError|KeyError)"),
    # Names for types: a local path or a RemotePath, a function of two maps.
    ("py:class", r"RecordPath|FeatureLossFunction"),
    # What follows "Returns:" and "Output:" up to the first colon is read as a class: "float32 `(B, N, d)`",
    # "None or int", "stem: from clips to a map".
    ("py:class", r".*[^\w.].*|float32|float|optional|B|T|H|W|C|d|N|M|Na|Nr|stem|head|dict"),
]


def _examples_as_code(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What stands under "Example:" is code, with `>>>` or without."""
    for number, line in enumerate(lines):
        if line.strip() in ("Example:", "Example::"):
            lines[number] = line.rstrip(":") + ":"
            code = next((each for each in lines[number + 1 :] if each.strip()), "")
            if ">>>" not in code:
                rest = lines[number + 1 :]
                margin = len(line) - len(line.lstrip())
                inside = _indented(rest, margin)
                shifted = [f"    {each}" if each.strip() else each for each in rest[:inside]]
                block = [" " * (margin + 4) + ".. code-block:: python", ""]
                lines[number + 1 :] = [*block, *shifted, "", *rest[inside:]]
            return


def _indented(lines: list[str], margin: int) -> int:
    """How many of the first lines are empty or stand further to the right than `margin`."""
    for number, line in enumerate(lines):
        if line.strip() and len(line) - len(line.lstrip()) <= margin:
            return number
    return len(lines)


def _options_as_in_help(app: Any, context: click.Context, lines: list[str]) -> None:
    """Options under the headings and with the words of `--help`."""
    headings: dict[str, list[click.Option]] = {"": []}
    for param in context.command.params:
        if isinstance(param, click.Option) and not param.hidden:
            headings.setdefault(getattr(param, "group", ""), []).append(param)
    lines[:] = []
    for heading, options in headings.items():
        if heading and options:
            lines += [f".. rubric:: {heading}", ""]
        for option in options:
            lines += _option(context, option)


def _option(context: click.Context, option: click.Option) -> Iterator[str]:
    record = option.get_help_record(context)
    assert record is not None
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    names = [f"{name}{value}" for name in (*option.opts, *option.secondary_opts)]
    yield f".. option:: {', '.join(names)}"
    yield ""
    yield "    " + re.sub(r"([\\*`|_])", r"\\\1", record[1])
    yield ""


def _dash(app: Any, doctree: Any) -> None:
    """Between a parameter and what it is."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def _by_last_name(app: Any, environment: Any, node: Any, content: Any) -> Any:
    """A docstring's `RunError`, or an annotation's `runs.Run`, found under its full name."""
    if node.get("refdomain") != "py":
        return None
    node["refspecific"] = True
    name = node["reftarget"].rpartition(".")[2]
    domain = environment.get_domain("py")
    return domain.resolve_xref(environment, node["refdoc"], app.builder, node["reftype"], name, node, content)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _examples_as_code, priority=400)  # before napoleon
    app.connect("doctree-read", _dash)
    app.connect("missing-reference", _by_last_name)
    app.connect("sphinx-click-process-options", _options_as_in_help)
