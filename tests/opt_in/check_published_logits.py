"""DeepMind's weights give the logits that DeepMind publishes for its sample clip. `make check-weights`.

Not part of the suite: it downloads about 100 MB of weights and 70 MB of clips, or finds them in the Keras
cache. Expected figures are those of out/imagenet_rgb.txt, imagenet_flow.txt and imagenet_joint.txt in
github.com/google-deepmind/kinetics-i3d. It has not been run yet: where kdant was developed there was no
network to fetch the weights from.
"""

import functools

import keras
import numpy as np
import pytest

from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.weights import REPOSITORY_URL, fetch_kinetics_checkpoint, load_deepmind_checkpoint

KINETICS_CLASSES = 400
CHANNELS = {"rgb": 3, "flow": 2}
# Norm of the logits; the first classes with their logits.
PUBLISHED = {
    ("rgb",): (
        87.108871,
        {
            "playing cricket": 25.856646,
            "playing kickball": 12.330335,
            "catching or throwing baseball": 11.254371,
            "shooting goal (soccer)": 10.883866,
            "catching or throwing softball": 10.393131,
        },
    ),
    ("flow",): (
        63.252754,
        {
            "playing cricket": 15.957031,
            "hurling (sport)": 12.808723,
            "playing tennis": 10.527044,
            "playing squash or racquetball": 10.0088,
            "hitting baseball": 9.425033,
        },
    ),
    ("rgb", "flow"): (
        138.468643,
        {
            "playing cricket": 41.8137,
            "hurling (sport)": 21.494,
            "catching or throwing baseball": 20.1341,
            "catching or throwing softball": 19.2256,
            "hitting baseball": 18.9154,
        },
    ),
}


@functools.cache
def logits_of(modality: str) -> np.ndarray:
    name = f"v_CricketShot_g04_c01_{modality}.npy"
    clip = np.load(keras.utils.get_file(name, f"{REPOSITORY_URL}/data/{name}", cache_subdir="kdant"))
    model = build_i3d(KINETICS_CLASSES, (*clip.shape[1:4], CHANNELS[modality]))
    assert load_deepmind_checkpoint(model, fetch_kinetics_checkpoint(modality))
    return keras.ops.convert_to_numpy(model(clip.astype(np.float32), training=False)["logits"])[0]


@functools.cache
def class_names() -> tuple[str, ...]:
    path = keras.utils.get_file("label_map.txt", f"{REPOSITORY_URL}/data/label_map.txt", cache_subdir="kdant")
    with open(path, encoding="utf-8") as file:
        return tuple(line.strip() for line in file)


@pytest.mark.parametrize("streams", PUBLISHED, ids="+".join)
def test_the_sample_clip_gives_the_published_logits(streams: tuple[str, ...]) -> None:
    logits = sum(logits_of(modality) for modality in streams)
    norm, first = PUBLISHED[streams]
    order = np.argsort(logits)[::-1][: len(first)]
    assert [class_names()[i] for i in order] == list(first)
    np.testing.assert_allclose(logits[order], list(first.values()), rtol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(logits), norm, rtol=1e-3)
