"""Knowledge distillation for human action anticipation (Tran, Wang and Hoai 2019).

Importing this package imports neither TensorFlow nor Keras; its modules do.
"""

import os

from kdant_tf.version import __version__

# TensorFlow turns oneDNN on by itself only on CPUs with AVX-512 VNNI or newer. On others its own
# convolutions make a training step of I3D 80 times slower (CONTRIBUTING.md, decisions). This has to be
# said before TensorFlow is imported; a value that the user has set stays.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = ["__version__"]
