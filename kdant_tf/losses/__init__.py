"""Losses: classification (eq. 1, 2) and feature maps (eq. 7-9)."""
