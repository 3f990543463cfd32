"""The teacher's outputs kept and read back: the training is the same, whatever stops it."""

import dataclasses
import shutil
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdant_tf.config import Execution, TrainConfig
from kdant_tf.models.networks import build_network, load_network
from kdant_tf.runs import load_run, read_metrics
from kdant_tf.training.assembly import Assembly, assemble
from kdant_tf.training.distiller import TEACHER_LOGITS, TEACHER_MAP, Distiller
from kdant_tf.training.job import Job, prepare_job
from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.teacher_cache import TeacherCache, check_views_are_fixed
from kdant_tf.training.train import train
from tf_records.errors import KdantError, StoppedError
from tf_records.features import write_clip_features
from tf_records.files import claim_folder
from tf_records.reader import training_batches
from tf_records.records import Records
from tf_records.schema import FUTURE, PER_CLIP, FeatureInfo

pytestmark = pytest.mark.slow

NETWORKS = """
import keras
from keras import layers


def build(num_classes, input_shape, channels=6):
    clip = layers.Input(input_shape)
    x = layers.Conv3D(channels, (1, 5, 5), (2, 4, 4), padding="same", use_bias=False)(clip)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "map": x})


def build_wide(num_classes, input_shape):
    return build(num_classes, input_shape, 8)
"""
SETTINGS = {
    "model": "networks_for_cache:build",
    "crop": 32,
    "batch_size": 8,
    "epochs": 3,
    "feature_loss": "direct",
    "views": 2,
    "learning_rate": 0.01,
    "feature_weight": 1.0,
}


# A clip's last bits may depend on its place in the batch: seen with AVX2, not with AVX-512.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


class KilledError(Exception):
    """Stands in for whatever ends a process."""


@pytest.fixture(scope="module", autouse=True)
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    (folder / "networks_for_cache.py").write_text(NETWORKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield


def save_teacher(run: Path, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    network = build_network(load_run(run, finished=False).config, 4, (8, 32, 32, 3))
    for weight in network.weights:
        weight.assign(weight + keras.random.uniform(weight.shape, 0.0, 0.5))
    network.save(run / "model.keras")


@pytest.fixture(scope="module")
def teacher(finished_run, tmp_path_factory) -> Path:
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("cache") / "teacher"))
    own = dataclasses.replace(load_run(run), config=TrainConfig(model=SETTINGS["model"], crop=32))
    own.save()
    save_teacher(run, seed=1)
    return run


def prepare(records: Path, out: Path, teacher: Path, **settings) -> tuple[Job, Assembly, TeacherCache]:
    config = TrainConfig(**{**SETTINGS, **settings})
    job = prepare_job(Records.open(records), out, config, load_run(teacher))
    with make_strategy("cpu").scope():
        assembly = assemble(job, load_weights=False, report=lambda line: None)
    out.mkdir(exist_ok=True)
    return job, assembly, TeacherCache.of(job, assembly)


def check_rows(job: Job, assembly: Assembly, cache: TeacherCache) -> None:
    """Batches of other samples than the cache was filled from have what the teacher makes of their clips."""
    config, distiller = job.run.config, assembly.distiller
    see = tf.function(lambda clips: distiller.teacher(clips, training=False), autograph=False)
    for epoch in range(3):
        batches = training_batches(
            assembly.records,
            views=(FUTURE,),
            batch_size=config.batch_size,
            crop=config.crop,
            seed=config.seed,
            epoch=epoch,
            draw=config.draw_at(epoch),
            augmentation=job.augmentation,
        )
        for batch in cache.add_outputs(batches, epoch):
            outputs = see(batch[FUTURE])
            np.testing.assert_allclose(batch[TEACHER_LOGITS], outputs["logits"], **ROUNDING)
            np.testing.assert_allclose(batch[TEACHER_MAP], outputs[distiller.maps[1]], **ROUNDING)


def test_what_is_read_back_is_what_the_teacher_says(record_folder, teacher, tmp_path):
    job, assembly, cache = prepare(record_folder, tmp_path / "run", teacher)
    lines: list[str] = []
    cache.fill(job, assembly, 3, lines.append)
    assert lines[0] == f"Keeping the teacher's outputs for 20 pairs x 2 views, 1 MB, in {cache.path.parent}"
    assert lines[-1] == "teacher's outputs: 40/40 clips"
    check_rows(job, assembly, cache)


def test_an_i3d_may_be_cached(record_folder, finished_run, tmp_path):
    settings = {"model": "i3d", "width": 0.0625, "feature_loss": "bidirectional", "jitter_hue": 0.2}
    job, assembly, cache = prepare(record_folder, tmp_path / "run", finished_run, **settings)
    cache.fill(job, assembly, 5, print)
    check_rows(job, assembly, cache)


