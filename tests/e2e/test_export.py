"""Exports as a user makes them, and what they answer where only TensorFlow is installed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main
from test_bad_input import refuse

from kdant_tf.models.networks import load_network
from kdant_tf.runs import load_run
from tf_records.augment import crop_centrally

FRAMES = 8
CLASSES = ["fall", "grow", "rise", "shrink"]


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def export(run: Path, out: Path, *args: object) -> dict:
    result = kdant("export", run, "--out", out, *args, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def random_clips(count: int, height: int = 48, width: int = 72, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, FRAMES, height, width, channels), dtype=np.uint8)


def encode(clips: np.ndarray, encoder: Callable = tf.io.encode_png) -> np.ndarray:
    """Strings of frames, `(B, T)`."""
    return np.array([[encoder(frame).numpy() for frame in clip] for clip in clips], dtype=object)


@pytest.fixture(scope="module")
def served(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder of the untrained teacher."""
    out = tmp_path_factory.mktemp("export") / "served"
    return Path(export(finished_run, out)["folder"])


@pytest.fixture(scope="module")
def ask(served: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Calls a signature of the loaded model."""
    loaded = tf.saved_model.load(str(served))

    def call(signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in loaded.signatures[signature](**tensors).items()}

    return call


def test_every_signature_says_what_the_run_says(finished_run: Path, ask: Callable) -> None:
    clips = random_clips(2)
    inputs = tf.reshape(crop_centrally(clips.reshape(-1, 48, 72, 3), 32), (2, FRAMES, 32, 32, 3))
    outputs = load_network(load_run(finished_run))(inputs, training=False)
    expected = tf.nn.softmax(outputs["logits"]).numpy()
    named = [ask("serving_default", clips=clips), ask("encoded", frames=encode(clips))]
    for answer in named:
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        order = np.argsort(-answer["probabilities"], axis=1)
        texts = [[text.decode() for text in row] for row in answer["top_k_classes"]]
        assert texts == [[CLASSES[index] for index in row] for row in order]
        np.testing.assert_array_equal(
            answer["top_k_probabilities"], np.take_along_axis(answer["probabilities"], order, axis=1)
        )
    answer = ask("features", clips=clips)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    pooled = tf.reduce_mean(outputs["Mixed_4f"], axis=(1, 2, 3))
    np.testing.assert_allclose(answer["features"], pooled, rtol=1e-4, atol=1e-6)


def test_frames_of_one_clip_may_have_any_sizes_and_kinds(ask: Callable) -> None:
    frames = encode(random_clips(1))
    frames[0, 2] = tf.io.encode_jpeg(random_clips(1, 90, 50)[0, 0]).numpy()
    frames[0, 5] = tf.io.encode_png(random_clips(1, 1, 1, 1)[0, 0]).numpy()
    np.testing.assert_allclose(ask("encoded", frames=frames)["probabilities"].sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"BM", None])
def test_a_damaged_frame_is_named_and_the_model_lives(ask: Callable, damage: bytes | None) -> None:
    good = encode(random_clips(3), tf.io.encode_jpeg)
    bad = good.copy()
    bad[1, 6] = bad[1, 6][:300] if damage is None else damage
    with pytest.raises(tf.errors.InvalidArgumentError, match="Frame 6 of clip 1 should be a JPEG or PNG"):
        ask("encoded", frames=bad)
    bad[:] = bad[1, 6]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Frame 0 of clip 0 should be"):
        ask("encoded", frames=bad)
    assert ask("encoded", frames=good)["probabilities"].shape == (3, len(CLASSES))


@pytest.mark.parametrize(
    "shape", [(1, 7, 9, 9, 3), (8, 9, 9, 3), (0, 8, 9, 9, 3), (1, 8, 0, 9, 3), (1, 8, 9, 9, 2), (1,) * 6]
)
def test_clips_of_another_shape(ask: Callable, shape: tuple[int, ...]) -> None:
    for signature in ("serving_default", "features"):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            ask(signature, clips=np.zeros(shape, np.uint8))
        assert "`clips` should be uint8 of shape (B, 8, H, W, 3)" in str(error.value)
        assert f"Received shape: [{' '.join(map(str, shape))}]" in str(error.value)


@pytest.mark.parametrize("shape", [(1, 7), (8,), (0, 8), (1, 8, 2)])
def test_frames_of_another_shape(ask: Callable, shape: tuple[int, ...]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"`frames` should be strings.* shape \(B, 8\)"):
        ask("encoded", frames=np.full(shape, b"", dtype=object))


def test_it_runs_where_neither_kdant_nor_keras_is_installed(served: Path, ask: Callable) -> None:
    clips = random_clips(1)
    np.save(served.parent / "clips.npy", clips)
    script = f"""
import sys

# As if they were not installed.
sys.modules |= dict.fromkeys(("kdant_tf", "tf_records", "kdant_cli", "keras", "tf_keras"))
import json
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load({str(served)!r})
clips = np.load({str(served.parent / "clips.npy")!r})
frames = [[tf.io.encode_png(frame).numpy() for frame in clip] for clip in clips]
answers = [
    loaded.signatures["serving_default"](clips=tf.constant(clips)),
    loaded.signatures["features"](clips=tf.constant(clips)),
    loaded.signatures["encoded"](frames=tf.constant(frames)),
]
print(json.dumps([answer["probabilities"].numpy().tolist() for answer in answers]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = ask("serving_default", clips=clips)["probabilities"]
    for probabilities in json.loads(done.stdout):
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_config_json_and_labels_say_what_a_client_needs(served: Path, finished_run: Path) -> None:
    config = json.loads((served / "config.json").read_text())
    assert (served / "labels.txt").read_text().splitlines() == config["classes"] == CLASSES
    clip = {"clip_frames": 8, "offset_frames": 16, "anticipation_s": None, "fps": 20.0}
    assert config["clip"] == clip
    # A teacher names what it sees.
    assert (config["role"], config["offset_s"], config["modality"], config["crop"]) == (
        "teacher",
        0,
        "rgb",
        32,
    )
    inputs = {name: signature["inputs"] for name, signature in config["signatures"].items()}
    uint8 = {"clips": {"dtype": "uint8", "shape": [None, 8, None, None, 3]}}
    frames = {"frames": {"dtype": "string", "shape": [None, 8]}}
    assert inputs == {"serving_default": uint8, "encoded": frames, "features": uint8}
    assert config["run"]["records_sha256"] == load_run(finished_run).records_sha256
    assert config["run"]["versions"]["keras"]


def test_versions_count_up_and_are_never_replaced(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "served"
    assert export(finished_run, out, "--version", 7)["folder"] == str(out / "7")
    before = (out / "7" / "saved_model.pb").stat().st_mtime_ns
    assert "7 exists" in refuse("export", finished_run, "--out", out, "--version", 7)
    assert (out / "7" / "saved_model.pb").stat().st_mtime_ns == before
    (out / ".tmp-version").mkdir()  # of an export that was killed
    assert export(finished_run, out)["folder"] == str(out / "8")
    assert sorted(path.name for path in out.iterdir()) == ["7", "8"]


def test_a_run_of_before_frame_rates_were_noted(finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    for name in ("fps", "dataset"):
        del config[name]
    (run / "config.json").write_text(json.dumps({**config, "role": "student"}))
    loaded = load_run(run)
    assert (loaded.fps, loaded.dataset, loaded.offset_s) == (None, None, None)


def test_what_cannot_be_exported(finished_run: Path, tmp_path: Path) -> None:
    assert "is a run folder" in refuse("export", finished_run, "--out", finished_run)
    pair = ("--with", finished_run, "--out", tmp_path / "served")
    assert "one of RGB and one of flow" in refuse("export", finished_run, *pair)
    assert not (tmp_path / "served").exists()
    for wrong in (("--fusion-weights", "1,1"), ("--with", finished_run, "--fusion-weights", "1")):
        assert kdant("export", finished_run, "--out", tmp_path / "served", *wrong).exit_code == 2
