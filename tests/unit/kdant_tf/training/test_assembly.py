"""What a training builds from its job: whole networks on images, or MLPs on features kept on the disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.models.baselines import HEAD, STEM, build_tsn
from kdant_tf.models.networks import load_network
from kdant_tf.models.weights import WeightsError
from kdant_tf.runs import load_run, read_metrics
from kdant_tf.training.assembly import Assembly, assemble
from kdant_tf.training.job import prepare_job
from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.train import train
from tf_records.errors import RecordError
from tf_records.reader import evaluation_batches
from tf_records.records import Records

pytestmark = pytest.mark.slow

SMALL = {
    "crop": 32,
    "batch_size": 8,
    "epochs": 2,
    "windows": 1,
    "feature_loss": "unidirectional",
    "feature_weight": 1.0,
    "learning_rate": 0.001,
}


@pytest.fixture
def folder(record_folder, tmp_path) -> Path:
    """Records of the test's own, without any features yet."""
    return Path(shutil.copytree(record_folder, tmp_path / "records"))


@pytest.fixture
def frame_mlp(tiny_backbone) -> dict:
    """Settings of a frame-mlp that needs no download."""
    return {"model": "frame-mlp", "backbone": tiny_backbone, "init": "random"}


@pytest.fixture(scope="module")
def trained(record_folder, tiny_backbone, tmp_path_factory):
    """A frame-mlp teacher trained on rendered videos, and the settings it had."""
    settings = {**SMALL, "model": "frame-mlp", "backbone": tiny_backbone, "init": "random"}
    out = tmp_path_factory.mktemp("frame-mlp") / "teacher"
    records = Path(shutil.copytree(record_folder, out.parent / "records"))
    lines: list[str] = []
    train(records, out, TrainConfig(**settings), execution=Execution(devices="cpu"), report=lines.append)
    return out, records, lines


def assembled(
    folder: Path, settings: dict, teacher=None, load_weights: bool = True
) -> tuple[Assembly, list[str]]:
    keras.utils.set_random_seed(settings.get("seed", 0))
    job = prepare_job(Records.open(folder), folder / "run", TrainConfig(**{**SMALL, **settings}), teacher)
    lines: list[str] = []
    with make_strategy("cpu").scope():
        return assemble(job, load_weights=load_weights, report=lines.append), lines


def feature_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "frame-features").glob("*"))


def weights_of(network: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in network.weights}


def middle_clips(records: Records) -> Iterator[np.ndarray]:
    """Of the training records' future segments, in batches; images are cut centrally."""
    batches = evaluation_batches(
        records, split="train", view="future", batch_size=4, crop=SMALL["crop"], windows=1
    ).as_numpy_iterator()
    return (batch["clip"] for batch in batches)


def test_a_frame_mlp_trains_its_mlp_on_features_of_its_stem(folder, frame_mlp):
    assembly, lines = assembled(folder, frame_mlp)
    assert assembly.distiller.student is assembly.network.get_layer(HEAD)
    (key,) = feature_folders(folder)
    assert assembly.records.folder == folder / "frame-features" / key
    assert (assembly.records.manifest.features.shape, assembly.records.manifest.features.source) == (
        (8,),
        "Tiny, 32 px",
    )
    assert lines[0] == f"Computing frame features once, into {assembly.records.folder}"
    assert lines[-1] == "frame features: 20/20 records"
    stem = assembly.network.get_layer(STEM)
    images, features = (next(middle_clips(records)) for records in (Records.open(folder), assembly.records))
    np.testing.assert_allclose(features, stem(images), rtol=2e-3, atol=1e-2)


def test_features_are_computed_once_for_the_same_stem_records_and_crop(folder, frame_mlp, monkeypatch):
    first, _ = assembled(folder, frame_mlp)
    monkeypatch.setattr("tf_records.features._FrameFeatures.replace", None)
    second, lines = assembled(folder, {**frame_mlp, "dropout": 0.1, "label_fraction": 0.9, "epochs": 9})
    assert lines == []
    assert second.records.folder == first.records.folder


@pytest.mark.parametrize("change", ["stem", "crop", "records"])
def test_other_stems_crops_and_records_have_features_of_their_own(folder, frame_mlp, change, edit_manifest):
    assembled(folder, frame_mlp)
    before = feature_folders(folder)
    settings = frame_mlp | {"stem": {"seed": 1}, "crop": {"crop": 48}, "records": {}}[change]
    if change == "records":
        edit_manifest(folder, plan_sha256="0" * 64)
    _, lines = assembled(folder, settings)
    assert lines
    assert len(feature_folders(folder)) == 2
    assert set(before) < set(feature_folders(folder))


def test_a_tsn_sees_images(folder, tiny_backbone):
    assembly, lines = assembled(folder, {"model": "tsn", "backbone": tiny_backbone, "segments": 2})
    assert assembly.distiller.student is assembly.network
    assert assembly.records.folder == folder
    assert not lines
    assert not feature_folders(folder)


def test_a_trained_frame_mlp_changed_its_mlp_alone_and_saved_the_whole(trained, frame_mlp):
    out, records, lines = trained
    assert len(lines) == 11
    begun, _ = assembled(records, frame_mlp)
    before, after = weights_of(begun.network), weights_of(load_network(load_run(out)))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"hidden/kernel", "hidden/bias", "Logits/kernel", "Logits/bias"}
    rows = read_metrics(out / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["loss"] < rows[0]["loss"]


def test_its_loss_is_that_of_the_whole_network_on_the_same_clips(trained, frame_mlp):
    """Without crops and flips to draw, images and features should say the same."""
    out, records, _ = trained
    network = load_network(load_run(out))
    assembly, _ = assembled(records, {**frame_mlp, "init": str(out)})
    pairs = zip(middle_clips(Records.open(records)), middle_clips(assembly.records), strict=True)
    for images, features in pairs:
        expected, outputs = network(images), assembly.distiller.student(features)
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, rtol=5e-3, atol=5e-2)