def test_a_frame_mlp_may_be_cached(record_folder, finished_run, tiny_backbone, tmp_path):
    settings = {"model": "frame-mlp", "backbone": tiny_backbone, "init": "random"}
    records = Path(shutil.copytree(record_folder, tmp_path / "records"))
    teacher = Path(shutil.copytree(finished_run, tmp_path / "teacher"))
    config = TrainConfig(**{**SETTINGS, **settings})
    dataclasses.replace(load_run(teacher), config=config).save()
    keras.utils.set_random_seed(0)
    build_network(config, 4, (8, 32, 32, 3)).save(teacher / "model.keras")
    job, assembly, cache = prepare(records, tmp_path / "run", teacher, **{**settings, "init": str(teacher)})
    cache.fill(job, assembly, 8, print)
    check_rows(job, assembly, cache)


def write_features(records: Records, out: Path, windows: int) -> Records:
    """Maps of 2x2 positions of the central square, which stand in for those of I3D's stem."""
    info = FeatureInfo(
        shape=(), source="means", per=PER_CLIP, endpoint="x", width=1.0, crop=32, windows=windows
    )
    claim_folder(out)
    write_clip_features(records, out, lambda clips: clips[:, ::4, ::16, ::16], info, batch_size=4)
    return Records.open(out)


def test_features_of_one_clip_need_no_views(record_folder, teacher, tmp_path, monkeypatch):
    records = write_features(Records.open(record_folder), tmp_path / "features", windows=1)
    run = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    settings = {"crop": 32, "views": 0}
    own = dataclasses.replace(load_run(run), features=records.manifest.features)
    own.save()
    keras.utils.set_random_seed(0)
    build_network(own.config, 4, (2, 2, 2, 3)).save(run / "model.keras")
    job, assembly, cache = prepare(records.folder, tmp_path / "run", run, **settings)
    check_views_are_fixed(job, tf.distribute.get_strategy())
    cache.fill(job, assembly, 8, print)
    assert cache.rows == 20
    check_rows(job, assembly, cache)


@pytest.mark.parametrize("name", ["none", "direct", "unidirectional", "bidirectional"])
def test_a_step_takes_the_outputs_in_place_of_the_clip(name):
    keras.utils.set_random_seed(0)
    clips = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2, 8, 8, 3)).astype(np.float32)
    student, teacher = (build_network(TrainConfig(model=SETTINGS["model"]), 3, (2, 8, 8, 3)) for _ in "ab")
    distiller = Distiller(student, teacher, feature_loss=name, feature_weight=1.0)
    inputs = {"observed": tf.constant(clips[0]), "label": tf.constant([0, -1, 2, 1])}
    outputs = teacher(clips[1], training=False)
    known = {TEACHER_LOGITS: outputs["logits"]}
    if name != "none":
        known[TEACHER_MAP] = outputs["map"]
    one = distiller.compute_losses({**inputs, "future": tf.constant(clips[1])}, training=False)
    two = distiller.compute_losses({**inputs, **known}, training=False)
    for part, value in one.items():
        np.testing.assert_array_equal(value, two[part], err_msg=part)


def stop_on(line: str):
    def report(reported: str) -> None:
        if reported == line:
            raise KilledError

    return report


@pytest.mark.parametrize(("damage", "lines_left"), [("none", 4), ("cut", 5), ("flipped", 8)])
def test_a_file_cut_short_or_damaged_is_made_again_from_there(
    record_folder, teacher, tmp_path, damage, lines_left
):
    job, assembly, cache = prepare(record_folder, tmp_path / "run", teacher)
    cache.fill(job, assembly, 4, print)
    whole = cache.path.read_bytes()
    cache.path.unlink()
    with pytest.raises(KilledError):
        cache.fill(job, assembly, 4, stop_on("teacher's outputs: 28/40 clips"))
    content = bytearray(cache.path.read_bytes())
    row = len(whole) // 40
    assert content == whole[: 28 * row]
    if damage == "flipped":
        content[13 * row + 7] ^= 1
    cache.path.write_bytes(content[:-5] if damage == "cut" else content)
    lines: list[str] = []
    cache.fill(job, assembly, 4, lines.append)
    assert cache.path.read_bytes() == whole
    assert len(lines) == lines_left


def test_a_stop_that_is_asked_for_comes_after_a_batch(record_folder, teacher, tmp_path):
    job, assembly, cache = prepare(record_folder, tmp_path / "run", teacher)
    with pytest.raises(StoppedError, match=r"by SIGTERM after 8 of 40 .* --resume"):
        cache.fill(job, assembly, 8, print, lambda: "SIGTERM")
    assert cache.path.stat().st_size == 8 * cache.row.itemsize


