"""Anticipating on a video or a stream: frames, windows, answers and the video drawn over. No TensorFlow."""
