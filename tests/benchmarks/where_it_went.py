"""Over a whole test split: how near to their place a student's map holds the teacher's strongest vectors."""

import argparse
from pathlib import Path

import numpy as np

import kdant_tf  # noqa: F401  turns oneDNN on before TensorFlow is imported
from kdant_tf.runs import load_run
from kdant_tf.visualization.correspondence import Target, find_targets
from kdant_tf.visualization.run_view import RunView, read_clip_pairs
from tf_records.records import Records
from tf_records.schema import FUTURE, OBSERVED

TARGETS = 3


def in_outermost_column(target: Target) -> bool:
    """Whether the largest weight lies at the left or right edge of the map."""
    return target.strongest[2] in (0, target.weights.shape[2] - 1)


def main() -> None:
    """Prints a row of a Markdown table for the teacher on the observed clip, and for each student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="TEACHER STUDENT")
    parser.add_argument("--records", required=True, type=Path)
    parser.add_argument("--samples", type=int, help="only the first so many")
    options = parser.parse_args()
    records = Records.open(options.records, split="test")
    views = [RunView(path.name, load_run(path), records, "test") for path in options.runs]
    total = records.split("test").records
    found: dict[str, list[tuple[float, bool]]] = {each.name: [] for each in views}
    for sample in read_clip_pairs(records, "test", range(min(total, options.samples or total))):
        for each in views:
            future_map = views[0].map_for(each.run.config, sample, FUTURE)
            observed_map = each.projected_map(sample, OBSERVED, future_map.shape[-1])
            for target in find_targets(future_map, observed_map, count=TARGETS, alpha=each.run.config.alpha):
                found[each.name].append((target.weight_near(future_map.shape), in_outermost_column(target)))
    print("| the observed map of | weight within one position | largest weight in the outermost column |")
    print("| --- | ---: | ---: |")
    for name, rows in found.items():
        near, outermost = np.mean(rows, axis=0)
        print(f"| {name} | {100 * near:.1f} % | {100 * outermost:.1f} % |")


if __name__ == "__main__":
    main()