def test_a_resumed_frame_mlp_ends_like_one_that_was_not_interrupted(
    trained, frame_mlp, tmp_path, stopped_after_first_epoch
):
    out, records, _ = trained
    run = stopped_after_first_epoch(out, tmp_path / "run")
    train(
        records, run, TrainConfig(**{**SMALL, **frame_mlp}), execution=Execution(devices="cpu"), resume=True
    )
    assert (run / "metrics.csv").read_text() == (out / "metrics.csv").read_text()
    resumed, whole = (weights_of(load_network(load_run(path))) for path in (run, out))
    for path, value in whole.items():
        np.testing.assert_array_equal(resumed[path], value, err_msg=path)


def test_two_devices_train_a_frame_mlp(folder, frame_mlp, tmp_path):
    result = train(
        folder,
        tmp_path / "run",
        TrainConfig(**{**SMALL, **frame_mlp, "epochs": 1}),
        execution=Execution(devices="cpu:2"),
    )
    assert np.isfinite(result.final_loss)
    assert len(feature_folders(folder)) == 1


def test_a_student_of_the_same_stem_learns_from_features_too(trained, frame_mlp, tmp_path):
    teacher, records, _ = trained
    lines: list[str] = []
    config = TrainConfig(**{**SMALL, **frame_mlp, "init": str(teacher), "epochs": 1, "seed": 5})
    run = load_run(teacher)
    result = train(
        records,
        tmp_path / "student",
        config,
        teacher=run,
        execution=Execution(devices="cpu"),
        report=lines.append,
    )
    assert not lines
    assert np.isfinite(result.final_loss)
    rows = read_metrics(tmp_path / "student" / "metrics.csv")
    assert rows[0]["feature_loss"] > 0
    student = load_run(tmp_path / "student")
    assert (student.role, student.teacher) == ("student", str(teacher))
    taught, before = weights_of(load_network(student)), weights_of(load_network(run))
    changed = {path for path in taught if not np.array_equal(taught[path], before[path])}
    assert changed == {"hidden/kernel", "hidden/bias", "Logits/kernel", "Logits/bias"}


def test_a_student_of_another_stem_learns_from_images(trained, frame_mlp):
    teacher, records, _ = trained
    before = feature_folders(records)
    assembly, lines = assembled(records, {**frame_mlp, "seed": 7}, load_run(teacher))
    assert not lines
    assert assembly.records.folder == records
    assert assembly.distiller.student is assembly.network
    assert feature_folders(records) == before


def test_a_frame_mlp_learns_from_an_i3d_on_images(finished_run, record_folder, frame_mlp, tmp_path):
    records = Path(shutil.copytree(record_folder, tmp_path / "records"))
    config = TrainConfig(**{**SMALL, **frame_mlp, "epochs": 1, "projection": True})
    result = train(
        records, tmp_path / "run", config, teacher=load_run(finished_run), execution=Execution(devices="cpu")
    )
    assert np.isfinite(result.final_loss)
    assert read_metrics(tmp_path / "run" / "metrics.csv")[0]["feature_loss"] > 0
    assert not (records / "frame-features").exists()
    begun, _ = assembled(records, {**frame_mlp, "projection": True}, load_run(finished_run))
    before, after = weights_of(begun.network), weights_of(load_network(load_run(tmp_path / "run")))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"hidden/kernel", "hidden/bias", "Logits/kernel", "Logits/bias"}


def test_records_of_features_are_no_records_to_train_on(trained, tmp_path):
    _, records, _ = trained
    (key,) = feature_folders(records)
    with pytest.raises(RecordError, match=r"features.*in place of frames"):
        train(records / "frame-features" / key, tmp_path / "run", TrainConfig(**SMALL, width=0.0625))
    assert not (tmp_path / "run").exists()


def test_a_resumed_tsn_ends_like_one_that_was_not_interrupted(
    folder, tiny_backbone, tmp_path, stopped_after_first_epoch
):
    """The draws of its frames go on where they were, and the first weights are not asked for again."""
    first = tmp_path / "first.keras"
    build_tsn(4, (8, 32, 32, 3), tiny_backbone, segments=2).save(first)
    settings = {"model": "tsn", "backbone": tiny_backbone, "segments": 2, "init": str(first)}
    config = TrainConfig(**SMALL, **settings, batch_norm_momentum=0.5)
    train(folder, tmp_path / "whole", config, execution=Execution(devices="cpu"))
    first.unlink()
    run = stopped_after_first_epoch(tmp_path / "whole", tmp_path / "resumed")
    train(folder, run, config, execution=Execution(devices="cpu"), resume=True)
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_weights_that_cannot_be_had_leave_an_overwritten_run_as_it_was(trained, frame_mlp, tmp_path):
    out, records, _ = trained
    run = Path(shutil.copytree(out, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    config = TrainConfig(**{**SMALL, **frame_mlp, "init": str(tmp_path / "absent")})
    with pytest.raises(WeightsError, match="a path that exists"):
        train(records, run, config, execution=Execution(devices="cpu"), overwrite=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_brings_the_weights_where_init_is_not_asked_again(folder, tiny_backbone, tmp_path):
    """Of a tsn; a frame-mlp's stem has to be known before its features can be found."""
    settings = {"model": "tsn", "backbone": tiny_backbone, "segments": 1, "init": str(tmp_path / "absent")}
    assembled(folder, settings, load_weights=False)
    with pytest.raises(WeightsError):
        assembled(folder, settings, load_weights=True)
