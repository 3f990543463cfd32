"""README.md: what it points to is there, and its pictures are small."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)


def anchor_of(heading: str) -> str:
    """What GitHub makes of a heading: lower case, punctuation dropped, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere() -> None:
    targets = set(re.findall(r"\]\(([^)\s]+)\)", README))
    anchors = {f"#{anchor_of(heading)}" for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    local = {target for target in targets if "://" not in target}
    assert len(local) > 3
    missing = {
        target
        for target in local
        if (target not in anchors if target.startswith("#") else not (ROOT / target.split("#")[0]).exists())
    }
    assert missing == set()


def test_there_are_pictures() -> None:
    assert len(PICTURES) >= 2
    assert {path.name for path in (ROOT / "tests" / "readme").iterdir()} == {Path(p).name for p in PICTURES}


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_are_small_and_whole(picture: str) -> None:
    path = ROOT / picture
    assert path.stat().st_size < 150_000
    with Image.open(path) as image:
        image.load()
        assert image.width >= 700
