"""What is fuzzed: functions that take any bytes and may raise nothing but KdantError, with their seeds."""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from kdant_tf.config import TEACHER, resolve_config
from tf_records.container import Limits
from tf_records.errors import KdantError
from tf_records.files import seal
from tf_records.manifest import Manifest, ShardInfo, SplitInfo, load_manifest
from tf_records.schema import ClipSpec
from tf_records.sources.csv_manifest import read_csv
from tf_records.sources.epic_kitchens import ACTIONS_NAME, INFO_NAME, VERBS_NAME, read_epic55
from tf_records.sources.jhmdb import read_jhmdb
from tf_records.sources.thumos14 import read_thumos14
from tf_records.tfrecord import RecordFile, encode_sequence_example
from tf_records.video import open_video
from tf_records.video_file import VideoFile

SHARD = "train-00000-of-00001.tfrecord"
LIMITS = Limits(max_pixels=2**18, max_seconds=60)
SIDE = 16


class Target(NamedTuple):
    """`check` puts bytes into a file below the folder and reads them; `seeds` are sound inputs."""

    check: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]


def small_video(container: str = "mp4") -> bytes:
    """Ten frames of 32x24 in a file of 4 kB."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(10):
            picture = np.full((24, 32, 3), 20 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def small_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "teal").save(file, "JPEG")
    return file.getvalue()


def small_record() -> bytes:
    context = {
        "clip/id": b"v@1",
        "clip/video": b"v",
        "clip/offset_frames": 2,
        "clip/label/index": 0,
        "clip/label/string": b"wave",
        "observed/start_s": 0.0,
        "future/start_s": 1.0,
        "image/frame_rate": 10.0,
        "image/height": SIDE,
        "image/width": SIDE,
        "image/channels": 3,
    }
    lists = {f"{view}/image/encoded": [small_jpeg()] for view in ("observed", "future")}
    return b"".join(encode_sequence_example(context, lists))


def shard_of(record: bytes) -> bytes:
    file = io.BytesIO()
    RecordFile(file).write([record], len(record))
    return file.getvalue()


def manifest_of(shard: bytes) -> Manifest:
    info = ShardInfo(
        file=SHARD,
        records=1,
        bytes=len(shard),
        sha256=hashlib.sha256(shard).hexdigest(),
        classes={"wave": 1},
        seconds=0.2,
    )
    return Manifest(
        dataset="csv",
        clip=ClipSpec(clip_frames=1, offset_frames=2),
        classes=("wave",),
        splits={"train": SplitInfo.of([info])},
        options={},
        fps=10.0,
        short_side=SIDE,
        jpeg_quality=75,
        plan_sha256="0" * 64,
    )


def check_csv(data: bytes, folder: Path) -> None:
    (folder / "v.mp4").write_bytes(VIDEO)
    (folder / "rows.csv").write_bytes(data)
    read_csv(folder / "rows.csv", limits=LIMITS)


EPIC = {
    ACTIONS_NAME: b"uid,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun,noun_class\n"
    b"0,P01,P01_01,00:00:01.0,00:00:02.0,0,door,8\n",
    VERBS_NAME: b"verb_id,class_key\n0,take\n",
    INFO_NAME: b"video,duration,fps\nP01_01,9.5,59.94\n",
}


def check_epic55(data: bytes, folder: Path) -> None:
    """The first byte chooses the file that the others replace."""
    names = list(EPIC)
    replaced = names[data[0] % len(names)] if data else None
    for name, content in EPIC.items():
        (folder / name).write_bytes(data[1:] if name == replaced else content)
    for target in ("verb", "action"):
        with contextlib.suppress(KdantError):
            read_epic55(folder, target, need_videos=False)


def check_thumos14(data: bytes, folder: Path) -> None:
    (folder / "Golf_val.txt").write_bytes(data)
    (folder / "Golf_test.txt").write_bytes(data.replace(b"validation", b"test"))
    read_thumos14(folder, lead_s=0.5, need_videos=False)


def check_jhmdb(data: bytes, folder: Path) -> None:
    for name in ("splits", "wave"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "wave" / "v.avi").touch()
    (folder / "splits" / "wave_test_split1.txt").write_bytes(data)
    read_jhmdb(folder)


def check_config(data: bytes, folder: Path) -> None:
    (folder / "settings.toml").write_bytes(data)
    resolve_config(TEACHER, file=folder / "settings.toml")


def check_manifest(data: bytes, folder: Path) -> None:
    """The bytes as they are, and with a checksum that fits them, so that what is behind it is reached."""
    for content in (data, seal(data.decode(errors="replace")).encode()):
        (folder / "manifest.json").write_bytes(content)
        with contextlib.suppress(KdantError):
            load_manifest(folder)


def check_records(data: bytes, folder: Path) -> None:
    """The bytes as a shard, and as a record within a sound one."""
    from tf_records.verify import find_damage

    for shard in (data, shard_of(data)):
        (folder / SHARD).write_bytes(shard)
        manifest = manifest_of(shard)
        list(find_damage(folder, manifest.shards, manifest))


def check_video(data: bytes, folder: Path) -> None:
    (folder / "video").write_bytes(data)
    with (
        contextlib.suppress(KdantError),
        open_video(folder / "video", limits=LIMITS, short_side=SIDE) as video,
    ):
        assert video.info.fps > 0
        list(video.stored())
    with (
        contextlib.suppress(KdantError),
        open_video(folder / "video", limits=LIMITS, short_side=SIDE) as video,
    ):
        assert isinstance(video, VideoFile)
        list(video.shown_at([0.0, 0.31, 0.32, 0.9]))


def check_frames(data: bytes, folder: Path) -> None:
    """A folder of frames in which one picture is the bytes."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for number, content in enumerate((small_jpeg(), data)):
        (pictures / f"frame_{number}.jpg").write_bytes(content)
    with open_video(pictures, limits=LIMITS, short_side=SIDE) as video:
        list(video.stored())


