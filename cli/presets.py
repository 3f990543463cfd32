"""kdant presets"""

import click

from .command import KdantCommand
from .options import json_option


@click.command("presets", cls=KdantCommand)
@click.argument("name", required=False)
@json_option
def presets(name: str | None, as_json: bool) -> None:
    """List the presets, or show one: its commands, what to expect of them, and its settings."""
    from kdant_tf.config import preset_names, preset_text

    from .output import print_fields, print_json

    if name is not None:
        text = preset_text(name)
        if as_json:
            print_json({"name": name, "text": text})
        else:
            click.echo(text, nl=False)
        return
    about = {each: first_sentence(preset_text(each)) for each in preset_names()}
    if as_json:
        print_json({"presets": [{"name": each, "about": line} for each, line in about.items()]})
    else:
        print_fields("kdant presets NAME shows one; --preset NAME trains with it", about)


def first_sentence(text: str) -> str:
    """The comment that a preset opens with, up to the first empty line of it, on one line."""
    lines = text.split("\n#\n", 1)[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)
