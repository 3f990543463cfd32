"""A run exported in each format says what the run says; what cannot be exported or read is refused."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdant_tf.anticipation.anticipate import predict
from kdant_tf.runs import load_run
from kdant_tf.serving import formats
from kdant_tf.serving.conversion import prepare
from kdant_tf.serving.export import _compare, export_run
from kdant_tf.serving.formats import FORMATS, SAVED_MODEL
from kdant_tf.serving.model import load_model, needs_tensorflow
from kdant_tf.serving.signatures import open_streams, prepare_clips
from kdant_tf.serving.trial_clips import TrialRecords
from tf_records.errors import KdantError, RunError

pytestmark = pytest.mark.slow  # converters take seconds

OTHERS = [name for name in FORMATS if name != SAVED_MODEL]


def skip_without(name: str) -> None:
    for package in (*FORMATS[name].writes, *FORMATS[name].runs):
        pytest.importorskip(package)


def draw_clips(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=OTHERS)
def version(request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of the tiny run in a format."""
    skip_without(request.param)
    out = tmp_path_factory.mktemp(request.param) / "served"
    return export_run(tiny_run, out, format=request.param).folder


@pytest.mark.parametrize("size", [(64, 85), (1, 1), (33, 32), (36, 37), (90, 40)], ids=str)
def test_it_answers_as_the_run_does(version: Path, tiny_run: Path, size: tuple[int, int]) -> None:
    clips = draw_clips(3, *size)
    expected = load_model(tiny_run).probabilities(clips)
    model = load_model(version.parent)
    np.testing.assert_allclose(model.probabilities(clips), expected, atol=2e-6)
    np.testing.assert_allclose(model.probabilities(clips[:1]), expected[:1], atol=2e-6)
    assert not needs_tensorflow(version.parent)


def test_what_lies_beside_it(version: Path) -> None:
    config = json.loads((version / "config.json").read_text())
    assert (version / FORMATS[config["format"]].file).is_file()
    assert config["precision"] == "float32"
    (signature,) = config["signatures"].values()
    batch = 1 if config["format"] == "litert" else None
    assert signature["inputs"] == {"clips": {"dtype": "uint8", "shape": [batch, 8, None, None, 3]}}
    assert sorted(signature["outputs"]) == ["logits", "probabilities"]
    assert (version / "labels.txt").read_text().splitlines() == config["classes"]
    card = (version / "model_card.md").read_text()
    assert f"`clips` uint8 ({'?' if batch is None else batch}, 8, ?, ?, 3)" in card
    assert not (version / "assets.extra").exists()


def test_threads_may_share_it(version: Path) -> None:
    model, clips = load_model(version), draw_clips(8, 40, 40)
    ready = threading.Barrier(4)

    def answer(number: int) -> np.ndarray:
        if number < 4:
            ready.wait(30)
        return model.probabilities(clips[number][None])

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(answer, range(8)))
    np.testing.assert_allclose(np.concatenate(together), model.probabilities(clips), atol=1e-6)


def test_versions_of_one_folder_have_one_format(version: Path, tiny_run: Path) -> None:
    before = sorted(version.parent.iterdir())
    with pytest.raises(KdantError, match=r"holds versions of the format .* a folder of their own as --out"):
        export_run(tiny_run, version.parent)
    with pytest.raises(KdantError, match="is a version of an export"):
        export_run(tiny_run, version)
    assert sorted(version.parent.iterdir()) == before


def test_a_damaged_file_is_refused(version: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(version, tmp_path / "1"))
    (file,) = (folder / each.file for each in FORMATS.values() if (folder / each.file).exists())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(
        RunError, match=rf"{file.name} cannot be loaded by \w+: [^\n]*Export the run again\.$"
    ):
        load_model(tmp_path)


