"""Knowledge distillation for human action anticipation (Tran, Wang and Hoai 2019).

    import kdant_tf as kdant

    kdant.train("records", "teacher", preset="jhmdb-small")
    kdant.distill("records", "student", teacher="teacher")
    kdant.evaluate("student", "records").top1

Names are imported when they are first asked for: `import kdant_tf` alone loads neither TensorFlow nor Keras.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from kdant_tf.version import __version__

# TensorFlow turns oneDNN on by itself only on CPUs with AVX-512 VNNI or newer. On others its own
# convolutions make a training step of I3D 80 times slower (docs/decisions/training.md). This has to be
# said before TensorFlow is imported; a value that the user has set stays.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if TYPE_CHECKING:
    from kdant_tf.anticipation.anticipate import predict
    from kdant_tf.api import TrainedRun, distill, load_run, train
    from kdant_tf.config import TrainConfig
    from kdant_tf.evaluation.evaluate import evaluate_run as evaluate
    from kdant_tf.layers.attention_pooling import (
        BidirectionalAttentionPooling,
        attention_pool,
        bidirectional_attention_pool,
    )
    from kdant_tf.losses.classification import classification_loss
    from kdant_tf.losses.features import FeatureLoss, feature_loss
    from kdant_tf.models.i3d import build_i3d, split_i3d
    from kdant_tf.models.weights import load_deepmind_checkpoint
    from kdant_tf.serving.export import export_run as export
    from kdant_tf.training.distiller import Distiller
    from tf_records.errors import KdantError
    from tf_records.records import Records

# Each public name, the module that defines it, and its name there.
_DEFINED = {
    "BidirectionalAttentionPooling": "kdant_tf.layers.attention_pooling:BidirectionalAttentionPooling",
    "Distiller": "kdant_tf.training.distiller:Distiller",
    "FeatureLoss": "kdant_tf.losses.features:FeatureLoss",
    "KdantError": "tf_records.errors:KdantError",
    "Records": "tf_records.records:Records",
    "TrainConfig": "kdant_tf.config:TrainConfig",
    "TrainedRun": "kdant_tf.api:TrainedRun",
    "attention_pool": "kdant_tf.layers.attention_pooling:attention_pool",
    "bidirectional_attention_pool": "kdant_tf.layers.attention_pooling:bidirectional_attention_pool",
    "build_i3d": "kdant_tf.models.i3d:build_i3d",
    "classification_loss": "kdant_tf.losses.classification:classification_loss",
    "distill": "kdant_tf.api:distill",
    "evaluate": "kdant_tf.evaluation.evaluate:evaluate_run",
    "export": "kdant_tf.serving.export:export_run",
    "feature_loss": "kdant_tf.losses.features:feature_loss",
    "load_deepmind_checkpoint": "kdant_tf.models.weights:load_deepmind_checkpoint",
    "load_run": "kdant_tf.api:load_run",
    "predict": "kdant_tf.anticipation.anticipate:predict",
    "split_i3d": "kdant_tf.models.i3d:split_i3d",
    "train": "kdant_tf.api:train",
}

__all__ = [
    "BidirectionalAttentionPooling",
    "Distiller",
    "FeatureLoss",
    "KdantError",
    "Records",
    "TrainConfig",
    "TrainedRun",
    "__version__",
    "attention_pool",
    "bidirectional_attention_pool",
    "build_i3d",
    "classification_loss",
    "distill",
    "evaluate",
    "export",
    "feature_loss",
    "load_deepmind_checkpoint",
    "load_run",
    "predict",
    "split_i3d",
    "train",
]


def __getattr__(name: str) -> Any:
    """The public name `name`, imported where it is defined (PEP 562)."""
    if name not in _DEFINED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, defined_as = _DEFINED[name].partition(":")
    return getattr(importlib.import_module(module), defined_as)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
