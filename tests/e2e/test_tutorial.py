"""The commands of docs/tutorials/your-videos.md, typed in order, on fewer clips and by a smaller network."""

import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from kdant_cli.main import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "your-videos.md"
NETWORK = """
import keras
from keras import layers


def build(num_classes, input_shape):
    clip = layers.Input(input_shape)
    maps = layers.Conv3D(6, (2, 7, 7), (2, 4, 4), activation="relu")(clip)
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(maps))
    return keras.Model(clip, {"logits": logits, "maps": maps})
"""


@pytest.fixture
def folder(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with `clips`, of which there are some already."""
    (tmp_path / "clips").symlink_to(videos, target_is_directory=True)
    (tmp_path / "network_for_tutorial.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smaller(command: str) -> str:
    for at_length, in_brief in (
        ("demo-small", "demo-tiny"),
        ("--short-side 128 --workers 2", "--short-side 32"),
        ("train-teacher ", "train-teacher --model network_for_tutorial:build "),
        ("clips/00241.mp4", "clips/00001.mp4"),
    ):
        command = command.replace(at_length, in_brief)
    return command


def rows_of(text: str) -> set[str]:
    """The first cells of the rows of tables in a terminal's output."""
    return set(re.findall(r"^│ ([^│]*\w) *│", text, re.MULTILINE))


def test_the_commands_lead_to_a_drawn_prediction(folder):
    page = PAGE.read_text("utf-8")
    commands = re.findall(r"^\$ kdant (.+)$", page, re.MULTILINE)
    assert len(commands) == 9
    printed = ""
    for command in commands:
        result = CliRunner().invoke(main, shlex.split(smaller(command)))
        assert result.exit_code == 0, (command, result.stderr, result.exception)
        printed += result.stdout
    for heading in ("Trained teacher", "Trained student", "teacher on the future segments of records (test)"):
        assert heading in printed
    assert len(rows_of(page)) > 20
    assert rows_of(page) == rows_of(printed)
    assert "clips/00001.mp4: last frame seen → when what is expected begins" in printed
    assert {"sheet.png", "records", "teacher", "student", "predicted.mp4"} <= set(os.listdir(folder))
    assert "unused" not in os.listdir(folder)