def test_an_export_that_says_something_else_is_not_kept(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without("openvino")
    monkeypatch.setattr("kdant_tf.serving.conversion.prepare", lambda *arguments: 1.1 * prepare(*arguments))
    with pytest.raises(
        RunError, match=r"differs from run .* by .*, more than 0\.0001, .* --format savedmodel"
    ):
        export_run(tiny_run, tmp_path / "served", format="openvino")
    assert list((tmp_path / "served").iterdir()) == []


@pytest.mark.parametrize("name", OTHERS)
def test_a_missing_extra_is_named_before_anything_is_written(
    name: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, runtime = importlib.util.find_spec, FORMATS[name].runs[0]
    monkeypatch.setattr(
        formats.importlib.util, "find_spec", lambda each: None if each == runtime else found(each)
    )
    advice = rf'{runtime}.* not installed here\. .*: pip install "kdant-tf\[{FORMATS[name].extra}\]"\.$'
    with pytest.raises(KdantError, match=advice):
        export_run(tiny_run, tmp_path / "served", format=name)
    assert not (tmp_path / "served").exists()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / FORMATS[name].file).write_bytes(b"")
    with pytest.raises(KdantError, match=advice):
        formats.open_network(tmp_path / "1", name)


@pytest.mark.parametrize("size", [(112, 128), (128, 171), (33, 47), (480, 640), (97, 1)], ids=str)
def test_frames_are_prepared_by_products_as_by_tensorflow(tiny_run: Path, size: tuple[int, int]) -> None:
    """TensorFlow's own resizing is what evaluation does."""
    (stream,) = open_streams([load_run(tiny_run)])
    clips = tf.constant(draw_clips(1, *size))
    expected = prepare_clips(clips, stream.prepare)
    np.testing.assert_allclose(prepare(clips, stream), expected, atol=1e-4)


def test_openvino_is_imported_without_its_telemetry() -> None:
    pytest.importorskip("openvino_telemetry")
    script = """
import sys
from kdant_tf.models.inference import import_openvino
import_openvino().convert_model
assert "openvino" in sys.modules
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("savedmodel", "bfloat16"),
        ("openvino", "bfloat16"),
        ("openvino", "float16"),
        ("onnx", "float16"),
        ("litert", "float16"),
    ],
)
def test_what_16_bits_cost_is_measured_on_records(
    name: str, precision: str, tiny_run: Path, record_folder: Path, tmp_path: Path
) -> None:
    skip_without(name)
    exported = export_run(tiny_run, tmp_path, format=name, precision=precision, records=record_folder)
    parity = exported.parity
    assert parity.clips == 8  # All of the test split, where float32 is tried on four.
    assert 1e-8 < parity.difference < 0.01
    if name != SAVED_MODEL:
        assert parity.logit_difference is not None
        assert 0 < parity.logit_difference < 0.05
    assert parity.run_accuracy in {count / 8 for count in range(9)}
    config = json.loads((exported.folder / "config.json").read_text())
    assert config["precision"] == precision
    assert config["parity"]["same_top1"] == parity.same_top1
    clips = draw_clips(2, 64, 85)
    answers = load_model(exported.folder).probabilities(clips)
    np.testing.assert_allclose(answers, load_model(tiny_run).probabilities(clips), atol=0.01)
    if name == "onnx":
        import onnx

        weights = onnx.load(exported.folder / "model.onnx").graph.initializer
        sizes = {
            kind: sum(np.prod(each.dims) for each in weights if each.data_type == kind) for kind in (1, 10)
        }
        assert sizes[onnx.TensorProto.FLOAT16] > 900 > 100 > sizes[onnx.TensorProto.FLOAT]
    elif name == "openvino":
        assert (exported.folder / "model.bin").stat().st_size < 2 * 1000 + 500


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_8_bits_are_calibrated_on_training_clips(
    name: str,
    tiny_run: Path,
    record_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    skip_without(name)
    for package in FORMATS[name].quantizes:
        pytest.importorskip(package)
    asked = []

    class Noted(TrialRecords):
        def __init__(self, *arguments: object) -> None:
            asked.append(arguments[3:])
            super().__init__(*arguments)

    monkeypatch.setattr("kdant_tf.serving.export.TrialRecords", Noted)
    exported = export_run(tiny_run, tmp_path, format=name, precision="int8", calibration=record_folder)
    assert ("train",) in asked
    assert exported.parity.clips == 8  # Of the test split of the same records.
    assert 1e-6 < exported.parity.difference < 0.2
    assert exported.parity.run_accuracy is not None
    clips = draw_clips(2, 64, 85)
    answers = load_model(exported.folder).probabilities(clips)
    np.testing.assert_allclose(answers, load_model(tiny_run).probabilities(clips), atol=0.2)
    assert capsys.readouterr().out == ""
    file = exported.folder / FORMATS[name].file
    kinds = {"openvino": b'element_type="i8"', "onnx": b"QuantizeLinear"}
    assert kinds[name] in file.read_bytes()


def test_litert_computes_flat_convolutions_in_8_bits(
    tiny_run: Path, record_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    skip_without("litert")
    run = shutil.copytree(tiny_run, tmp_path / "run")
    keras.utils.set_random_seed(0)
    clip = keras.layers.Input((8, 32, 32, 3))
    frames = keras.layers.TimeDistributed(keras.layers.Conv2D(6, 7, 4, activation="relu"))(clip)
    logits = keras.layers.Dense(4, name="Logits")(keras.layers.GlobalAveragePooling3D()(frames))
    keras.Model(clip, {"logits": logits, "map": frames}).save(run / "model.keras")
    given = {"format": "litert", "calibration": record_folder}
    exported = export_run(run, tmp_path / "served", precision="int8", **given)
    assert 1e-6 < exported.parity.difference < 0.05
    clips = draw_clips(1, 64, 85)
    answers = load_model(exported.folder).probabilities(clips)
    np.testing.assert_allclose(answers, load_model(run).probabilities(clips), atol=0.05)
    assert answers.sum() == pytest.approx(1, abs=1e-5)  # The softmax is not of 8 bits.
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RunError, match=r"convolutions in three dimensions in float32 alone.* has no others"):
        export_run(tiny_run, tmp_path / "i3d", precision="int8", **given)
    assert list((tmp_path / "i3d").iterdir()) == []


def test_8_bits_need_records(tiny_run: Path, record_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KdantError, match=r"Received: int8 without --calibration RECORDS\."):
        export_run(tiny_run, tmp_path / "served", format="openvino", precision="int8")
    with pytest.raises(KdantError, match=r"Received: float32 with --calibration RECORDS\."):
        export_run(tiny_run, tmp_path / "served", format="openvino", calibration=record_folder)
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize(("name", "precision"), [("litert", "bfloat16"), ("onnx", "bfloat16")])
def test_a_precision_that_a_format_lacks(name: str, precision: str, tiny_run: Path, tmp_path: Path) -> None:
    words = (
        f"format {name} is written in float32.* Received: {precision}. {precision} is for the format "
        "savedmodel or openvino"
    )
    with pytest.raises(KdantError, match=words):
        export_run(tiny_run, tmp_path / "served", format=name, precision=precision)
    assert not (tmp_path / "served").exists()


def test_answers_are_compared_with_labels(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    logits = np.log(np.float32([[0.5, 0.5 - 1e-3, 1e-3], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]))
    others = np.float32([[0.4, 0.6, 0], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    rows = [{"probabilities": row[None]} for row in others]
    parity = _compare(logits, {"serving_default": rows}, np.array([1, 1, -1]), "clips", run)
    assert parity.difference == pytest.approx(0.101, abs=1e-6)
    assert (parity.same_top1, parity.accuracy, parity.run_accuracy) == (pytest.approx(2 / 3), 1.0, 0.5)
    assert parity.logit_difference is None
    unlabelled = _compare(logits, {"serving_default": rows}, np.array([-1, -1, -1]), "clips", run)
    assert unlabelled.accuracy is None


@pytest.mark.slow
def test_an_i3d_runs_on_litert(finished_run: Path, tmp_path: Path) -> None:
    """Its 3-D poolings would be operations of TensorFlow that LiteRT does not have."""
    skip_without("litert")
    exported = export_run(finished_run, tmp_path, format="litert")
    clips = draw_clips(1, 40, 40)
    expected = load_model(finished_run).probabilities(clips)
    np.testing.assert_allclose(load_model(exported.folder).probabilities(clips), expected, atol=1e-5)


def test_what_a_converter_cannot_do_is_one_sentence(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without("litert")
    monkeypatch.setattr(
        "kdant_tf.serving.conversion.prepare",
        lambda clips, stream: tf.raw_ops.Betainc(a=1.0, b=1.0, x=prepare(clips, stream)),
    )
    place = f"LiteRT cannot hold the network of run {tiny_run}: "
    with pytest.raises(RunError, match=rf"^{re.escape(place)}[^\n]+\. Export it in another format"):
        export_run(tiny_run, tmp_path / "served", format="litert")
    assert list((tmp_path / "served").iterdir()) == []


def test_predict_says_of_a_video_what_the_savedmodel_says(
    version: Path, exported: Path, videos: Path
) -> None:
    video = min(videos.glob("*.mp4"))
    expected = [each.probabilities for each in predict(video, exported)]
    found = [each.probabilities for each in predict(video, version)]
    assert len(expected) > 1
    np.testing.assert_allclose(found, expected, atol=1e-5)
