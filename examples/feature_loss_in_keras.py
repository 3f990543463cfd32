"""The paper's feature loss in a Keras model of one's own, with `compile` and `fit`; no records, no runs.

    python examples/feature_loss_in_keras.py --loss bidirectional

A square moves left, right, up or down. The teacher sees four frames, the student the four before.
"""

import argparse
from collections.abc import Sequence

import kdant_tf as kdant  # isort: skip (before TensorFlow: turns oneDNN on, which some CPUs need)
import keras
import numpy as np
from keras import layers

STEPS = ((0, -1), (0, 1), (-1, 0), (1, 0))  # pixels a frame, down and to the right, of the four classes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--loss", default="bidirectional", help="none, direct, unidirectional, bidirectional")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    observed, future, labels = draw_videos(options.samples)
    classification = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher, student = build_network(), build_network()
    teacher.compile("adam", {"logits": classification, "maps": None})
    teacher.fit(future, {"logits": labels}, epochs=options.epochs, verbose=0)
    targets = {"logits": labels, "maps": teacher.predict(future, verbose=0)["maps"]}
    losses = {"logits": classification, "maps": kdant.FeatureLoss(options.loss)}
    student.compile("adam", losses, loss_weights={"logits": 1.0, "maps": 0.3})
    values = student.fit(observed, targets, epochs=options.epochs, verbose=0).history["maps_loss"]
    clips, _, labels = draw_videos(256)
    right = (student.predict(clips, verbose=0)["logits"].argmax(-1) == labels).mean()
    print(f"feature loss {values[0]:.4f} → {values[-1]:.4f}; {right:.1%} of 256 new clips right, chance 25 %")


def build_network() -> keras.Model:
    clip = layers.Input((4, 24, 24, 1))
    x = layers.Conv3D(16, (2, 5, 5), strides=(1, 2, 2), padding="same", activation="relu")(clip)
    maps = layers.Conv3D(16, 3, strides=(2, 1, 1), padding="same", activation="relu", name="maps")(x)
    logits = layers.Dense(4, name="logits")(layers.GlobalAveragePooling3D()(maps))
    return keras.Model(clip, {"logits": logits, "maps": maps})


def draw_videos(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed and future clips `(count, 4, 24, 24, 1)`, and labels."""
    videos, labels = np.random.uniform(0, 0.2, (count, 8, 24, 24, 1)), np.random.randint(4, size=count)
    for video, label, start in zip(videos, labels, np.random.randint(8, 13, (count, 2)), strict=True):
        for number, frame in enumerate(video):
            y, x = start + number * np.array(STEPS[label])
            frame[y : y + 4, x : x + 4] = 1
    return videos[:, :4], videos[:, 4:], labels


if __name__ == "__main__":
    main()
