"""Losses: classification (eq. 1, 2) and feature maps (eq. 7-9, and others of the field).

Importing this does not import Keras: settings and the command line know the losses by these names.
"""

# The rows of the paper's Table 1, and `none` to compare with.
PAPER_LOSS_NAMES = ("none", "direct", "unidirectional", "bidirectional")
FEATURE_LOSS_NAMES = (*PAPER_LOSS_NAMES, "local", "jaccard", "mmd", "infonce")
# Of these, those that pool by attention.
ATTENTION_LOSS_NAMES = ("unidirectional", "bidirectional", "local")
NORMALIZATIONS = ("none", "l2", "layer")
PENALTIES = ("huber", "squared")
REDUCTIONS = ("mean", "sum")
# A prior whose standard deviation, 1/sqrt(2 · locality), is a quarter of the map's extent.
DEFAULT_LOCALITY = 8.0
