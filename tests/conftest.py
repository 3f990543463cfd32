"""What all tests share: two logical CPU devices, one small record folder, the real data where present."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest
import tensorflow as tf
from hypothesis import settings

import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.synthetic import OFFSET_FRAMES, SyntheticSpec, read_synthetic
from tf_records.writer import build_records

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
settings.register_profile("kdant", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("kdant")

JHMDB = Path(__file__).resolve().parents[2] / "shared" / "data" / "jhmdb"


@pytest.fixture(scope="session")
def jhmdb() -> Path:
    """The folder of real JHMDB videos; tests that ask for it skip on machines without it."""
    if not JHMDB.is_dir():
        pytest.skip(f"no JHMDB videos in {JHMDB}")
    return JHMDB


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered videos with annotations.csv: 16 labelled and 4 unlabelled for training, 8 for testing."""
    folder = tmp_path_factory.mktemp("synthetic") / "videos"
    read_synthetic(folder, SyntheticSpec(train=16, unlabeled=4, test=8))
    return folder


@pytest.fixture(scope="session")
def record_folder(videos: Path) -> Path:
    """Records of `videos`: clips of 8 frames, offset 16, short side 64."""
    out = videos.parent / "records"
    options = BuildOptions(clip=ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES), short_side=64)
    build_records(read_synthetic(videos), out, options)
    return out


@pytest.fixture(scope="session")
def finished_run(record_folder: Path) -> Path:
    """A teacher's run folder with an untrained network, for what does not depend on its weights."""
    from kdant_tf.config import TrainConfig
    from kdant_tf.models.i3d import build_i3d
    from kdant_tf.runs import Run, manifest_sha256
    from tf_records.schema import load_manifest

    manifest = load_manifest(record_folder)
    run = Run(
        folder=record_folder.parent / "run",
        role="teacher",
        config=TrainConfig(width=0.0625, crop=32, epochs=1, batch_size=4),
        classes=manifest.classes,
        clip=manifest.clip,
        modality=manifest.modality,
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(record_folder),
    )
    run.folder.mkdir()
    run.save()
    build_i3d(len(run.classes), (8, 32, 32, 3), width=0.0625).save(run.model_path)
    return run.folder
