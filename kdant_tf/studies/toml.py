"""Settings as a TOML file that `--config` reads. No TensorFlow here."""

import dataclasses
import json
from typing import Any

from kdant_tf.config import TrainConfig


def to_toml(config: TrainConfig, comment: str = "") -> str:
    """All settings but those that are None, which is also their default."""
    fields = dataclasses.asdict(config).items()
    lines = [f"{name} = {_value(value)}" for name, value in fields if value is not None]
    return "\n".join([*(f"# {line}" for line in comment.splitlines()), *lines]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)
