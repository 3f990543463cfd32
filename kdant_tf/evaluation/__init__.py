"""Evaluation: metrics, their intervals, and what is kept of them in the run folder."""
