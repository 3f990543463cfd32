"""Building records against a plain PyAV loop that decodes, resizes and encodes the same frames.

    python tests/benchmarks/bench_building.py

Encodes videos first. Then, in turns, the loop in one process on one core, and `build_records` with one and
with two workers, their start, checksums and writing included. Prints one JSON object: seconds, and rates over
the loop's; targets on two free cores are 0.9 and 1.8.
"""

import argparse
import io
import json
import shutil
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tf_records.plan import BuildOptions
from tf_records.sources.csv_manifest import read_csv
from tf_records.sources.sample import Annotations
from tf_records.video_file import RESIZE, SWSCALE_FLAGS
from tf_records.writer import build_records

RATE = 30
TARGETS = {"one worker": 0.9, "two workers": 1.8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each video")
    parser.add_argument("--size", default="640x360", help="of the videos")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        width, height = map(int, options.size.split("x"))
        annotations = make_videos(folder, options.videos, round(options.seconds * RATE), width, height)
        build = BuildOptions(short_side=options.short_side, shards=options.shards)
        times: dict[str, list[float]] = {"loop": [], "one worker": [], "two workers": []}
        for _ in range(options.repeats):
            began_s = time.perf_counter()
            frames = loop(sorted(folder.glob("*.mp4")), options.short_side, build.jpeg_quality)
            times["loop"].append(time.perf_counter() - began_s)
            for workers, way in ((1, "one worker"), (2, "two workers")):
                times[way].append(time_build(annotations, folder / "records", build, workers))
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    print(
        json.dumps(
            {
                "settings": {**vars(options), "frames": frames, "resize": RESIZE},
                "seconds": times,
                "frames_per_second": {way: round(frames / seconds) for way, seconds in medians.items()},
                "rate_over_loop": {way: round(medians["loop"] / medians[way], 3) for way in TARGETS},
                "targets": TARGETS,
            }
        )
    )


def make_videos(folder: Path, count: int, frames: int, width: int, height: int) -> Annotations:
    """Textures that move, in H.264, each its own action of its whole length."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC))
    with av.open(str(folder / "00000.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.roll(texture, (number, 2 * number), axis=(0, 1))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    rows = ["video,start_s,end_s,label"]
    for number in range(count):
        if number > 0:
            shutil.copy(folder / "00000.mp4", folder / f"{number:05d}.mp4")
        rows.append(f"{number:05d}.mp4,0,{frames / RATE},{'ab'[number % 2]}")
    (folder / "rows.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return read_csv(folder / "rows.csv")


def loop(paths: list[Path], short_side: int, quality: int) -> int:
    """What one would write by hand; the JPEGs are not kept."""
    frames = 0
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            scale = short_side / min(stream.width, stream.height)
            size = round(stream.width * scale), round(stream.height * scale)
            for frame in container.decode(stream):
                rgb = frame.reformat(*size, "rgb24", interpolation=SWSCALE_FLAGS, threads=1).to_ndarray()
                Image.fromarray(rgb).save(io.BytesIO(), "JPEG", quality=quality)
                frames += 1
    return frames


def time_build(annotations: Annotations, out: Path, options: BuildOptions, workers: int) -> float:
    began_s = time.perf_counter()
    build_records(annotations, out, options, workers=workers)
    seconds = time.perf_counter() - began_s
    shutil.rmtree(out)
    return seconds


if __name__ == "__main__":
    main()
