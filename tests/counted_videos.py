"""Videos whose frames tell their number, in every container and with every oddity of it that is tested."""

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import tensorflow as tf
from PIL import Image

from kdant_tf.anticipation.anticipate import Resampler
from kdant_tf.anticipation.sources import open_source
from tf_records import schema
from tf_records.manifest import Manifest, load_manifest
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.sample import Annotations, Sample
from tf_records.tfrecord import read_records
from tf_records.writer import build_records

WIDTH, HEIGHT, RATE = 128, 96, 25
_PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}


def draw_number(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Bit b of 12 makes block b of 4 x 3 bright, row by row: uint8 `(height, width, 3)`."""
    bits = np.array([number >> bit & 1 for bit in range(12)], np.uint8).reshape(3, 4)
    blocks = np.kron(bits * 200 + 28, np.ones((height // 3, width // 4), np.uint8))
    return np.repeat(blocks[..., None], 3, axis=2)


def read_number(frame: np.ndarray) -> int:
    """The number that a frame of any size shows."""
    grey = np.asarray(frame, float).mean(axis=2)
    height, width = grey.shape
    blocks = [
        grey[int((row + 0.4) * height / 3) : int((row + 0.6) * height / 3) + 1][
            :, int((column + 0.4) * width / 4) : int((column + 0.6) * width / 4) + 1
        ].mean()
        for row in range(3)
        for column in range(4)
    ]
    return sum(1 << bit for bit, level in enumerate(blocks) if level > 118)


def encode(
    path: Path,
    numbers: Iterable[int],
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rate: int = RATE,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    gop: int = 50,
    b_frames: int = 2,
    first_s: float = 0.0,
    sound: tuple[str, float] | None = None,
    format: str | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Writes frames of `numbers` from `first_s` on, and sound of a codec and length from 0 on."""
    with av.open(str(path), "w", format=format, options=muxer or {}) as container:
        heard = add_sound(container, sound[0]) if sound else None
        stream = add_video(container, codec, rate, size, gop, b_frames, options or {})
        packets = list(encode_frames(stream, numbers, rate, size, round(first_s * rate)))
        if heard is not None and sound is not None:
            packets += encode_silence(heard, sound[1])
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def add_video(
    container: av.container.OutputContainer,
    codec: str,
    rate: int = RATE,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    gop: int = 50,
    b_frames: int = 2,
    options: dict[str, str] | None = None,
) -> av.VideoStream:
    own = {"preset": "veryfast", "bf": str(b_frames), "b_strategy": "0"} if codec == "libx264" else {}
    stream = container.add_stream(codec, rate=rate, options={**own, **(options or {})})
    stream.width, stream.height = size
    stream.pix_fmt = _PIXELS.get(codec, "yuv420p")
    stream.codec_context.thread_count = 1
    stream.gop_size = gop
    if codec != "libx264":
        stream.bit_rate = 2_000_000
        if b_frames and codec.startswith("mpeg"):
            stream.codec_context.max_b_frames = b_frames
    return stream


def encode_frames(
    stream: av.VideoStream, numbers: Iterable[int], rate: int, size: tuple[int, int], first: int = 0
) -> Iterable[av.Packet]:
    for place, number in enumerate(numbers):
        frame = av.VideoFrame.from_ndarray(draw_number(number, *size), format="rgb24")
        frame.pts, frame.time_base = first + place, Fraction(1, rate)
        yield from stream.encode(frame)
    yield from stream.encode()


def add_sound(container: av.container.OutputContainer, codec: str) -> av.AudioStream:
    stream = container.add_stream(codec, rate=48000)
    stream.layout = "mono"
    return stream


def encode_silence(stream: av.AudioStream, seconds: float) -> list[av.Packet]:
    packets = []
    size = stream.codec_context.frame_size or 1024
    for start in range(0, round(seconds * 48000), size):
        kind = stream.codec_context.format.name
        dtype = np.float32 if kind.startswith("flt") else np.int16
        samples = av.AudioFrame.from_ndarray(np.zeros((1, size), dtype), format=kind, layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 48000, start, Fraction(1, 48000)
        packets += stream.encode(samples)
    return packets + list(stream.encode())


def remux(source: Path, path: Path) -> Path:
    """Copies the packets into another container, stamps and all."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


def pack(path: Path, numbers: Iterable[int]) -> Path:
    """MPEG-4 in an AVI as DivX and XviD packed it: a frame and the one shown before it share a chunk."""
    with av.open(str(encode(path, numbers, codec="mpeg4", b_frames=1))) as plain:
        stream = plain.streams.video[0]
        frames = [bytes(packet) for packet in plain.demux(stream) if packet.size]
        start = frames[0].find(b"\0\0\1\xb6")
        chunks = [frames[0][:start] + b"\0\0\1\xb2DivX503b1393p" + frames[0][start:]]
        for frame in frames[1:]:
            is_b = frame[frame.find(b"\0\0\1\xb6") + 4] >> 6 == 2
            # In the place of the frame that moved into the chunk before, one that is not coded.
            chunks += [chunks.pop() + frame, b"\0\0\1\xb6\x50\0\0\x7f"] if is_b else [frame]
        packed = path.with_name(f"packed_{path.name}")
        with av.open(str(packed), "w") as container:
            copy = container.add_stream_from_template(stream)
            for number, chunk in enumerate(chunks):
                packet = av.Packet(chunk)
                packet.stream, packet.time_base = copy, Fraction(1, RATE)
                packet.pts = packet.dts = number
                packet.is_keyframe = chunk.startswith(b"\0\0\1\xb0")
                container.mux(packet)
    return packed


def numbers_of(serialized: bytes, view: str) -> list[int]:
    """The numbers of a record's frames."""
    lists = tf.train.SequenceExample.FromString(serialized).feature_lists.feature_list
    jpegs = [each.bytes_list.value[0] for each in lists[schema.VIEW_IMAGES[view]].feature]
    return [read_number(np.asarray(Image.open(io.BytesIO(jpeg)))) for jpeg in jpegs]


def build(
    folder: Path, video: Path, times: Iterable[tuple[float, float] | None], **options: object
) -> tuple[list[list[int]], Manifest]:
    """What the records hold of each action, None being the whole video, and their manifest."""
    samples = [
        Sample(
            id=f"{number}",
            video=video.name,
            path=str(video),
            split="test",
            label="wave",
            start_s=None if each is None else each[0],
            end_s=None if each is None else each[1],
        )
        for number, each in enumerate(times)
    ]
    annotations = Annotations(dataset="made", samples=tuple(samples), classes=("wave",))
    settings = {"clip": ClipSpec(clip_frames=4, offset_frames=4), "short_side": 48, "jpeg_quality": 90}
    build_records(annotations, folder, BuildOptions(**{**settings, **options}))
    (shard,) = folder.glob("test-*.tfrecord")
    return [numbers_of(record, schema.FUTURE) for record in read_records(shard)], load_manifest(folder)


def predicted(path: Path, fps: float | None) -> list[tuple[int, int]]:
    """Each tick for which predict is given a frame, and the frame's number."""
    source = open_source(str(path))
    resampler = Resampler(source.rate or 0.0, fps)
    shown = [pair for timed in source.frames() for pair in resampler.push(timed)]
    shown += resampler.finish()
    assert source.problems() == []
    return [(tick, read_number(frame.to_ndarray(format="rgb24"))) for tick, frame in shown]
