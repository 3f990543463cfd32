"""A run and what was exported of it answer a clip alike; what is neither is refused."""

import dataclasses
import doctest
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdant_tf.models.inference import ENGINES, OPENVINO, Engine
from kdant_tf.runs import load_run
from kdant_tf.serving import model as module
from kdant_tf.serving.export import export_run
from kdant_tf.serving.model import AnticipationModel, NotFiniteAnswerError, load_model, make_inputs
from kdant_tf.version import __version__
from tf_records.errors import KdantError, RunError
from tf_records.schema import ClipSpec


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with version 1, of a run as if it were a student's at 32 frames a second."""
    run = dataclasses.replace(load_run(tiny_run), role="student", fps=32.0)
    return export_run(run, tmp_path_factory.mktemp("exported")).folder.parent


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> AnticipationModel:
    return load_model(tiny_run)


@pytest.mark.parametrize("size", [(64, 85), (1, 1), (33, 32)], ids=str)
def test_run_and_export_answer_alike(model: AnticipationModel, exported: Path, size: tuple[int, int]) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, *size, 3), dtype=np.uint8)
    own = model.probabilities(clips)
    assert (own.dtype, own.shape) == (np.float32, (2, len(model.classes)))
    np.testing.assert_allclose(own.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(load_model(exported).probabilities(clips), own, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_other_engines_answer_alike(
    model: AnticipationModel, tiny_run: Path, engine: str, precision: str, tolerance: float
) -> None:
    if engine == OPENVINO:
        pytest.importorskip("openvino")
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 40, 50, 3), dtype=np.uint8)
    other = load_model(tiny_run, Engine(name=engine, precision=precision)).probabilities(clips)
    assert (other.dtype, other.shape) == (np.float32, (2, len(model.classes)))
    np.testing.assert_allclose(other, model.probabilities(clips), atol=tolerance)


def test_an_export_has_an_engine_of_its_own(exported: Path) -> None:
    with pytest.raises(KdantError, match="is an export, which has its own format and precision"):
        load_model(exported, Engine(precision="bfloat16"))


@pytest.mark.slow
def test_what_an_export_says_of_its_clips(exported: Path, tmp_path: Path) -> None:
    model = load_model(exported)
    assert (model.clip_frames, model.channels, model.fps, model.short_side) == (8, 3, 32.0, 64)
    assert model.offset_s == model.clip.offset_at(32) / 32
    for version in ("2", "10"):
        shutil.copytree(exported / "1", tmp_path / version)
    config = json.loads((tmp_path / "10" / "config.json").read_text())
    (tmp_path / "10" / "config.json").write_text(json.dumps({**config, "classes": ["a", "b", "c", "last"]}))
    assert load_model(tmp_path).classes[-1] == "last"
    assert load_model(tmp_path / "2").classes == model.classes


def test_a_teacher_names_what_it_sees(model: AnticipationModel) -> None:
    assert not model.anticipates
    assert (model.offset_s, model.offset_at(30)) == (0, 0)


@pytest.mark.parametrize(
    "clips",
    [
        np.zeros((8, 32, 32, 3), np.uint8),
        np.zeros((1, 7, 32, 32, 3), np.uint8),
        np.zeros((1, 8, 32, 32, 1), np.uint8),
        np.zeros((1, 8, 0, 32, 3), np.uint8),
        np.zeros((0, 8, 32, 32, 3), np.uint8),
        np.zeros((1, 8, 32, 32, 3), np.float32),
    ],
    ids=lambda clips: f"{clips.dtype}{clips.shape}",
)
def test_other_clips_are_refused(model: AnticipationModel, clips: np.ndarray) -> None:
    with pytest.raises(KdantError, match=r"takes clips of uint8 \(B, 8, H, W, 3\). Received: "):
        model.probabilities(clips)


def test_two_streams_have_five_channels() -> None:
    model = AnticipationModel(
        name="both",
        classes=("a", "b"),
        clip=ClipSpec(clip_frames=4, offset_frames=None, anticipation_s=1.0),
        modality="rgb,flow",
        short_side=64,
        fps=16.0,
        anticipates=True,
        infer=lambda clips: np.zeros((len(clips), 2), np.float32),
    )
    assert (model.channels, model.offset_s) == (5, 1.25)
    assert model.probabilities(np.zeros((1, 4, 8, 8, 5), np.uint8)).shape == (1, 2)


def test_folders_that_hold_no_model(exported: Path, tiny_run: Path, tmp_path: Path) -> None:
    def refuse(path: Path) -> str:
        with pytest.raises(RunError) as caught:
            load_model(path)
        return str(caught.value)

    assert "does not exist" in refuse(tmp_path / "no")
    assert "neither model.keras nor saved_model.pb" in refuse(tmp_path)
    shutil.copytree(exported / "1", tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"nonsense")
    assert "cannot be loaded" in refuse(tmp_path)
    (tmp_path / "1" / "config.json").write_text('{"classes": 3}')
    assert "config.json cannot be read" in refuse(tmp_path)
    config = json.loads((exported / "1" / "config.json").read_text())
    later = {**config, "kdant": "99.1", "clip": {**config["clip"], "later": 1}}
    (tmp_path / "1" / "config.json").write_text(json.dumps(later))
    assert refuse(tmp_path).endswith(f"It was written by kdant 99.1, this is {__version__}: update kdant.")
    (tmp_path / "1" / "config.json").unlink()
    assert "has no config.json" in refuse(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "model.keras").write_bytes(b"nonsense")
    assert "model.keras cannot be read" in refuse(run)


def decode(frames: np.ndarray) -> np.ndarray:
    return np.array([np.asarray(Image.open(io.BytesIO(data))) for data in frames.flat])


def test_frames_are_encoded_without_loss():
    clips = np.random.default_rng(0).integers(0, 256, (1, 2, 20, 30, 5), dtype=np.uint8)
    inputs = make_inputs(clips, "rgb,flow", "encoded")
    np.testing.assert_array_equal(decode(inputs["frames"][0]), clips[0, ..., :3])
    assert inputs["flow_frames"].shape == (1, 2, 2)
    np.testing.assert_array_equal(
        decode(inputs["flow_frames"][0, 1]), np.moveaxis(clips[0, 1, ..., 3:], -1, 0)
    )
    assert set(make_inputs(clips, "rgb,flow", "serving_default")) == {"clips", "flow_clips"}
    assert make_inputs(clips[..., 3:], "flow", "encoded")["frames"].shape == (1, 2, 2)


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(module) == (0, 4)


def test_answers_that_are_no_numbers_are_counted(model: AnticipationModel) -> None:
    answers = np.full((8, 4), 0.25, np.float32)
    answers[[1, 6], 2] = np.nan, np.inf
    broken = dataclasses.replace(model, name="student", infer=lambda clips: answers)
    with pytest.raises(
        NotFiniteAnswerError, match=r"student gives outputs that are not finite for 2 of 8 clips: 1, 6. Its"
    ):
        broken.probabilities(np.zeros((8, 8, 32, 32, 3), np.uint8))
    answers[:] = np.nan
    with pytest.raises(NotFiniteAnswerError, match=r"8 of 8 clips: 0, 1, 2 …\."):
        broken.probabilities(np.zeros((8, 8, 32, 32, 3), np.uint8))
