"""Building records against a plain PyAV loop that decodes, resizes and encodes the same frames.

    python tests/benchmarks/bench_building.py

Encodes videos first. Then, in turns, the loop in one process on one core, and `build_records` with one and
with two workers, their start, checksums and writing included. Prints one JSON object: seconds by the wall
clock and of all processors, and the median over the turns of the rates over the loop's; targets by the wall
clock on two free cores are 0.9 and 1.8.
"""

import argparse
import io
import json
import resource
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
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
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each video")
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
        out = folder / "records"
        ways: dict[str, Callable[[], object]] = {
            "loop": lambda: loop(sorted(folder.glob("*.mp4")), options.short_side, build.jpeg_quality),
            "one worker": lambda: build_records(annotations, out, build, workers=1),
            "two workers": lambda: build_records(annotations, out, build, workers=2),
        }
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way, run in ways.items():
                taken[way].append(take_time(run))
                shutil.rmtree(out, ignore_errors=True)
    frames = options.videos * round(options.seconds * RATE)
    print(
        json.dumps(
            {
                "settings": {**vars(options), "frames": frames, "resize": RESIZE},
                "seconds": {way: [wall for wall, _ in each] for way, each in taken.items()},
                "processor_seconds": {way: [cpu for _, cpu in each] for way, each in taken.items()},
                "rate_over_loop": {way: median_ratio(taken["loop"], taken[way], 0) for way in TARGETS},
                "rate_by_processor": {way: median_ratio(taken["loop"], taken[way], 1) for way in TARGETS},
                "targets": TARGETS,
            }
        )
    )
    for way, target in TARGETS.items():
        rate = median_ratio(taken["loop"], taken[way], 0)
        verdict = "met" if rate >= target else "not met"
        print(f"{way}: {rate:.2f} of the loop's rate, target ≥ {target}: {verdict}", file=sys.stderr)


def take_time(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall clock, and of the processors, those of workers that have ended included."""
    began = time.perf_counter(), _processor_s()
    run()
    return round(time.perf_counter() - began[0], 3), round(_processor_s() - began[1], 3)


def _processor_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def median_ratio(loop_s: list[tuple[float, float]], way_s: list[tuple[float, float]], place: int) -> float:
    """Of times taken in turns, so that what else the machine does meets both."""
    ratios = [one[place] / other[place] for one, other in zip(loop_s, way_s, strict=True)]
    return round(statistics.median(ratios), 3)


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
            path = folder / f"{number:05d}.mp4"
            shutil.copy(folder / "00000.mp4", path)
            # Else it would be the same video under another name.
            with path.open("ab") as file:
                file.write(struct.pack(">I4s", 8 + number, b"free") + bytes(number))
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


if __name__ == "__main__":
    main()
