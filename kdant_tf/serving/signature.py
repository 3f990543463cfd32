"""What a served model says of its signatures. No TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """Shapes of a signature's tensors by name; -1 is any size."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def signatures_of_json(metadata: Any) -> dict[str, Signature]:
    """The signatures in TensorFlow Serving's JSON of GetModelMetadataResponse.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is something else.
    """
    found = metadata["metadata"]["signature_def"]["signature_def"]
    return {
        name: Signature(*({key: _shape(info) for key, info in fields[side].items()} for side in _SIDES))
        for name, fields in found.items()
        if all(side in fields for side in _SIDES)
    }


_SIDES = ("inputs", "outputs")


def _shape(info: Mapping[str, Any]) -> Shape:
    # int64 is a string in the JSON of protocol buffers.
    return tuple(int(dim["size"]) for dim in info["tensor_shape"]["dim"])
