"""Sizes that a study can be made in, and the words for them. No TensorFlow here."""

import types
from collections.abc import Mapping, Sequence
from typing import Any

from kdant_tf.config import TrainConfig

PAPER = "paper"
TINY = "tiny"
# "small" has the size of the preset jhmdb-small, for two CPU cores; "tiny" only shows that everything works.
SCALES: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        PAPER: {},
        "small": {"crop": 112, "width": 0.25, "epochs": 40, "decay_epochs": (30,), "batch_size": 8},
        TINY: {
            "crop": 32,
            "width": 0.0625,
            "epochs": 1,
            "decay_epochs": (),
            "batch_size": 2,
            "windows": 1,
            "batch_norm_momentum": 0.5,
        },
    }
)
_OF_STEM = ("crop", "width")


def scale_settings(scale: str, config: TrainConfig, *, features: bool) -> dict[str, Any]:
    """The settings that a scale changes.

    Pretrained I3D weights fit the full width only, so a narrower I3D begins at random; and so does
    everything of scale "tiny", which is to need no download. Records of features bind crop and width,
    which are their stem's.

    Args:
        scale: a key of SCALES.
        config: without the scale.
        features: whether the records hold features in place of frames.
    """
    settings = dict(SCALES[scale])
    if features:
        return {name: value for name, value in settings.items() if name not in _OF_STEM}
    if scale == TINY or (settings.get("width", 1.0) != 1.0 and config.model == "i3d"):
        settings["init"] = "random"
    return settings


def describe_scale(scale: str, configs: Sequence[TrainConfig]) -> str:
    """Such as "small (crop 112, width 0.25, 40 epochs)": the name, and what the runs really have."""
    crops, widths, epochs = (
        " or ".join(f"{value:g}" for value in dict.fromkeys(getattr(config, name) for config in configs))
        for name in ("crop", "width", "epochs")
    )
    return f"{scale} (crop {crops}, width {widths}, {epochs} epochs)"
