"""How Sphinx builds these pages: `make docs`."""

import sys
from pathlib import Path

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
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"kdant {version}"
html_static_path = ["_static"]
html_css_files = ["kdant.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db4ee", "color-brand-content": "#7db4ee"},
}

# Markdown. Every heading has an anchor, as on code hosts; notebooks are committed with their outputs, which a
# test runs anew.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"

# Python. Names of other packages are not resolved, since building needs no network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(tf|tensorflow|keras|np|numpy|collections\.abc|pathlib|click|types)\..*"),
    ("py:.*", r"(KerasTensor|Path|Callable|Sequence|Mapping|Iterator|Iterable|Self|Any|PathLike|RecordPath)"),
    ("py:exc", r"\w+Error"),
    # Arguments and results whose classes are no public names.
    ("py:class", r"(tf_records|kdant_tf)\..*"),
    # "stem: from clips to a map" is a result's name and meaning, not its class.
    ("py:class", "stem|head"),
    # Shapes and values in Google-style docstrings: "float32 `(B, N, d)`", "None or int".
    ("py:class", r".*[^\w.].*|float32|float|optional|B|T|H|W|C|d"),
]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call Args", "params_style"), ("Output", "returns_style"), "Source"]
copybutton_prompt_text = "$ "
