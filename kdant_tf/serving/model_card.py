"""What an exported version says of itself to people: model_card.md. No TensorFlow."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from kdant_tf.evaluation.predictions import (
    EvaluatedRun,
    describe_differences,
    evaluate_command,
    flatten_settings,
    read_config,
    read_evaluated,
)
from kdant_tf.runs import Run, flow_from, stale_results
from tf_records.heads import heads_from

if TYPE_CHECKING:
    from kdant_tf.serving.signatures import Stream

CARD_NAME = "model_card.md"
_NAMES = {"rgb": "RGB", "flow": "optical flow"}


def write_card(streams: Sequence[Stream], config: Mapping[str, Any]) -> str:
    """The card in Markdown: what goes in and comes out, data, evaluation, use, limits, settings.

    Args:
        streams: RGB first.
        config: what config.json of the version says.

    Raises:
        RunError: a run's evaluation.json cannot be read.
    """
    runs = [stream.run for stream in streams]
    sections = {
        "What goes in and what comes out": _interface(config),
        "Data": _data(runs),
        "Evaluation": _evaluation(runs),
        "Intended use": _use(config),
        "Limits": _limits(config, streams),
        **{f"Settings of {run.folder.resolve().name}": _settings(run) for run in runs},
    }
    parts = [f"## {title}\n\n{text}\n" for title, text in sections.items()]
    return f"# {_title(config)}\n\n{_summary(streams, config)}\n\n" + "\n".join(parts)


def _title(config: Mapping[str, Any]) -> str:
    does = "Anticipates" if config["anticipates"] else "Recognizes"
    return f"{does} {len(config['classes'])} actions in video"


def _summary(streams: Sequence[Stream], config: Mapping[str, Any]) -> str:
    networks = " and ".join(
        f"{stream.run.config.model} on {_NAMES[stream.run.modality]}" for stream in streams
    )
    fps = config["clip"]["fps"]
    rate = "an unknown number of" if fps is None else f"{fps:g}"
    weights = ", ".join(f"{stream.weight:g}" for stream in streams)
    added = f" Their logits are added with weights {weights}." if len(streams) > 1 else ""
    return (
        f"A {config['role']}, {networks}, exported by kdant {config['kdant']}.{added} It sees clips of "
        f"{config['clip']['clip_frames']} frames at {rate} frames per second. {_offset(config)}"
    )


def _offset(config: Mapping[str, Any]) -> str:
    clip, offset_s = config["clip"], config["offset_s"]
    if not config["anticipates"]:
        return "It names the action that the clip shows."
    if offset_s is None:
        distance = (
            f"{clip['offset_frames']} frames after the clip's first frame"
            if clip["anticipation_s"] is None
            else f"{clip['anticipation_s']:g} s after the clip's last frame"
        )
        return f"It names the action that is expected {distance}."
    return f"It names the action that is expected {offset_s:.3g} s after the clip's first frame."


def _interface(config: Mapping[str, Any]) -> str:
    rows = [
        (f"`{name}`", _tensors(signature["inputs"]), _tensors(signature["outputs"]))
        for name, signature in config["signatures"].items()
    ]
    table = _table(("signature", "inputs", "outputs"), rows) + "\n\n" if rows else ""
    heads = heads_from(config.get("heads"))
    if len(heads) > 1:
        own = "\n".join(f"- {head.name}: {', '.join(head.classes)}." for head in heads)
        return f"{table}`probabilities` are those of each head's classes, one head after the other:\n\n{own}"
    several = " A clip may have several: each probability is for itself." if heads else ""
    return f"{table}Classes, in index order: {', '.join(config['classes'])}.{several}"


def _tensors(tensors: Mapping[str, Any]) -> str:
    return ", ".join(
        f"`{name}` {tensor['dtype']} ({', '.join('?' if n is None else str(n) for n in tensor['shape'])})"
        for name, tensor in tensors.items()
    )


def _data(runs: Sequence[Run]) -> str:
    rows = [
        (
            run.folder.resolve().name,
            "unknown" if run.dataset is None else run.dataset,
            f"{run.short_side} pixels",
            f"{100 * run.config.label_fraction:g} %",
            run.records_sha256[:16],
        )
        for run in runs
    ]
    columns = ("run", "data set", "short side", "labels used", "manifest's sha256, first 16 digits")
    other = [run.folder.resolve().name for run in runs if run.has_other_network]
    note = f"\n\nNot of the network exported, which was put into its run later: {', '.join(other)}."
    return _table(columns, rows) + note * bool(other)


def _evaluation(runs: Sequence[Run]) -> str:
    found, stale = [], []
    for run in runs:
        found += read_evaluated(run, run.folder.resolve().name)
        stale += [f"{run.folder.resolve().name}, {view}" for view in stale_results(run.folder)]
    if not found:
        made = f"Only of an earlier network ({'; '.join(stale)})" if stale else "None was made"
        return f"{made}. `{evaluate_command(Path(runs[0].folder.resolve().name))}`"
    columns = (
        *("run", "segment seen", "split", "samples", "windows"),
        *("top-1", "top-5", "mean class accuracy", "calibration error"),
        *(("mean average precision",) if any(each.several for each in found) else ()),
    )
    note = (
        "Brackets hold 95 % intervals, bootstrapped over videos. Evaluation averages a sample's windows; "
        "the served model answers for one clip."
    )
    if stale:
        note += f" Left out, being of an earlier network: {'; '.join(stale)}."
    for each in found:
        if words := describe_differences(each):
            note += f" {each.title}: {words}."
    return _table(columns, [_evaluated(each) for each in found]) + f"\n\n{note}"


def _evaluated(each: EvaluatedRun) -> tuple[str, ...]:
    result = each.result
    names = ["top1", "top5", "mean_class_accuracy", "expected_calibration_error"]
    names += ["mean_average_precision"] if each.several else []
    numbers = [_accuracy(result, name) for name in names]
    windows = result.get("windows", "")
    return (each.name, each.view, result["split"], str(result["samples"]), str(windows), *numbers)


def _accuracy(result: Mapping[str, Any], name: str) -> str:
    if name not in result:
        return ""
    interval = result.get(f"{name}_interval")
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * result[name]:.1f} %{ends}"


def _use(config: Mapping[str, Any]) -> str:
    when = "about to happen" if config["anticipates"] else "happening"
    return (
        f"Naming which of its classes is {when}, in video like that of its data set, as one signal among "
        f"others and with the accuracy above in mind. It is not made for deciding about people, nor for what "
        f"can hurt someone when it fails."
    )


def _limits(config: Mapping[str, Any], streams: Sequence[Stream]) -> str:
    fps = config["clip"]["fps"]
    rate = "the frame rate it was trained on, which its run does not know" if fps is None else f"{fps:g}"
    limits = [
        "It always names one of its classes, also where something else happens, or nothing.",
        "Probabilities are the network's shares among these classes; nothing has calibrated them.",
        f"Clips should have frames at {rate}{'' if fps is None else ' frames per second'}; accuracy at other "
        f"rates was not measured, nor with other cameras, places and people than those of the data set.",
    ]
    if streams[0].crop is not None:
        limits.append("It sees the square in the middle of a frame, 7/8 of the shorter side.")
    if "flow" in config["modality"]:
        flow = flow_from(config["flow"])
        algorithm = "" if flow is None else f", by {flow}"
        limits.append(
            f"Flow is to be computed as for its records{algorithm}, in pixels of frames whose short side is "
            f"{config['short_side']}."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _settings(run: Run) -> str:
    return _table(
        ("setting", "value"),
        list(flatten_settings(without_paths(read_config(run)), leave_out=("classes", "heads")).items()),
    )


def without_paths(value: Any, name: str = "") -> Any:
    """What a config.json says, for others: of each absolute path, and the teacher's, the last name alone."""
    if isinstance(value, dict):
        return {key: without_paths(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    if not isinstance(value, str):
        return value
    if name == "command":
        return shlex.join(_last_name(word) for word in shlex.split(value))
    return _last_name(value) if name != "teacher" else PurePath(value).name


def _last_name(word: str) -> str:
    option, equals, path = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{PurePath(path).name}" if os.path.isabs(path) else word


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
