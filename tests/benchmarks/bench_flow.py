"""Milliseconds a frame of each flow algorithm on a real video, beside the JPEG of its RGB.

They are of one core's processor time: flow runs on one thread, and other work then counts for little.
"""

import itertools
import statistics
import time
from pathlib import Path

import click

from tf_records.encode import FrameEncoder
from tf_records.flow import ALGORITHMS, describe_flow
from tf_records.plan import BuildOptions
from tf_records.video import open_video


@click.command()
@click.argument("video", type=click.Path(exists=True, path_type=Path))
@click.option("--short-side", default=256, show_default=True)
@click.option("--frames", default=10, show_default=True, type=click.IntRange(1), help="To measure.")
def main(video: Path, short_side: int, frames: int) -> None:
    """Print a line for each algorithm, its two JPEGs included; they take turns frame by frame."""
    with open_video(video, short_side=short_side) as opened:
        shown = list(itertools.islice(opened.stored(), frames + 1))
    options = {"JPEG of RGB": BuildOptions()}
    for name in ALGORITHMS:
        options[name] = BuildOptions(modality="flow", flow=describe_flow(name))
    encoders = {name: FrameEncoder(each) for name, each in options.items()}
    seconds: dict[str, list[float]] = {name: [] for name in options}
    for number, frame in enumerate(shown):
        for name, encoder in encoders.items():
            start = time.process_time()
            encoder.encode(number, frame)
            seconds[name].append(time.process_time() - start)
            encoder.remember(number, frame)
    height, width, _ = shown[0].shape
    click.echo(f"{video.name}, {width}x{height}, {len(shown) - 1} frames")
    for name, values in seconds.items():
        del values[0]  # Nothing leads to the first frame.
        median, least, most = (1000 * f(values) for f in (statistics.median, min, max))
        click.echo(f"{name:>12}: median {median:7.1f} ms a frame, {least:.1f} to {most:.1f}")


if __name__ == "__main__":
    main()
