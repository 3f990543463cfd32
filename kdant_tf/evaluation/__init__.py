"""Evaluation: metrics, protocols and pictures."""
