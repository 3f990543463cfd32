"""What an exported version says of itself to programs: config.json and labels.txt."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kdant_tf.report.evaluated import read_config
from kdant_tf.serving.streams import Stream
from kdant_tf.version import __version__

LABELS_NAME = "labels.txt"


def describe_export(
    streams: Sequence[Stream], signatures: Mapping[str, Any], *, folded: bool
) -> dict[str, Any]:
    """What config.json of an exported version says.

    Args:
        streams: RGB first.
        signatures: see `kdant_tf.serving.signatures.add_signatures`.
        folded: whether batch normalisation was folded into the layers before it.
    """
    first, last = streams[0].run, streams[-1].run  # One and the same, or RGB and flow.
    return {
        "kdant": __version__,
        "classes": list(first.classes),
        "clip": {**dataclasses.asdict(first.clip), "fps": first.fps},
        "offset_s": first.offset_s,
        "anticipates": first.anticipates,
        "modality": ",".join(stream.run.modality for stream in streams),
        "flow": None if last.flow is None else dataclasses.asdict(last.flow),
        "crop": first.config.crop,
        "short_side": first.short_side,
        "role": first.role,
        "dataset": first.dataset,
        "signatures": signatures,
        "folded_batch_norm": folded,
        "run": _describe_run(streams[0]),
        **({"with": _describe_run(streams[1])} if len(streams) > 1 else {}),
    }


def labels_text(classes: Sequence[str]) -> str:
    """One class a line, in index order."""
    return "".join(f"{name}\n" for name in classes)


def _describe_run(stream: Stream) -> dict[str, Any]:
    """All of a run's config.json that is not said of the whole."""
    fields = read_config(stream.run)
    kept = {name: value for name, value in fields.items() if name not in ("classes", "clip")}
    return {"folder": stream.run.folder.resolve().name, "weight": stream.weight, **kept}
