"""Every format and precision of an export, side by side: latency, size, and what it names rightly.

    at="--source csv --input annotations.csv"
    kdant build-records $at --clip-frames 8 --short-side 128 --out records-8
    kdant build-records $at --clip-frames 8 --short-side 256 --out records-8-large
    kdant build-records $at --clip-frames 16 --short-side 256 --out records-16
    python tests/benchmarks/bench_formats.py FOLDER --records records-8 --records records-8-large \
        --records records-16 --records OF_RUN --trained RUN

Makes in FOLDER what is not there yet: runs with random weights (those of bench_inference.py), and an export
of each in each format and precision whose packages are installed. Then it times all exports of a network in
turns, one clip a call, and prints a table of Markdown. Accuracy is that of `kdant export`: of one clip in the
middle of each of up to 200 test records, so it says something for `--trained` runs alone.
"""

import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from bench_inference import build

import kdant_tf  # noqa: F401  (before TensorFlow: it turns oneDNN on)
from tf_records.start_tensorflow import start_tensorflow

_NETWORKS = ("i3d-8x112", "i3d-16x224", "tsn-MobileNetV2")
_PRECISIONS = ("float32", "bfloat16", "float16", "int8")
_ASPECT = 4 / 3
_WARM_UPS = 2
# Seconds that one export is timed for at most, once it was asked so often.
_MOST_S, _LEAST_CALLS = 8.0, 3


def make_run(name: str, folder: Path, records: Sequence[Path]) -> tuple[Path, Path]:
    """A run folder of a random network, and the records of its clip length with the smallest frames."""
    from kdant_tf.config import TrainConfig
    from kdant_tf.runs import Run, manifest_sha256
    from tf_records.manifest import load_manifest

    kind, _, size = name.partition("-")
    frames, crop = (int(number) for number in size.split("x")) if kind == "i3d" else (8, 224)
    fitting = {
        path: manifest
        for path in records
        if (manifest := load_manifest(path)).clip.clip_frames == frames and manifest.short_side >= crop
    }
    if not fitting:
        raise click.UsageError(f"{name} needs --records of {frames} frames of {crop} pixels or more.")
    path = min(fitting, key=lambda each: fitting[each].short_side)
    manifest = fitting[path]
    run = Run(
        folder=folder / name / "run",
        role="teacher",
        config=TrainConfig(model=kind, crop=crop, clip_frames=frames),
        classes=manifest.classes,
        clip=manifest.clip,
        modality=manifest.modality,
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(path),
        fps=manifest.fps,
    )
    if not run.model_path.is_file():
        run.folder.mkdir(parents=True, exist_ok=True)
        run.save()
        build(name, classes=len(manifest.classes)).save(run.model_path)
    return run.folder, path


def export_all(
    run: Path, records: Path, folder: Path, precisions: Sequence[str]
) -> dict[tuple[str, str], Path | str]:
    """(format, precision) → the folder of its versions, or why there is none."""
    from kdant_tf.serving.export import export_run
    from kdant_tf.serving.formats import FORMATS, INT8, check_installed
    from tf_records.errors import KdantError

    found: dict[tuple[str, str], Path | str] = {}
    for name, each in FORMATS.items():
        for precision in (one for one in each.precisions if one in precisions):
            out = folder / f"{name}-{precision}"
            try:
                check_installed(name, writing=True, precision=precision)
                if not (out / "1").is_dir():
                    began_s = time.perf_counter()
                    calibration = records if precision == INT8 else None
                    export_run(
                        run, out, format=name, precision=precision, records=records, calibration=calibration
                    )
                    click.echo(f"  {out} in {time.perf_counter() - began_s:.0f} s", err=True)
                found[name, precision] = out
            except KdantError as error:
                found[name, precision] = str(error)
                click.echo(f"  {out}: {error}", err=True)
    return found


