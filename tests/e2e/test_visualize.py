"""kdant visualize on rendered videos, as a user types it."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main
from PIL import Image

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.predictions import load_predictions, save_predictions
from kdant_tf.runs import Run, manifest_sha256
from tf_records.manifest import load_manifest

HEADER = "epoch,learning_rate,loss,classification_loss,feature_loss,accuracy\n"


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def visualize(*args: object) -> dict:
    result = kdant("visualize", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refuse(*args: object, code: int = 1) -> str:
    result = kdant("visualize", *args)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def build_network(num_classes: int, crop: int) -> keras.Model:
    """A network of two convolutions, with a map of 2 slices and crop / 8 positions a side."""
    clip = keras.layers.Input((8, crop, crop, 3))
    x = keras.layers.Conv3D(4, 3, strides=(2, 4, 4), padding="same", activation="relu")(clip)
    maps = keras.layers.Conv3D(6, 3, strides=2, padding="same", activation="relu")(x)
    logits = keras.layers.Dense(num_classes)(keras.layers.GlobalAveragePooling3D()(maps))
    return keras.Model(clip, {"logits": logits, "Mixed_4f": maps})


def untrained_run(records: Path, folder: Path, role: str, crop: int, seed: int, **settings: object) -> Path:
    """A run folder whose network has random weights."""
    manifest = load_manifest(records)
    run = Run(
        folder=folder,
        role=role,
        config=TrainConfig(crop=crop, windows=2, seed=seed, **settings),
        classes=manifest.classes,
        clip=manifest.clip,
        modality=manifest.modality,
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(records),
        teacher=None if role == "teacher" else str(folder.parent / "teacher"),
    )
    folder.mkdir(parents=True)
    run.save()
    keras.utils.set_random_seed(seed)
    build_network(len(run.classes), crop).save(run.model_path)
    (folder / "metrics.csv").write_text(HEADER + "1,0.1,1.5,1.0,0.5,0.25\n2,0.1,1.2,0.9,0.3,0.5\n")
    return folder


@pytest.fixture(scope="module")
def runs(record_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A teacher, and two students of other crops and alphas."""
    root = tmp_path_factory.mktemp("shown")
    return [
        untrained_run(record_folder, root / "teacher", "teacher", 64, 1),
        untrained_run(record_folder, root / "student-a", "student", 32, 2),
        untrained_run(record_folder, root / "student-b", "student", 64, 3, alpha=0.5),
    ]


@pytest.fixture(scope="module")
def drawn(runs: list[Path], record_folder: Path) -> dict:
    return visualize(*runs, "--records", record_folder, "--out", runs[0].parent / "pictures")


def test_everything_is_drawn_and_listed(runs: list[Path], drawn: dict) -> None:
    out = runs[0].parent / "pictures"
    names = [Path(file["path"]).name for file in drawn["files"]]
    assert sorted(names) == sorted(path.name for path in out.iterdir())
    assert names == [
        *("heat_maps.png", "grad_cam.png"),
        *("drift_01_fall.png", "drift_02_grow.png", "drift_03_rise.png", "drift_04_shrink.png"),
        *("confusion_teacher.png", "confusion_student-a.png", "confusion_student-b.png"),
        *("per_class.png", "reliability.png", "curves.png", "features.png"),
    ]
    for file in drawn["files"]:
        with Image.open(file["path"]) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert 300 < picture.width < 2500
    (left_out,) = drawn["left_out"]
    assert left_out["picture"] == "earliness"
    assert "--observe" in left_out["reason"]


def test_runs_were_evaluated_first_and_are_not_again(
    runs: list[Path], record_folder: Path, drawn: dict, tmp_path: Path
) -> None:
    """What was kept is believed: a forged prediction is what the picture then shows."""
    for run, view in zip(runs, ("future", "observed", "observed"), strict=True):
        kept = load_predictions(run / "predictions.npz", f"{view}/test")
        assert len(kept.ids) == 8
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    kept = load_predictions(run / "predictions.npz", "observed/test")
    kept.probabilities[:] = np.eye(4)[kept.labels]
    save_predictions(run / "predictions.npz", "observed/test", kept)
    only = ("--records", record_folder, "--pictures", "confusion")
    for name, folder in (("true", runs[1]), ("forged", run)):
        visualize(folder, *only, "--out", tmp_path / name)
    forged, true = (next((tmp_path / name).iterdir()).read_bytes() for name in ("forged", "true"))
    assert forged != true


