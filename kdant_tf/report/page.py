"""From a Page to one HTML file."""

from pathlib import Path

import jinja2
from markupsafe import Markup

from kdant_tf.report.content import Page
from tf_records.files import write_text_atomically

_FOLDER = Path(__file__).parent


def write_page(page: Page, path: Path) -> int:
    """Writes a page, whole or not at all; returns its size in bytes."""
    text = render_page(page)
    write_text_atomically(path, text)
    return len(text.encode("utf-8"))


def render_page(page: Page) -> str:
    """HTML that fetches nothing: style, script and pictures are inside. The same page gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = (Markup((_FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(page=page, style=style, script=script)
