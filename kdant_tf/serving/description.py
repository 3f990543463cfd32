"""What an exported version says of itself: config.json and labels.txt. No TensorFlow here."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kdant_tf.runs import CONFIG_NAME, Run
from kdant_tf.version import __version__

LABELS_NAME = "labels.txt"


def describe_export(
    runs: Sequence[Run], weights: Sequence[float], signatures: Mapping[str, Any], *, folded: bool
) -> dict[str, Any]:
    """What config.json of an exported version says.

    Args:
        runs: of its streams, RGB first.
        weights: of their logits.
        signatures: see `kdant_tf.serving.signatures.add_signatures`.
        folded: whether batch normalisation was folded into the convolutions.
    """
    first = runs[0]
    return {
        "kdant": __version__,
        "classes": list(first.classes),
        "clip": {**dataclasses.asdict(first.clip), "fps": first.fps},
        "offset_s": first.offset_s,
        "anticipates": first.anticipates,
        "modality": ",".join(run.modality for run in runs),
        "crop": first.config.crop,
        "short_side": first.short_side,
        "role": first.role,
        "signatures": signatures,
        "folded_batch_norm": folded,
        "run": _describe_run(first, weights[0]),
        **({"with": _describe_run(runs[1], weights[1])} if len(runs) > 1 else {}),
    }


def labels_text(classes: Sequence[str]) -> str:
    """One class a line, in index order."""
    return "".join(f"{name}\n" for name in classes)


def read_settings(run: Run) -> dict[str, Any]:
    """All of a run's config.json, with the versions, commit and command that it names."""
    return json.loads((run.folder / CONFIG_NAME).read_text(encoding="utf-8"))


def _describe_run(run: Run, weight: float) -> dict[str, Any]:
    fields = {name: value for name, value in read_settings(run).items() if name not in ("classes", "clip")}
    return {"folder": run.folder.resolve().name, "weight": weight, **fields}