def test_predictions_of_other_samples_are_not_believed(
    runs: list[Path], record_folder: Path, drawn: dict, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    kept = load_predictions(run / "predictions.npz", "observed/test")
    kept.ids[:] = "another"
    save_predictions(run / "predictions.npz", "observed/test", kept)
    command = (run, "--records", record_folder, "--out", tmp_path / "out", "--pictures", "heat-maps")
    assert "is of other records" in refuse(*command)
    # Of records with another manifest: evaluated anew.
    other = dataclasses.replace(kept, records_sha256="0" * 64)
    save_predictions(run / "predictions.npz", "observed/test", other)
    assert visualize(*command, "--overwrite")["files"]


def test_the_same_command_gives_the_same_bytes(
    runs: list[Path], record_folder: Path, drawn: dict, tmp_path: Path
) -> None:
    again = visualize(
        *runs, "--records", record_folder, "--out", tmp_path / "again", "--pictures", "drift,curves"
    )
    assert len(again["files"]) == 5
    for file in again["files"]:
        path = Path(file["path"])
        assert path.read_bytes() == (runs[0].parent / "pictures" / path.name).read_bytes(), path.name


def test_named_samples_are_shown_in_their_order(
    runs: list[Path], record_folder: Path, drawn: dict, tmp_path: Path
) -> None:
    ids = load_predictions(runs[0] / "predictions.npz", "future/test").ids
    chosen = f"{ids[5]},{ids[0]}"
    command = (*runs[:2], "--records", record_folder, "--out", tmp_path / "out", "--pictures", "drift")
    files = visualize(*command, "--ids", chosen)["files"]
    assert [file["of"] for file in files] == [ids[5], ids[0]]
    message = refuse(*command, "--overwrite", "--ids", "nothing")
    assert "no sample with the id 'nothing'" in message
    assert message.count("\n") == 1


def test_what_was_asked_for_and_cannot_be_drawn_is_an_error(
    runs: list[Path], record_folder: Path, tmp_path: Path
) -> None:
    command = ("--records", record_folder, "--out", tmp_path / "out")
    assert "No teacher was given" in refuse(runs[1], *command, "--pictures", "drift")
    assert "--observe" in refuse(*runs, *command, "--pictures", "earliness", "--overwrite")
    assert "should be of heat-maps" in refuse(*runs, *command, "--pictures", "heat", code=2)
    assert "Choose one" in refuse(*runs, *command, "--ids", "a", "--samples", 2, code=2)
    assert "given once" in refuse(runs[0], runs[0], *command)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    assert "is not empty" in refuse(*runs, "--records", record_folder, "--out", tmp_path / "full")


def test_a_teacher_alone_is_followed_from_its_own_map(
    runs: list[Path], record_folder: Path, tmp_path: Path
) -> None:
    command = (runs[0], "--records", record_folder, "--out", tmp_path / "out", "--pictures", "drift")
    assert len(visualize(*command, "--samples", 2, "--seed", 3)["files"]) == 2


def test_curves_against_what_was_seen_come_from_evaluation_json(
    runs: list[Path], record_folder: Path, drawn: dict, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    kept = json.loads((run / "evaluation.json").read_text())
    points = [{"share": share, "value": share, "low": 0.1, "high": 0.9} for share in (0.2, 0.6)]
    kept["share"] = {"split": "test", "top1": points}
    (run / "evaluation.json").write_text(json.dumps(kept))
    command = (run, runs[2], "--records", record_folder, "--pictures", "earliness")
    (file,) = visualize(*command, "--out", tmp_path / "out")["files"]
    assert Path(file["path"]).name == "accuracy_by_share.png"
    (run / "evaluation.json").write_text(json.dumps({"share": {"split": "test"}}))
    assert "cannot be read" in refuse(*command, "--out", tmp_path / "other")


def test_a_network_without_places_in_its_map_is_named(
    runs: list[Path], record_folder: Path, tmp_path: Path
) -> None:
    clip = keras.layers.Input((8, 32, 32, 3))
    pooled = keras.layers.Reshape((8, -1))(clip)
    pooled = keras.layers.Dense(4)(pooled)
    logits = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(pooled))
    run = Path(shutil.copytree(runs[1], tmp_path / "flat"))
    (run / "predictions.npz").unlink(missing_ok=True)
    keras.Model(clip, {"logits": logits, "frames": pooled}).save(run / "model.keras")
    listed = visualize(runs[0], run, "--records", record_folder, "--out", tmp_path / "out")
    reasons = {each["picture"]: each["reason"] for each in listed["left_out"]}
    for kind in ("heat-maps", "grad-cam", "drift"):
        assert "map of flat has no places in the frame" in reasons[kind]
    assert {"confusion", "features"} <= {file["picture"] for file in listed["files"]}


def test_evaluate_draws_beside_its_result(runs: list[Path], record_folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    command = ("evaluate", run, "--records", record_folder, "--pictures")
    for _ in range(2):  # the second time in place of the first
        result = kdant(*command)
        assert result.exit_code == 0, result.stderr
    names = {path.name for path in (run / "pictures").iterdir()}
    assert names == {"confusion_run.png", "per_class.png", "reliability.png"}
    result = kdant(*command, "--view", "future")
    assert result.exit_code == 2
    assert "--pictures goes with none" in result.stderr
