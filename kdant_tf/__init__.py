"""Knowledge distillation for human action anticipation (Tran, Wang and Hoai 2019).

Importing this package imports neither TensorFlow nor Keras; its modules do.
"""

from kdant_tf.version import __version__

__all__ = ["__version__"]
