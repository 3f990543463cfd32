"""`make bench`: how near the product's steps come to what this machine can do.

Every figure is a ratio of two times measured in turns in one run. A step stands against the time that its
convolutions and matrix products would take at the rate of a large float32 matrix product, which is measured
between the repeats.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console

import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)
from tf_records.start_tensorflow import start_tensorflow

PARTS = ("forward", "training", "distillation", "pooling", "peer")
# XLA takes many minutes to compile I3D's convolutions for a CPU, so it is measured only where asked for.
XLA = "xla"


def _parse_sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    sizes = tuple(int(part) if part.strip().isdigit() else 0 for part in value.split(","))
    if min(sizes) < 32:
        raise click.BadParameter(f"should be pixels from 32 on, such as 112,224. Received: {value!r}.")
    return sizes


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--only", multiple=True, type=click.Choice((*PARTS, XLA)), help="Measure this part; may be repeated."
)
@click.option("--sizes", default="112,224", show_default=True, callback=_parse_sizes, help="Pixels.")
@click.option("--batch-size", default=2, show_default=True, type=click.IntRange(1))
@click.option("--frames", default=8, show_default=True, type=click.IntRange(1))
@click.option("--width", default=1.0, show_default=True, help="Multiplies I3D's channels.")
@click.option("--positions", default=392, show_default=True, help="Of the pooling's maps.")
@click.option("--channels", default=832, show_default=True, help="Of the pooling's maps.")
@click.option("--pooling-batch", default=8, show_default=True, type=click.IntRange(1))
@click.option("--repeats", default=9, show_default=True, type=click.IntRange(1))
@click.option("--devices", default="cpu", show_default=True, help="cpu, or gpu:1.")
@click.option("--peer", type=click.Path(exists=True, path_type=Path), help="Folder with pytorch_i3d.py.")
@click.option(
    "--peer-python", default=sys.executable, help="Interpreter that has PyTorch; default: this one."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="File for the JSON; else stdout.")
def main(only: tuple[str, ...], json_path: Path | None, **settings: Any) -> None:
    """Measure, print a table on stderr and one JSON object on stdout."""
    if "peer" in only and settings["peer"] is None:
        raise click.UsageError("`--only peer` needs --peer.")
    start_tensorflow()
    from report import describe_machine, print_report

    machine = describe_machine()
    rows = _measure(frozenset(only or PARTS), **settings)
    # Piped, rich takes 80 columns, in which the table cannot be read.
    print_report(machine, rows, Console(stderr=True, width=None if sys.stderr.isatty() else 150))
    result = {
        "machine": machine,
        "settings": {
            name: str(value) if isinstance(value, Path) else value for name, value in settings.items()
        },
        "results": [row.to_dict() for row in rows],
    }
    if json_path is None:
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        json_path.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _measure(
    parts: frozenset[str],
    *,
    sizes: tuple[int, ...],
    batch_size: int,
    frames: int,
    width: float,
    positions: int,
    channels: int,
    pooling_batch: int,
    repeats: int,
    devices: str,
    peer: Path | None,
    peer_python: str,
) -> list[Any]:
    import tensorflow as tf
    from bench_i3d import STEPS, StepSettings, measure_steps, measure_whole_step_xla
    from bench_peer import measure_peer
    from bench_pooling import PoolingSettings, measure_pooling

    from kdant_tf.training.strategy import make_strategy

    if devices == "cpu":
        tf.config.set_visible_devices([], "GPU")
    strategy = make_strategy(devices)
    settings = StepSettings(batch_size=batch_size, frames=frames, width=width, repeats=repeats)
    rows = []
    steps = tuple(step for step in STEPS if step in parts)
    for pixels in sizes if steps else ():
        _tell(f"I3D at {pixels} pixels")
        rows += measure_steps(pixels, steps, settings, strategy)
    if "pooling" in parts:
        _tell("pooling")
        sizes_of_maps = {"batch_size": pooling_batch, "positions": positions, "channels": channels}
        rows += measure_pooling(PoolingSettings(**sizes_of_maps, repeats=repeats))
    if XLA in parts:
        _tell(f"whole-step XLA at {min(sizes)} pixels")
        rows.append(measure_whole_step_xla(min(sizes), settings))
    if "peer" in parts and peer is not None:
        _tell("PyTorch beside")
        rows += measure_peer(sizes, peer, peer_python, settings, strategy)
    return rows


def _tell(what: str) -> None:
    click.echo(f"measuring: {what}", err=True)


if __name__ == "__main__":
    main()
