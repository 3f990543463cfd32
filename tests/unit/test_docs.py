"""The documentation: what is public stands in it, its pictures are small and whole.

`make docs` finds broken links; here is what it cannot see.
"""

import dataclasses
import re
from pathlib import Path

import click
import pytest
from kdant_cli.main import main
from PIL import Image

import kdant_tf
from kdant_tf import runs
from tf_records import schema
from tf_records.manifest import Manifest, ShardInfo, Skipped, SplitInfo

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "decisions"} & set(path.parts)
)
README = ROOT / "README.md"
PICTURES = sorted((ROOT / "docs" / "pictures").iterdir())
ALL_TEXT = "\n".join(path.read_text(encoding="utf-8") for path in (README, *PAGES))


def anchor_of(heading: str) -> str:
    """What code hosts make of a heading: lower case, punctuation dropped, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_links_of_the_readme_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    anchors = {f"#{anchor_of(heading)}" for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    targets = {target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}
    assert len(targets) > 3
    missing = {
        target
        for target in targets
        if (target not in anchors if target.startswith("#") else not (ROOT / target.split("#")[0]).exists())
    }
    assert missing == set()


@pytest.mark.parametrize("picture", [pytest.param(path, id=path.name) for path in PICTURES])
def test_pictures_are_small_and_used(picture: Path) -> None:
    assert re.search(rf"!\[[^]]{{20,}}\]\(\S*{re.escape(picture.name)}\)", ALL_TEXT), (
        "used, with a text in its place"
    )
    assert picture.stat().st_size < 1_500_000
    if picture.suffix != ".svg":
        with Image.open(picture) as image:
            image.load()
            assert image.width >= 400


def test_pictures_are_small_together() -> None:
    assert sum(path.stat().st_size for path in PICTURES) < 5_000_000


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. auto\w+:: ([\w.]+)$", page, re.MULTILINE)
    assert {name for name in documented if name.count(".") == 1} == {
        f"kdant_tf.{name}" for name in kdant_tf._DEFINED
    }
    assert len(documented) == len(set(documented))


def test_every_command_is_in_the_reference() -> None:
    """Each with all its options, which Sphinx takes from the command itself."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    documented = {
        f"kdant {name}": f"{command.callback.__module__}:{command.callback.__name__}"
        for name, command in main.commands.items()
        if command.callback is not None
    }
    directive = r"^\.\. click:: (\S+)\n +:prog: (.+)\n +:nested: (\w+)$"
    found = re.findall(directive, page, re.MULTILINE)
    assert {prog: path for path, prog, _ in found} == {"kdant": "kdant_cli.main:main", **documented}
    groups = {f"kdant {name}" for name, each in main.commands.items() if isinstance(each, click.Group)}
    assert {prog for _, prog, nested in found if nested == "full"} == groups
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert set(main.headings) <= set(headings)


def test_every_preset_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "presets.md").read_text(encoding="utf-8")
    included = re.findall(r"\{literalinclude\} (\S+)$", page, re.MULTILINE)
    presets = (ROOT / "kdant_tf" / "presets").glob("*.toml")
    assert sorted(included) == sorted(f"../../kdant_tf/presets/{path.name}" for path in presets)


def test_every_key_and_field_of_records_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "record-format.md").read_text(encoding="utf-8")
    keys = {
        value
        for value in vars(schema).values()
        if isinstance(value, str) and re.fullmatch(r"[a-z_/]+/[a-z_/]+", value)
    }
    assert "clip/label/index" in keys
    classes = (Manifest, SplitInfo, ShardInfo, Skipped, schema.ClipSpec, schema.FlowInfo, schema.FeatureInfo)
    fields = {field.name for each in classes for field in dataclasses.fields(each)}
    assert {name for name in keys | fields if f"`{name}`" not in page} == set()


def test_every_file_and_field_of_a_run_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "run-folder.md").read_text(encoding="utf-8")
    files = {value for name, value in vars(runs).items() if name.endswith("_NAME") and name != "EXPORT_NAME"}
    assert {"model.keras", "metrics.csv"} <= files
    fields = {field.name for field in dataclasses.fields(runs.Run)} - {"folder", "stem"}  # not written
    names = {*fields, *runs.describe_provenance(), *runs.METRICS, *runs.HEALTH_METRICS}
    names |= set(runs.VALIDATION_METRICS)
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert {name for name in files - {"manifest.json"} if f"`{name}" not in page} == set()


def test_every_page_is_in_a_table_of_contents() -> None:
    named = set(re.findall(r"^[\w/-]+$", (ROOT / "docs" / "index.md").read_text("utf-8"), re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in PAGES} - {"index"}
    assert pages <= named


def test_twelve_questions_are_answered_two_clicks_from_the_readme() -> None:
    assert "](docs/index.md)" in README.read_text(encoding="utf-8")
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    section = index.partition("\n## How do I …\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+\?) \| [^|]+ \| (.*\]\(.+\)) \|$", section, re.MULTILINE)
    assert len(rows) == 12
    linked = {link for _, answer in rows for link in re.findall(r"\]\(([^)#]+)", answer)}
    assert {link for link in linked if not (ROOT / "docs" / link).is_file()} == set()
