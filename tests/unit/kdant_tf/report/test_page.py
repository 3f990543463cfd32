"""The HTML of a page: structure, escaping, nothing from outside, the same bytes each time."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kdant_tf.report.page import (
    Clip,
    Gallery,
    Guess,
    Page,
    Picture,
    Section,
    Table,
    TableCell,
    render_page,
    write_page,
)

NASTY = """<b>&"'</b><script>alert(1)</script> javascript:x"""
PIXEL = "data:image/webp;base64,UklGRg=="
VOID = {"meta", "img", "source", "br", "link", "input"}


class Outline(HTMLParser):
    """What a page consists of: its elements in order, and those that were closed wrongly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def make_page(name: str = NASTY) -> Page:
    table = Table(
        caption=name,
        columns=("network", name, "top-1"),
        rows=[
            [TableCell(text=name), TableCell(text="x"), TableCell(text="50 %", key=0.5)],
            [TableCell(text="b"), TableCell(text=name), TableCell(text="")],
        ],
        note=name,
    )
    picture = Picture(source=PIXEL, width=10, height=5, alt=name, caption=name)
    clip = Clip(
        label=name,
        id=name,
        still=PIXEL,
        moving=PIXEL,
        width=230,
        height=112,
        frames=8,
        times="0 to 1 s",
        guesses={name: (Guess(name=name, probability=0.75, correct=True),)},
    )
    gallery = Gallery(title=name, text=name, clips=[clip])
    sections = [
        Section(id="results", title="Results", blocks=[table, picture]),
        Section(id="samples", title=name, blocks=[gallery], text=(name,)),
    ]
    return Page(title=name, lead=name, sections=sections, version="0")


def test_text_from_data_is_shown_and_never_markup():
    outline = Outline(render_page(make_page()))
    plain = Outline(render_page(make_page("plain")))
    assert [tag for tag, _ in outline.elements] == [tag for tag, _ in plain.elements]
    assert "b" not in {tag for tag, _ in outline.elements}
    shown = [text.strip() for text in outline.texts if NASTY in text]
    # Title, h1, lead, navigation, caption, columns, cells, notes, captions, guesses …
    assert len(shown) >= 15
    assert set(shown) <= {NASTY, f"{NASTY} 0.75", f"What the networks said of {NASTY}"}
    assert NASTY in outline.all("img")[0]["alt"]


def test_elements_are_closed_and_headings_descend_one_at_a_time():
    outline = Outline(render_page(make_page()))
    assert outline.open == []
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels == [1, 2, 2, 3]


def test_pictures_have_texts_and_sizes_and_tables_have_captions_and_scopes():
    outline = Outline(render_page(make_page()))
    for image in outline.all("img"):
        assert image["alt"]
        assert image["width"]
        assert image["height"]
    assert len(outline.all("table")) == len(outline.all("caption")) == 2
    assert len(outline.all("figure")) == len(outline.all("figcaption")) == 2
    assert {head["scope"] for head in outline.all("th")} == {"row", "col"}
    # What scrolls can be reached by keyboard, and has a name.
    for region in outline.all("div"):
        if region.get("role") == "region":
            assert region["tabindex"] == "0"
            assert region["aria-label"]


def test_anchors_lead_somewhere_and_ids_are_unique():
    outline = Outline(render_page(make_page()))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = [link["href"] for link in outline.all("a")]
    assert targets[0] == "#main"
    assert {target[1:] for target in targets} <= set(ids)


def test_nothing_comes_from_outside():
    text = render_page(make_page("plain"))
    assert "://" not in text
    outline = Outline(text)
    assert not outline.all("link", "iframe", "object", "embed", "base", "form")
    for attributes in outline.all("img", "source", "script"):
        for name in ("src", "srcset"):
            assert attributes.get(name, "data:").startswith("data:")
    policy = outline.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_numbers_carry_what_they_are_sorted_by():
    cells = Outline(render_page(make_page("plain"))).all("td")
    assert [cell.get("data-key") for cell in cells[:4]] == [None, "0.5", None, None]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str):
    """WCAG's contrast of at least 4.5 to 1, in both schemes."""
    style = re.search(r"<style>(.*?)</style>", render_page(make_page("plain")), re.DOTALL)[1]
    roots = re.findall(r":root \{([^}]*)\}", style)
    colours = dict(re.findall(r"--(\w+): (#\w{6});", roots[0] if scheme == "light" else roots[1]))
    for ink in ("ink", "faint", "link", "right"):
        for ground in ("ground", "raised"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(one: str, other: str) -> float:
    """Source: WCAG 2.2, relative luminance and contrast ratio."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_same_page_is_the_same_bytes(tmp_path: Path):
    sizes = [write_page(make_page(), tmp_path / name) for name in ("a.html", "b.html")]
    first, second = ((tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert sizes == [len(first)] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]