def time_all(folders: Sequence[Path], calls: int) -> dict[Path, list[float]]:
    """Seconds of each call, in turns."""
    from kdant_tf.serving.benchmark import draw_clips
    from kdant_tf.serving.model import load_model

    models = {folder: load_model(folder) for folder in folders}
    seconds: dict[Path, list[float]] = {folder: [] for folder in folders}
    clips = {
        folder: draw_clips(model, 1, model.short_side, round(model.short_side * _ASPECT))
        for folder, model in models.items()
    }
    for turn in range(_WARM_UPS + calls):
        for folder, model in models.items():
            own = seconds[folder]
            if len(own) >= _LEAST_CALLS and sum(own) > _MOST_S:
                continue
            began_s = time.perf_counter()
            model.probabilities(clips[folder])
            if turn >= _WARM_UPS:
                own.append(time.perf_counter() - began_s)
    return seconds


def print_table(title: str, exports: dict[tuple[str, str], Path | str], seconds: Any) -> list[dict[str, Any]]:
    """Rows of Markdown; returns them for JSON."""
    rows = []
    for (name, precision), out in exports.items():
        if isinstance(out, str):
            click.echo(f"| {title} | `{name}` | `{precision}` | | | | | |")
            continue
        parity = json.loads((out / "1" / "config.json").read_text())["parity"]
        megabytes = sum(path.stat().st_size for path in (out / "1").rglob("*") if path.is_file()) / 1e6
        row = {
            "network": title,
            "format": name,
            "precision": precision,
            "median_ms": 1000 * statistics.median(seconds[out]),
            "least_ms": 1000 * min(seconds[out]),
            "megabytes": megabytes,
            **parity,
        }
        rows.append(row)
        # In float32 four clips are enough to see that it is the run's network.
        known = precision != "float32" and title not in _NETWORKS and parity["accuracy"] is not None
        accuracy = f"{100 * parity['accuracy']:.1f} % of {100 * parity['run_accuracy']:.1f}" if known else ""
        same = f"{100 * parity['same_top1']:.1f} %" if precision != "float32" else ""
        click.echo(
            f"| {title} | `{name}` | `{precision}` | {row['median_ms']:.1f} | {row['least_ms']:.1f} "
            f"| {megabytes:.1f} | {accuracy} | {same} |"
        )
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--network", "names", multiple=True, type=click.Choice(_NETWORKS), default=_NETWORKS)
@click.option("--records", multiple=True, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--trained", multiple=True, type=click.Path(path_type=Path, exists=True), help="Finished runs.")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(_PRECISIONS), default=_PRECISIONS)
@click.option("--calls", default=12, show_default=True, type=click.IntRange(1))
@click.option("--make-only", is_flag=True, help="Make runs and exports, and time nothing.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the rows here.")
def main(
    folder: Path,
    names: tuple[str, ...],
    records: tuple[Path, ...],
    trained: tuple[Path, ...],
    precisions: tuple[str, ...],
    calls: int,
    make_only: bool,
    json_path: Path | None,
) -> None:
    """Latency, size and accuracy of every format and precision."""
    start_tensorflow()
    from report import describe_machine

    from kdant_tf.runs import load_run, manifest_sha256

    machine = describe_machine()
    click.echo(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']:.2f} before")
    runs = {name: make_run(name, folder, records) for name in names}
    for path in trained:
        wanted = load_run(path).records_sha256
        fitting = [each for each in records if manifest_sha256(each) == wanted]
        if not fitting:
            raise click.UsageError(f"{path} was trained on none of --records.")
        runs[path.name] = (path, fitting[0])
    rows = []
    if not make_only:
        click.echo("| | format | precision | median ms | least ms | MB | top-1 | named as by the run |")
        click.echo("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for title, (run, own) in runs.items():
        exports = export_all(run, own, folder / title, precisions)
        if not make_only:
            folders = [out for out in exports.values() if isinstance(out, Path)]
            rows += print_table(title, exports, time_all(folders, calls))
    if json_path is not None:
        json_path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
