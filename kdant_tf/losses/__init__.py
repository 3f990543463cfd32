"""Losses: classification (eq. 1, 2) and feature maps (eq. 7-9).

Importing this does not import Keras: settings and the command line know the losses by these names.
"""

FEATURE_LOSS_NAMES = ("none", "direct", "unidirectional", "bidirectional")
PENALTIES = ("huber", "squared")
REDUCTIONS = ("mean", "sum")
