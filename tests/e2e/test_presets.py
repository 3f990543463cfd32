"""`kdant presets`, and that what the presets say can be typed."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from kdant_cli.main import main

from kdant_tf.config import STUDENT, TEACHER, preset_names, preset_text, resolve_config

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAPERS = ("jhmdb-rgb", "jhmdb-flow", "epic55", "thumos14-i3d", "thumos14-frames")


def commands_of(preset: str) -> list[list[str]]:
    lines = preset_text(preset).splitlines()
    return [shlex.split(line[1:]) for line in lines if line.startswith("#   kdant ")]


@pytest.mark.parametrize("preset", preset_names())
def test_every_command_in_a_preset_can_be_typed(preset):
    commands = commands_of(preset)
    assert commands
    for _, verb, *arguments in commands:
        context = main.commands[verb].make_context(verb, arguments)
        assert context.params.get("preset") in (None, preset)
        if verb in ("train-teacher", "distill"):
            assert context.params["preset"] == preset
            resolve_config(TEACHER if verb == "train-teacher" else STUDENT, preset=preset)


@pytest.mark.parametrize("preset", PAPERS)
def test_a_preset_of_the_paper_says_where_from_how_and_what_to_expect(preset):
    text = preset_text(preset)
    assert "Back to the Future" in text.split("\n#\n")[0]
    assert "§4." in text.split("\n#\n")[0]
    assert {verb for _, verb, *_ in commands_of(preset)} == {
        *("build-records", "train-teacher", "distill", "evaluate")
    }
    assert "Published" in text
    assert "Not in the paper" in text
    assert "kdant has not run it" in text


def test_the_documentation_names_every_preset():
    pages = [*(DOCS / "guides").glob("*.md"), *(DOCS / "results").glob("*.md"), DOCS / "reference" / "cli.md"]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    for preset in preset_names():
        assert preset in text or preset.startswith("demo-"), preset


def test_presets_are_listed_and_shown():
    listed = CliRunner().invoke(main, ["presets"])
    assert listed.exit_code == 0
    for preset in preset_names():
        assert preset in listed.stdout
    as_json = json.loads(CliRunner().invoke(main, ["presets", "--json"]).stdout)
    assert [each["name"] for each in as_json["presets"]] == list(preset_names())
    assert all(each["about"] for each in as_json["presets"])
    assert CliRunner().invoke(main, ["presets", "epic55"]).stdout == preset_text("epic55")
    shown = json.loads(CliRunner().invoke(main, ["presets", "epic55", "--json"]).stdout)
    assert shown == {"name": "epic55", "text": preset_text("epic55")}


def test_an_unknown_preset_is_one_sentence_with_the_closest_name():
    result = CliRunner().invoke(main, ["presets", "jhmbd-rgb"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no preset 'jhmbd-rgb'. Did you mean `jhmdb-rgb`?" in result.stderr
