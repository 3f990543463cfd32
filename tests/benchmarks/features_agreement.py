"""How far logits through records of features are from those through images, on real JHMDB video.

    python tests/benchmarks/features_agreement.py --jhmdb JHMDB --samples 12

The network is I3D with random weights, its batch normalisation measured on some of the clips. "cropped" are
features of the central square, as evaluation on frames cuts it: all that differs is float16. "whole" are
those of whole frames, cropped on the map: there the padding at the square's borders differs too, and the
square lies on the map's grid.
"""

import argparse
import json
import tempfile
from pathlib import Path

import kdant_tf  # noqa: F401  (turns oneDNN on)

# isort: split
import keras
import numpy as np

from kdant_tf.models.i3d import build_i3d, split_i3d
from kdant_tf.training.feature_extraction import extract_features
from tf_records.manifest import Manifest
from tf_records.plan import BuildOptions
from tf_records.reader import evaluation_batches
from tf_records.records import Records
from tf_records.schema import ClipSpec
from tf_records.sources.read import SourceOptions, read_annotations, resolve_protocol
from tf_records.writer import build_records

CROP, FRAMES, BATCH = 224, 8, 4
OUTPUTS = ("logits", "Mixed_4f")


def main() -> None:
    """Builds, extracts twice, compares, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jhmdb", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--width", type=float, default=1.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options.jhmdb, options.samples, options.width, Path(folder)), indent=1))


def measure(jhmdb: Path, samples: int, width: float, folder: Path) -> dict[str, object]:
    """What `main` prints."""
    protocol = resolve_protocol("jhmdb")
    annotations = read_annotations(SourceOptions(source="jhmdb", path=jhmdb, limit=samples), protocol)
    frames = build_records(annotations, folder / "frames", BuildOptions(clip=ClipSpec(clip_frames=FRAMES)))
    network = calibrated_network(Records.open(folder / "frames"), width)
    network.save(folder / "i3d.keras")
    init = str(folder / "i3d.keras")
    cropped = extract_features(folder / "frames", folder / "cropped", init, crop=CROP)
    whole = extract_features(folder / "frames", folder / "whole", init)
    _, head = split_i3d(network)
    expected = outputs(folder / "frames", network)
    return {
        "records": sum(split.records for split in frames.splits.values()),
        "difference over largest value": {
            name: compare(expected, outputs(folder / name, head)) for name in ("cropped", "whole")
        },
        "kB a record": {
            "JPEG": mean_kilobytes(frames),
            f"cropped {cropped.features.shape_words}": mean_kilobytes(cropped),
            f"whole {whole.features.shape_words}": mean_kilobytes(whole),
        },
    }


def calibrated_network(records: Records, width: float) -> keras.Model:
    """Random weights; the moving statistics are those of one batch."""
    keras.utils.set_random_seed(0)
    network = build_i3d(21, (FRAMES, CROP, CROP, 3), width=width, dropout=0.0, batch_norm_momentum=0.0)
    network(next(clips(records, "train")), training=True)
    return network


def clips(records: Records, split: str):
    """Middle clips of the future segments, in batches."""
    batches = evaluation_batches(records, split=split, view="future", batch_size=BATCH, crop=CROP, windows=1)
    return (batch["clip"] for batch in batches.as_numpy_iterator())


def outputs(folder: Path, network: keras.Model) -> dict[str, np.ndarray]:
    """Of the test records' middle clips."""
    made = [network(batch, training=False) for batch in clips(Records.open(folder), "test")]
    return {name: np.concatenate([one[name].numpy() for one in made]) for name in OUTPUTS}


def compare(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference over largest value, and the share of clips with another first class."""
    report = {
        name: float(np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max())
        for name in OUTPUTS
    }
    other = found["logits"].argmax(axis=1) != expected["logits"].argmax(axis=1)
    return {**report, "other first class": float(other.mean())}


def mean_kilobytes(manifest: Manifest) -> float:
    """Bytes of all shards over records."""
    size = sum(shard.bytes for shard in manifest.shards)
    return round(size / sum(split.records for split in manifest.splits.values()) / 1000, 1)


if __name__ == "__main__":
    main()
