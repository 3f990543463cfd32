"""kdant runs and kdant presets: what was trained, and the settings that ship with kdant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import FOLDER, KdantCommand, json_option

if TYPE_CHECKING:
    from kdant_tf.run_list import RunSummary


@click.command(
    "runs", cls=KdantCommand, short_help="List runs: how far they are, their settings and results."
)
@click.argument("folder", type=FOLDER, metavar="DIR")
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """List the runs in a folder: how far they are, in which settings they differ, and their results.

    Folders in it are looked into, three levels deep. Run folders that cannot be read come last, with the
    reason. Results of an earlier network, of before a run was trained further, are named as stale.
    """
    from kdant_tf.run_list import differing_settings, list_runs

    from .output import print_json

    found, broken = list_runs(folder)
    names = differing_settings(found)
    if as_json:
        faults = [{"run": str(each.folder), "reason": each.reason} for each in broken]
        print_json({"runs": [_to_dict(run, names) for run in found], "broken": faults})
        return
    _print(folder, found, names)
    for each in broken:
        click.echo(f"Cannot be read: {each.folder}: {each.reason}")


def _to_dict(summary: RunSummary, names: Sequence[str]) -> dict[str, Any]:
    return {
        "run": str(summary.run.folder),
        "role": summary.run.role,
        "state": summary.state,
        "epochs": len(summary.rows),
        "epochs_asked": summary.run.config.epochs,
        "settings": _pick(summary, names),
        "last": summary.last,
        "best": summary.best,
        "evaluation": summary.evaluation,
        "stale": list(summary.stale),
    }


def _print(folder: Path, found: Sequence[RunSummary], names: Sequence[str]) -> None:
    from .output import print_table

    rows = [
        (
            _describe_run(folder, summary),
            "\n".join(
                f"{name}={_format_setting(name, value)}" for name, value in _pick(summary, names).items()
            ),
            _describe_metrics(summary.last, summary.best),
            _describe_evaluation(summary),
        )
        for summary in found
    ]
    if rows:
        columns = ("run", "differs in", "metrics", "evaluated")
        print_table(
            f"{len(rows)} run{'' if len(rows) == 1 else 's'} in {folder}",
            columns,
            rows,
            left=len(columns),
            show_lines=True,
        )


def _describe_run(folder: Path, summary: RunSummary) -> str:
    path, run = summary.run.folder, summary.run
    name = path.name if path == folder else path.relative_to(folder)
    return f"{name}\n{run.role}\n{len(summary.rows)}/{run.config.epochs} epochs\n{summary.state}"


def _pick(summary: RunSummary, names: Sequence[str]) -> dict[str, Any]:
    """Its settings of these names, where it has them."""
    return {name: summary.settings[name] for name in names if name in summary.settings}


def _format_setting(name: str, value: Any) -> str:
    return str(value)[:8] if name == "records_sha256" else str(value)


def _describe_metrics(last: dict[str, float], best: dict[str, float]) -> str:
    """Of the last epoch, and the validation of the best one."""
    from .output import percent

    lines = [f"loss {last['loss']:.3f}", f"top-1 {percent(last['accuracy'])}"] if last else []
    if best:
        lines += [f"validation {percent(best['validation_accuracy'])}", f"  in epoch {best['epoch']}"]
    return "\n".join(lines)


def _describe_evaluation(summary: RunSummary) -> str:
    """Accuracies by view, and the ends of the curves that `kdant evaluate --observe` and so on keep."""
    from .output import percent

    lines = []
    for name, result in summary.evaluation.items():
        top1 = result.get("top1", result.get("mean_average_precision", []))
        if not isinstance(top1, list):
            lines.append(f"{name} {percent(top1)}")
        elif top1:
            first, last = top1[0], top1[-1]
            against = name.partition(",")[0]
            lines.append(f"{name} {first[against]:g} … {last[against]:g}:")
            lines.append(f"  {percent(first['value'])} … {percent(last['value'])}")
    if summary.stale:
        lines.append(f"stale: {', '.join(summary.stale)}")
    return "\n".join(lines)


@click.command("presets", cls=KdantCommand, short_help="List the presets, or show one.")
@click.argument("name", required=False)
@json_option
def presets(name: str | None, as_json: bool) -> None:
    """List the presets, or show one: its commands, what to expect of them, and its settings."""
    from kdant_tf.config import preset_names, preset_text

    from .output import print_fields, print_json

    if name is not None:
        text = preset_text(name)
        if as_json:
            print_json({"name": name, "text": text})
        else:
            click.echo(text, nl=False)
        return
    about = {each: _first_sentence(preset_text(each)) for each in preset_names()}
    if as_json:
        print_json({"presets": [{"name": each, "about": line} for each, line in about.items()]})
    else:
        print_fields("kdant presets NAME shows one; --preset NAME trains with it", about)


def _first_sentence(text: str) -> str:
    """The comment that a preset opens with, up to the first empty line of it, on one line."""
    lines = text.split("\n#\n", 1)[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)
