"""Times of models: tables, or one JSON object."""

import dataclasses
from collections.abc import Sequence

import click

from kdant_tf.serving.benchmark import Row, ThreadsResult
from kdant_tf.studies.hardware import describe_hardware

from .output import percent, print_json, print_table


def print_times(rows: Sequence[Row], threads: Sequence[ThreadsResult], clips: str, as_json: bool) -> None:
    """Prints what was measured with `clips`, in words."""
    hardware = describe_hardware()
    if as_json:
        times = {"rows": [row.to_dict() for row in rows], "threads": [dataclasses.asdict(r) for r in threads]}
        print_json({"hardware": hardware, "clips": clips, **times})
        return
    click.echo(f"{hardware['cpu']}, {hardware['cores']} cores; {clips}")
    models = list(dict.fromkeys(row.model for row in rows))
    for model in models:
        own = [row for row in rows if row.model == model]
        _print_model(f"{model}, compared with {models[0]}" if model != models[0] else model, own)
    if threads:
        _print_threads(threads)


def _print_model(title: str, rows: Sequence[Row]) -> None:
    compared = any(row.ratio is not None for row in rows)
    columns = ["signature", "clips", "p50 ms", "p90 ms", "p99 ms", "clips/s"]
    cells = [
        [
            row.signature,
            row.batch_size,
            *(f"{1000 * row.percentile_s(share):.1f}" for share in (50, 90, 99)),
            f"{row.clips_per_second:.1f}",
            *([f"{row.ratio:.2f}" if row.ratio is not None else ""] if compared else []),
        ]
        for row in rows
    ]
    print_table(title, columns + (["of first"] if compared else []), cells)
    fullest_first = sorted(rows, key=lambda row: -len(row.shares))
    parts = list(dict.fromkeys(part for row in fullest_first for part in row.shares))
    if parts:
        shares = [
            [
                row.signature,
                row.batch_size,
                *(percent(row.shares[part]) if part in row.shares else "" for part in parts),
            ]
            for row in rows
            if row.shares
        ]
        print_table("Shares of the median", ["signature", "clips", *parts], shares)


def _print_threads(results: Sequence[ThreadsResult]) -> None:
    print_table(
        "Clips a second, one clip a call",
        ("model", "1 thread", f"{results[0].threads} threads", "answers differ by"),
        [
            (each.model, f"{each.alone:.1f}", f"{each.together:.1f}", f"{each.largest_difference:.1g}")
            for each in results
        ],
    )
