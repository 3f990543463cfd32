"""The scripts in examples/ do what they say, at a size that takes seconds."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from model_server import RestServer, ServedModel

import kdant_tf as kdant

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
# A network of one convolution, for --preset to name.
NETWORK = """
import keras
from keras import layers


def build(num_classes, input_shape):
    clip = layers.Input(input_shape)
    maps = layers.Conv3D(6, (2, 7, 7), (2, 4, 4), activation="relu")(clip)
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(maps))
    return keras.Model(clip, {"logits": logits, "maps": maps})
"""


def load(name: str) -> Callable[[list[str]], None]:
    """The `main` of a script, as of one that is run."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short_and_says_how_it_is_called(script):
    lines = script.read_text("utf-8").splitlines()
    assert len(lines) < 60
    assert any(line.startswith(f"    python examples/{script.name}") for line in lines)


def test_there_are_three():
    assert [script.stem for script in SCRIPTS] == ["client", "feature_loss_in_keras", "train_on_your_csv"]


def test_train_on_your_csv(videos, tmp_path, monkeypatch, capsys):
    (tmp_path / "network_for_examples.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    video, out = min(videos.glob("*.mp4")), tmp_path / "work"
    small = ("--model", "network_for_examples:build", "--preset", "demo-tiny", "--short-side", "32")
    load("train_on_your_csv")([str(videos / "annotations.csv"), str(video), "--out", str(out), *small])
    teacher, student, *answers = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"teacher, future clips: top-1 \d+\.\d%, 95 % interval \S+ to \S+%", teacher)
    assert student.startswith("student, observed clips: top-1 ")
    assert len(answers) > 3
    classes = "fall|grow|rise|shrink"
    assert all(re.fullmatch(rf"\d\.\d\d s: at \d\.\d\d s probably ({classes})", each) for each in answers)
    assert kdant.load_run(out / "student").config.feature_loss == "bidirectional"


def test_feature_loss_in_keras(capsys):
    load("feature_loss_in_keras")(["--samples", "64", "--epochs", "2", "--loss", "bidirectional"])
    pattern = r"feature loss (\S+) → (\S+); \d+\.\d% of 256 new clips right, chance 25 %\n"
    first, last = map(float, re.fullmatch(pattern, capsys.readouterr().out).groups())
    assert first > 0
    assert last > 0
    assert first != last


def test_client(served: ServedModel, exported, videos, capsys):
    server = RestServer(served)
    server.start()
    main, video = load("client"), str(min(videos.glob("*.mp4")))
    options = [video, str(exported.parent), "--server", f"localhost:{server.port}"]
    try:
        main([*options, "--warn-of", "rise", "--above", "0"])
        answers = capsys.readouterr().out.splitlines()
        assert len(answers) > 3
        pattern = r" +\d\.\d\d s  at +\d\.\d\d s: (fall|grow|rise|shrink) \d+%  ← rise, \d+%"
        assert all(re.fullmatch(pattern, answer) for answer in answers)
        main([*options, "--warn-of", "rise", "--above", "1.01"])
        assert "←" not in capsys.readouterr().out
        with pytest.raises(kdant.KdantError, match="'jump' is none of the classes: fall, grow, rise, shrink"):
            main([*options, "--warn-of", "jump"])
    finally:
        server.stop()
