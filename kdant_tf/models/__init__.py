"""Video networks."""
