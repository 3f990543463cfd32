"""A network of one convolution, for tests in which it does not matter which network it is.

An I3D of any width has 57 convolutions, whose graphs take seconds: three to evaluate, twenty to train.
As `--model tiny_network:build` it is trained, too.
"""

import keras
from keras import layers

OPTION = ("--model", "tiny_network:build")


def build(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
    """Convolution, batch normalisation and ReLU, and logits of the mean: outputs "logits" and "map"."""
    clip = layers.Input(input_shape)
    x = layers.Conv3D(6, (1, 7, 7), (2, 4, 4), padding="same", use_bias=False)(clip)
    # Statistics as of a network that has seen something.
    mean, variance = keras.initializers.RandomNormal(), keras.initializers.RandomUniform(0.05, 0.2)
    x = layers.BatchNormalization(moving_mean_initializer=mean, moving_variance_initializer=variance)(x)
    x = layers.ReLU(name="map")(x)
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "map": x})
