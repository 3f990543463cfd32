"""Training: one step, one loop, checkpoints and devices."""
