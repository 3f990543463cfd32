"""Exports as a user makes them, and what they answer where only TensorFlow is installed."""

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main
from test_bad_input import refuse

from kdant_tf.runs import load_run

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
def served(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder of the untrained teacher."""
    out = tmp_path_factory.mktemp("export") / "served"
    return Path(export(tiny_run, out)["folder"])


@pytest.fixture(scope="module")
def ask(served: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Calls a signature of the loaded model."""
    loaded = tf.saved_model.load(str(served))

    def call(signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in loaded.signatures[signature](**tensors).items()}

    return call


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


def test_config_json_and_labels_say_what_a_client_needs(served: Path, tiny_run: Path) -> None:
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
    assert config["run"]["records_sha256"] == load_run(tiny_run).records_sha256
    assert config["run"]["versions"]["keras"]


def test_versions_count_up_and_are_never_replaced(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "served"
    assert export(tiny_run, out, "--version", 7)["folder"] == str(out / "7")
    before = (out / "7" / "saved_model.pb").stat().st_mtime_ns
    assert "7 exists" in refuse("export", tiny_run, "--out", out, "--version", 7)
    assert (out / "7" / "saved_model.pb").stat().st_mtime_ns == before
    (out / ".tmp-version").mkdir()  # of an export that was killed
    assert export(tiny_run, out)["folder"] == str(out / "8")
    assert sorted(path.name for path in out.iterdir()) == ["7", "8"]


def test_a_run_of_before_frame_rates_were_noted(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    for name in ("fps", "dataset"):
        del config[name]
    (run / "config.json").write_text(json.dumps({**config, "role": "student"}))
    loaded = load_run(run)
    assert (loaded.fps, loaded.dataset, loaded.offset_s) == (None, None, None)


def test_what_is_printed_is_what_was_found(tiny_run: Path, record_folder: Path, tmp_path: Path) -> None:
    result = kdant("export", tiny_run, "--out", tmp_path, "--records", record_folder)
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.replace("│", " ").split())
    assert "in a probability; tried: 4 clips of" in text
    assert " MB " in text
    assert text.count("ms a clip") == 3
    assert "a request of each signature" in text


def test_folded_batch_norm_and_batching(
    tiny_run: Path, record_folder: Path, tmp_path: Path, ask: Callable
) -> None:
    options = ("--fold-batch-norm", "--batching", "--records", record_folder)
    printed = export(tiny_run, tmp_path / "served", *options)
    assert printed["folded_batch_norm"] is True
    assert printed["bytes"] > 10_000
    assert set(printed["parity"]["latency_ms"]) == {"serving_default", "encoded", "features"}
    assert 0 <= printed["parity"]["difference"] <= 1e-5
    folder = Path(printed["folder"])
    loaded = tf.saved_model.load(str(folder))
    clips = random_clips(2)
    answer = loaded.signatures["features"](clips=tf.constant(clips))
    np.testing.assert_allclose(
        answer["probabilities"], ask("features", clips=clips)["probabilities"], atol=1e-5
    )
    functions = loaded.signatures["features"].graph.as_graph_def().library.function
    assert "Rsqrt" not in {node.op for function in functions for node in function.node_def}
    batching = (folder / "batching_params.pbtxt").read_text()
    sizes = [int(size) for size in re.findall(r"^allowed_batch_sizes: (\d+)$", batching, re.MULTILINE)]
    # A server refuses others.
    assert sizes == sorted(set(sizes))
    assert f"max_batch_size {{ value: {sizes[-1]} }}" in batching


def test_each_signature_is_warmed_up(served: Path, ask: Callable) -> None:
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    path = served / "assets.extra" / "tf_serving_warmup_requests"
    logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    answered = []
    for log in logs:
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        answer = ask(request.model_spec.signature_name, **inputs)
        assert answer["probabilities"].shape == (1, len(CLASSES))
        answered.append(request.model_spec.signature_name)
    assert sorted(answered) == ["encoded", "features", "serving_default"]


def test_without_the_extra_no_warm_up_is_written(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    for name in [name for name in sys.modules if name.startswith("tensorflow_serving.")]:
        monkeypatch.delitem(sys.modules, name)
    printed = export(tiny_run, tmp_path / "served")
    assert "pip install 'kdant-tf[serving]'" in printed["no_warm_up"]
    assert not (Path(printed["folder"]) / "assets.extra").exists()


def test_a_model_that_says_something_else_than_its_run_is_not_kept(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(network: keras.Model) -> keras.Model:
        spoiled = keras.models.clone_model(network)
        spoiled.set_weights([weights + 0.1 for weights in network.get_weights()])
        return spoiled

    monkeypatch.setattr("kdant_tf.serving.signatures.fold_batch_norm", spoil)
    message = refuse("export", tiny_run, "--out", tmp_path / "served", "--fold-batch-norm")
    assert re.search(r"differs from run .* by \S+ in a probability, more than 1e-05", message)
    assert list((tmp_path / "served").iterdir()) == []


def test_a_full_disk(tiny_run: Path, tmp_path: Path) -> None:
    """No file may pass 4 kB, as on a disk with no more room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        message = refuse("export", tiny_run, "--out", tmp_path / "served")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    place = f"The export cannot be written to {tmp_path / 'served'}"
    assert message == f"Error: {place}: File too large. Make room there, or give another --out."
    assert list((tmp_path / "served").iterdir()) == []


def test_a_network_that_answers_no_numbers_is_not_exported(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    network = keras.models.load_model(run / "model.keras")
    network.layers[-1].bias.assign([0, float("nan"), 0, 0])
    network.save(run / "model.keras")
    message = refuse("export", run, "--out", tmp_path / "served")
    assert f"The network of run {run} gives outputs that are not finite for 2 of 2 clips: 0, 1." in message
    assert list((tmp_path / "served").iterdir()) == []


def test_versions_do_not_go_where_the_run_or_its_records_are(
    tiny_run: Path, record_folder: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    for out in (tmp_path, record_folder / "served"):
        message = refuse("export", run, "--out", out, "--records", record_folder)
        assert "should lie apart" in message
        assert not (out / "1").exists()


def test_the_model_card_tells_a_stranger_what_it_is(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "role": "student"}))
    interval = {"top1": 0.625, "top1_interval": [0.5, 0.75], "top5": 1.0, "mean_class_accuracy": 0.5}
    (run / "evaluation.json").write_text(
        json.dumps({"observed": {**interval, "samples": 8, "split": "test", "windows": 5}})
    )
    printed = export(run, tmp_path / "served")
    assert printed["offset_s"] == 0.8
    card = (Path(printed["folder"]) / "model_card.md").read_text()
    for text in (
        "# Anticipates 4 actions in video",
        "clips of 8 frames at 20 frames per second",
        "expected 0.8 s after the clip's first frame",
        "fall, grow, rise, shrink",
        "| run | observed | test | 8 | 5 | 62.5 % (50.0 to 75.0) | 100.0 % | 50.0 % |",
        "## Intended use",
        "## Limits",
        "| width | 0.0625 |",
    ):
        assert text in card
    assert f"`kdant evaluate {tiny_run.name} " in export_card(tiny_run, tmp_path / "other")


def export_card(run: Path, out: Path) -> str:
    return (Path(export(run, out)["folder"]) / "model_card.md").read_text()


def test_what_cannot_be_exported(tiny_run: Path, served: Path, tmp_path: Path) -> None:
    assert "is a run folder" in refuse("export", tiny_run, "--out", tiny_run)
    assert "is a version of an export" in refuse("export", tiny_run, "--out", served)
    stem = ("--stem", "kinetics", "--out", tmp_path / "served")
    assert "--stem is for runs trained on features" in refuse("export", tiny_run, *stem)
    pair = ("--with", tiny_run, "--out", tmp_path / "served")
    assert "one of RGB and one of flow" in refuse("export", tiny_run, *pair)
    assert not (tmp_path / "served").exists()
    for wrong in (
        ("--fusion-weights", "1,1"),
        ("--with", tiny_run, "--fusion-weights", "1"),
        ("--version", "0"),
    ):
        assert kdant("export", tiny_run, "--out", tmp_path / "served", *wrong).exit_code == 2
