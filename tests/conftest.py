"""What all tests share: two logical CPU devices, one small record folder, the real data where present."""

import dataclasses
import gc
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest
from hypothesis import settings

from tf_records.manifest import load_manifest
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.synthetic import OFFSET_FRAMES, SyntheticSpec, read_synthetic
from tf_records.start_tensorflow import start_tensorflow
from tf_records.writer import build_records

settings.register_profile("kdant", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("kdant")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
JHMDB = DATA / "jhmdb"


def pytest_configure(config: pytest.Config) -> None:
    """Starts TensorFlow with two CPU devices, but in the process that only deals tests out to others."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return
    start_tensorflow()
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there by now stays: no search for garbage has to go through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _auto_xla_is_off() -> Iterator[None]:
    """XLA compiles a feature loss for 3 s: that is for test_xla.py, and trainings in other processes."""
    from kdant_tf.training import assembly
    from kdant_tf.training.strategy import NOTHING, choose_xla

    def choose(choice: str, strategy: Any) -> str:
        return NOTHING if choice == "auto" else choose_xla(choice, strategy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "choose_xla", choose)
        yield


@pytest.fixture(scope="session")
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """A block in which no file takes a byte, whoever one is: the error is EFBIG in place of ENOSPC."""

    @contextmanager
    def fill() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return fill


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """Mounts on `folder` for the block, as only root may, and not in every container."""
    command = ["mount", *arguments, str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def read_only() -> Callable[[Path], AbstractContextManager[None]]:
    """A block in which nothing in a folder can be written, by mounting it for root, whom no mode binds."""

    @contextmanager
    def protect(folder: Path) -> Iterator[None]:
        if os.geteuid() == 0:
            with mounted(folder, "--bind", "-o", "ro", str(folder)):
                yield
            return
        modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
        try:
            for path, mode in modes.items():
                path.chmod(mode & ~0o222)
            yield
        finally:
            for path, mode in modes.items():
                path.chmod(mode)

    return protect


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder of a disk on which folders and empty files can be made, and no byte be written."""
    folder = tmp_path / "full"
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", "size=4k", "tmpfs"):
        (folder / ".filling").write_bytes(bytes(4096))
        yield folder


@pytest.fixture(scope="session")
def jhmdb() -> Path:
    """The folder of real JHMDB videos; tests that ask for it skip on machines without it."""
    if not JHMDB.is_dir():
        pytest.skip(f"no JHMDB videos in {JHMDB}")
    return JHMDB


@pytest.fixture(scope="session")
def field() -> Path:
    """The folder of small files, one for each kind of fault that users report of video tools."""
    if not (DATA / "field").is_dir():
        pytest.skip(f"no files in {DATA / 'field'}")
    return DATA / "field"


@pytest.fixture(scope="session")
def epic55() -> Path:
    """The folder of EPIC-KITCHENS-55's real annotations, without video."""
    if not (DATA / "epic55").is_dir():
        pytest.skip(f"no annotations in {DATA / 'epic55'}")
    return DATA / "epic55"


@pytest.fixture(scope="session")
def thumos14() -> Path:
    """The folder of THUMOS14's real annotations, without video."""
    if not (DATA / "thumos14").is_dir():
        pytest.skip(f"no annotations in {DATA / 'thumos14'}")
    return DATA / "thumos14"


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered videos with annotations.csv: 16 labelled and 4 unlabelled for training, 8 for testing."""
    folder = tmp_path_factory.mktemp("synthetic") / "videos"
    read_synthetic(folder, SyntheticSpec(train=16, unlabeled=4, test=8))
    return folder


@pytest.fixture(scope="session")
def jhmdb_layout(videos: Path) -> Callable[..., None]:
    """Copies rendered videos into JHMDB's layout: of two classes some to train on and some to test."""

    def lay_out(root: Path, *, split: int, train: int, test: int) -> None:
        (root / "splits").mkdir(parents=True)
        files = iter(sorted(videos.glob("*.mp4")))
        for name in ("golf", "walk"):
            (root / name).mkdir()
            lines = []
            for index in range(train + test):
                video = f"{name}_{index}.avi"
                shutil.copy(next(files), root / name / video)
                lines.append(f"{video} {1 if index < train else 2}\n")
            (root / "splits" / f"{name}_test_split{split}.txt").write_text("".join(lines))

    return lay_out


@pytest.fixture(scope="session")
def record_folder(videos: Path) -> Path:
    """Records of `videos`: clips of 8 frames, offset 16, short side 64."""
    out = videos.parent / "records"
    options = BuildOptions(clip=ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES), short_side=64)
    build_records(read_synthetic(videos), out, options)
    return out