VIDEO = small_video()
MANIFEST = manifest_of(shard_of(small_record()))
SEALED = MANIFEST.to_json()
UNSEALED = json.dumps(dataclasses.asdict(MANIFEST), indent=1) + "\n"
TARGETS = {
    "csv": Target(
        check_csv,
        (b"video,start_s,end_s,label,split\nv.mp4,0.1,0.5,wave,train\n", b"video,start_s,end_s\n*.mp4,,\n"),
    ),
    "epic55": Target(
        check_epic55, tuple(bytes([place]) + content for place, content in enumerate(EPIC.values()))
    ),
    "thumos14": Target(check_thumos14, (b"video_validation_0000001  1.0 2.0\n",)),
    "jhmdb": Target(check_jhmdb, (b"v.avi 1\nw.avi 2\nx.avi 0\n",)),
    "config": Target(check_config, (b'epochs = 3\nmodel = "i3d"\nwidth = 0.25\n',)),
    "manifest": Target(check_manifest, (SEALED.encode(), UNSEALED.encode())),
    "records": Target(check_records, (small_record(), shard_of(small_record()))),
    "video": Target(check_video, tuple(map(small_video, ("mp4", "avi", "matroska", "mpegts")))),
    "frames": Target(check_frames, (small_jpeg(),)),
}


def run_target(name: str, data: bytes, folder: Path) -> None:
    """Raises whatever is not a KdantError."""
    with contextlib.suppress(KdantError):
        TARGETS[name].check(data, folder)


def mutations(seed: bytes, count: int) -> list[bytes]:
    """Simple ones, the same at every call: bytes changed, stretches cut out or doubled."""
    generator = np.random.default_rng(len(seed))
    made = []
    for kind in itertools.islice(itertools.cycle(("flip", "cut", "double")), count):
        content = bytearray(seed)
        first, last = sorted(generator.integers(0, len(seed) + 1, 2))
        if kind == "flip":
            for place in generator.integers(0, len(seed), 4):
                content[place] ^= int(generator.integers(1, 256))
        elif kind == "cut":
            del content[first:last]
        else:
            content[last:last] = content[first:last]
        made.append(bytes(content))
    return made
