"""What a pair of clips is, and how it gets on and off the disk. No Keras here.

Importing this package imports no TensorFlow: its public names, listed in `__all__`, load what they need when
they are first used.

Example:
    >>> import tf_records
    >>> tf_records.ClipSpec(clip_frames=16, anticipation_s=1.0).offset_at(fps=25.0)
    41
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_records.errors import KdantError
    from tf_records.manifest import Manifest, load_manifest
    from tf_records.plan import BuildOptions
    from tf_records.records import Records
    from tf_records.schema import ClipSpec
    from tf_records.sources.read import SourceOptions, read_annotations, resolve_protocol
    from tf_records.tfrecord import read_records
    from tf_records.video import open_video
    from tf_records.writer import build_records

__all__ = [
    "BuildOptions",
    "ClipSpec",
    "KdantError",
    "Manifest",
    "Records",
    "SourceOptions",
    "build_records",
    "load_manifest",
    "open_video",
    "read_annotations",
    "read_records",
    "resolve_protocol",
]
_MODULES = {
    "BuildOptions": "plan",
    "ClipSpec": "schema",
    "KdantError": "errors",
    "Manifest": "manifest",
    "Records": "records",
    "SourceOptions": "sources.read",
    "build_records": "writer",
    "load_manifest": "manifest",
    "open_video": "video",
    "read_annotations": "sources.read",
    "read_records": "tfrecord",
    "resolve_protocol": "sources.read",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tf_records' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tf_records.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