@pytest.fixture(scope="session")
def edit_manifest() -> Callable[..., None]:
    """Rewrites a record folder's manifest with other fields, as a builder would have written it."""

    def edit(folder: Path, **changes: Any) -> None:
        manifest = dataclasses.replace(load_manifest(folder), **changes)
        (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")

    return edit


def save_teacher(records: Path, folder: Path) -> Any:
    """A new run folder of a teacher, without its network: a `Run`."""
    from kdant_tf.config import TrainConfig
    from kdant_tf.runs import Run, manifest_sha256

    manifest = load_manifest(records)
    run = Run(
        folder=folder,
        role="teacher",
        config=TrainConfig(width=0.0625, crop=32, epochs=1, batch_size=4),
        classes=manifest.classes,
        clip=manifest.clip,
        modality=manifest.modality,
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(records),
        dataset=manifest.dataset,
        fps=manifest.fps,
    )
    run.folder.mkdir()
    run.save()
    return run


@pytest.fixture(scope="session")
def finished_run(record_folder: Path) -> Path:
    """A teacher's run folder with an untrained network, for what does not depend on its weights."""
    import keras

    from kdant_tf.models.i3d import build_i3d

    run = save_teacher(record_folder, record_folder.parent / "run")
    # Seeded, since tests count what the network happens to be right about.
    keras.utils.set_random_seed(0)
    build_i3d(len(run.classes), (8, 32, 32, 3), width=0.0625).save(run.model_path)
    return run.folder


@pytest.fixture(scope="session")
def tiny_run(record_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a network of one convolution, which is made and exported in a second."""
    import keras
    from tiny_network import build

    run = save_teacher(record_folder, tmp_path_factory.mktemp("run") / "tiny")
    keras.utils.set_random_seed(0)
    build(4, (8, 32, 32, 3)).save(run.model_path)
    return run.folder


@pytest.fixture(scope="session")
def swapped_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run that says it was trained to another network than it has."""
    from kdant_tf.runs import load_run

    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("run") / "swapped")
    dataclasses.replace(load_run(folder), network_sha256="0" * 64).save()
    return folder


@pytest.fixture(scope="module")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Settings that choose the network of one convolution, which other processes find, too."""
    path = tmp_path_factory.mktemp("settings") / "network.toml"
    path.write_text('model = "tiny_network:build"\n', "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield path


@pytest.fixture(scope="session")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder of the tiny run."""
    from kdant_tf.serving.export import export_run

    return export_run(tiny_run, tmp_path_factory.mktemp("exported") / "served").folder


@pytest.fixture(scope="session")
def _loaded(exported: Path) -> Any:
    # `make test-beam` has neither gRPC's messages nor a use for them.
    from model_server import ServedModel

    return ServedModel(exported)


@pytest.fixture
def served(_loaded: Any) -> Iterator[Any]:
    """The exported model as a server has it, with nothing going wrong yet: a `ServedModel`."""
    yield _loaded
    _loaded.faults.clear()
    _loaded.asked.clear()
    _loaded.gate.set()


def build_tiny_backbone(*, include_top: bool, weights: str | None, input_shape: tuple[int, ...]) -> Any:
    """Stands in for a network of keras.applications; its ImageNet weights are 0.01 everywhere."""
    import keras
    from keras import layers

    assert not include_top
    frames = layers.Input(input_shape)
    x = layers.Conv2D(8, 3, 4, padding="same", name="conv")(frames)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.AveragePooling2D(4, name="pool")(layers.ReLU(name="relu")(x))
    network = keras.Model(frames, x, name="tiny")
    if weights is not None:
        network.set_weights([0.01 + 0 * value for value in network.get_weights()])
    return network


@pytest.fixture(scope="session")
def tiny_backbone() -> Iterator[str]:
    """Name of a backbone of one convolution, for trainings that would take minutes with a real one."""
    from kdant_tf.models.baselines import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "Tiny", BACKBONES["ResNet50"]._replace(build=build_tiny_backbone))
        yield "Tiny"


@pytest.fixture(scope="session")
def stopped_after_first_epoch() -> Callable[[Path, Path], Path]:
    """Copies a run of two epochs to another folder as it was when the first one had ended."""

    def copy(run: Path, to: Path) -> Path:
        shutil.copytree(run, to)
        for path in (*to.glob("*.keras"), to / "curves.png"):
            path.unlink()
        _, last = sorted((to / "checkpoints").iterdir())
        shutil.rmtree(last)
        return to

    return copy
