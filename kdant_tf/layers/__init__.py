"""Keras layers of the method."""
