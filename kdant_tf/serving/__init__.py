"""Trained networks in use: exported for TensorFlow Serving, loaded or asked over the network, and timed."""

# The signatures of an exported model: uint8 clips, JPEG or PNG strings, and one that gives features as well.
RAW = "serving_default"
ENCODED = "encoded"
FEATURES = "features"
