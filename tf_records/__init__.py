"""What a pair of clips is, and how it gets on and off the disk. No Keras here.

Importing this package imports no TensorFlow; `writer` and `reader` do.
"""
