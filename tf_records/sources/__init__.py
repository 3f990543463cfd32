"""Annotations of video data sets, turned into ordered samples. No TensorFlow here."""