@pytest.mark.parametrize("change", ["teacher", "seed", "feature_loss"])
def test_another_teachers_outputs_are_not_read(record_folder, teacher, tmp_path, change):
    job, assembly, cache = prepare(record_folder, tmp_path / "run", teacher)
    cache.fill(job, assembly, 4, print)
    run = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    settings = {"teacher": {}, "seed": {"seed": 1}, "feature_loss": {"feature_loss": "none"}}[change]
    if change == "teacher":
        save_teacher(run, seed=2)
    job, assembly, other = prepare(record_folder, tmp_path / "run", run, **settings)
    assert other.path != cache.path
    other.fill(job, assembly, 4, print)
    assert list(cache.path.parent.iterdir()) == [other.path]
    assert prepare(record_folder, tmp_path / "run", teacher, learning_rate=0.5)[2].path == cache.path


def distill(records: Path, teacher: Path, out: Path, cached: bool, **options) -> list[str]:
    """Trains a student; returns the lines that were reported of the teacher's outputs."""
    lines: list[str] = []
    execution = Execution(devices=options.pop("devices", "cpu"), cache_teacher=cached)
    others = {name: options.pop(name) for name in ("resume", "callbacks") if name in options}
    config = TrainConfig(**{**SETTINGS, **options})
    run = load_run(teacher)
    train(records, out, config, teacher=run, execution=execution, report=lines.append, **others)
    return [line for line in lines if "teacher" in line]


def check_equal(run: Path, other: Path) -> None:
    """The same numbers in metrics.csv and the same weights."""
    rows, others = (read_metrics(folder / "metrics.csv") for folder in (run, other))
    assert [row.keys() for row in rows] == [row.keys() for row in others]
    for own, theirs in zip(rows, others, strict=True):
        np.testing.assert_allclose([*own.values()], [*theirs.values()], **ROUNDING)
    networks = (load_network(load_run(folder)) for folder in (run, other))
    for one, two in zip(*(network.weights for network in networks), strict=True):
        np.testing.assert_allclose(one, two, err_msg=one.path, **ROUNDING)


@pytest.fixture(scope="module")
def uncached(record_folder, teacher, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uncached") / "run"
    assert distill(record_folder, teacher, out, cached=False, label_fraction=0.5) == []
    return out


def stop_at(epoch: int) -> keras.callbacks.Callback:
    def stop(number: int, logs: object) -> None:
        if number == epoch:
            raise KilledError

    return keras.callbacks.LambdaCallback(on_epoch_begin=stop)


def test_a_run_that_is_stopped_goes_on_with_what_was_kept(record_folder, teacher, uncached, tmp_path):
    """Begun without the cache, stopped with it, and the same numbers as without both."""
    run = {"records": record_folder, "teacher": teacher, "out": tmp_path / "run", "label_fraction": 0.5}
    with pytest.raises(KilledError):
        distill(**run, cached=False, callbacks=[stop_at(1)])
    with pytest.raises(KilledError):
        distill(**run, cached=True, resume=True, callbacks=[stop_at(2)])
    assert len(list((tmp_path / "run" / "teacher-cache").iterdir())) == 1
    assert distill(**run, cached=True, resume=True) == []
    assert not (tmp_path / "run" / "teacher-cache").exists()
    check_equal(tmp_path / "run", uncached)
    assert distill(**run, cached=True, resume=True) == []


def test_two_devices_come_out_the_same(record_folder, teacher, tmp_path):
    options = {
        "devices": "cpu:2",
        "model": "networks_for_cache:build_wide",
        "projection": True,
        "feature_loss": "bidirectional",
        "gradient_accumulation": 2,
        "validation_fraction": 0.2,
        "views": 1,
        "epochs": 2,
    }
    for cached in (True, False):
        distill(record_folder, teacher, tmp_path / str(cached), cached=cached, **options)
    check_equal(tmp_path / "True", tmp_path / "False")


def test_clips_that_never_come_again_are_refused(record_folder, teacher, tmp_path):
    with pytest.raises(KdantError, match=r"every epoch draws new ones\. Add --views K"):
        distill(record_folder, teacher, tmp_path / "run", cached=True, views=0)
    assert not (tmp_path / "run").exists()
    features = write_features(Records.open(record_folder), tmp_path / "features", windows=2)
    job, _, _ = prepare(record_folder, tmp_path / "run", teacher, views=0)
    run = dataclasses.replace(job.run, features=features.manifest.features)
    with pytest.raises(KdantError, match="Add --views K"):
        check_views_are_fixed(dataclasses.replace(job, run=run), tf.distribute.get_strategy())


def test_several_workers_are_refused(record_folder, teacher, tmp_path):
    job, _, _ = prepare(record_folder, tmp_path / "run", teacher)
    workers = mock.Mock(spec=tf.distribute.MultiWorkerMirroredStrategy)
    with pytest.raises(KdantError, match="not with several workers"):
        check_views_are_fixed(job, workers)


def test_a_disk_without_room_is_refused_with_both_sizes(record_folder, teacher, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 10**5)
    monkeypatch.setattr("kdant_tf.training.teacher_cache.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(KdantError, match=r"20 pairs x 2 views, 1 MB would not fit .* has 1 MB free"):
        distill(record_folder, teacher, tmp_path / "run", cached=True)
    assert list((tmp_path / "run").iterdir()) == []
