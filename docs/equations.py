"""A Sphinx extension that draws equations into the pages, where they need no script and no network.

Equations are LaTeX as far as matplotlib's mathtext knows it, and `\\tag`. They take the colour of the text.
"""

import functools
import html
import re
from typing import Any

import numpy as np
from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from sphinx.application import Sphinx
from sphinx.util import logging

# Of the letters; coordinates are rounded to whole numbers.
_SIZE = 200.0
_FONT = FontProperties(math_fontfamily="cm")
_COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
# Room around an equation, in the size of its letters.
_PADDING = 0.05
_logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("drawn", (_visit_inline, None), (_visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_drawing(node))
    raise nodes.SkipNode


def _visit_display(translator: Any, node: nodes.math_block) -> None:
    tag = re.search(r"\\tag\{(.*?)\}", node.astext())
    number = f'<span class="equation-number">({tag[1]})</span>' if tag else ""
    translator.body.append(f'<div class="equation"><span>{_drawing(node)}</span>{number}</div>\n')
    raise nodes.SkipNode


def _drawing(node: nodes.Element) -> str:
    latex = " ".join(re.sub(r"\\tag\{.*?\}", "", node.astext()).split())
    try:
        return draw(latex)
    except ValueError as error:
        reason = str(error).strip().splitlines()[-1]
        _logger.warning("Equation %r cannot be drawn: %s", latex, reason, location=node)
        return f"<code>{html.escape(latex)}</code>"


@functools.cache
def draw(latex: str) -> str:
    """An equation as an SVG element that stands on the baseline of the text around it.

    Raises:
        ValueError: mathtext does not know it.
    """
    path = TextPath((0, 0), f"${latex}$", size=_SIZE, prop=_FONT)
    outline = " ".join(_segment(points, code) for points, code in path.iter_segments())
    box = path.get_extents().padded(_PADDING * _SIZE)
    view = f"{box.x0:.0f} {-box.y1:.0f} {box.width:.0f} {box.height:.0f}"
    style = f"width:{box.width / _SIZE:.3f}em;vertical-align:{box.y0 / _SIZE:.3f}em"
    return (
        f'<svg class="math" role="img" aria-label="{html.escape(latex)}" viewBox="{view}" style="{style}">'
        f'<path fill="currentColor" d="{outline}"/></svg>'
    )


def _segment(points: np.ndarray, code: int) -> str:
    """A segment of a path in SVG, whose y runs downwards."""
    if code == Path.CLOSEPOLY:
        return "Z"
    return _COMMANDS[code] + " ".join(f"{value:.0f}" for value in points * np.tile((1, -1), len(points) // 2))
