"""Trains and distils on one's own CSV, evaluates, and says what is expected of one video.

    python examples/train_on_your_csv.py actions.csv video.mp4 --out work

The CSV has a row for each action: video,start_s,end_s,label,split (docs/guides/data-sets.md).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kdant_tf as kdant
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.csv_manifest import read_csv
from tf_records.writer import build_records


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    clip = ClipSpec(clip_frames=options.clip_frames, anticipation_s=options.anticipation_s)
    records, teacher, student = (options.out / name for name in ("records", "teacher", "student"))

    # 1. Videos and actions → pairs of clips: before the action, and of it.
    building = BuildOptions(clip=clip, fps=options.fps, short_side=options.short_side)
    build_records(read_csv(options.csv), records, building)

    # 2. The teacher learns from the clips of the actions.
    kdant.train(records, teacher, preset=options.preset, model=options.model)

    # 3. The student sees the earlier clips, and learns from labels and teacher.
    kdant.distill(records, student, teacher=teacher, preset=options.preset, feature_loss=options.loss)

    for name, run in (("teacher", teacher), ("student", student)):
        result = kdant.evaluate(run, records)
        low, high = result.interval.low, result.interval.high
        print(f"{name}, {result.view} clips: top-1 {result.top1:.1%}, 95 % interval {low:.1%} to {high:.1%}")
    for answer in kdant.predict(options.video, student):
        print(f"{answer.time_s:.2f} s: at {answer.expected_s:.2f} s probably {answer.top(1)[0][0]}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", type=Path, help="actions, a row each")
    parser.add_argument("video", type=Path, help="to predict on")
    parser.add_argument("--out", type=Path, default=Path("work"), help="new folder of records and runs")
    parser.add_argument("--clip-frames", type=int, default=8)
    parser.add_argument("--anticipation-s", type=float, default=0.4, help="end of clip to start of action")
    parser.add_argument("--fps", type=float, default=20, help="frames a second of all clips")
    parser.add_argument("--short-side", type=int, default=128, help="pixels of stored frames")
    parser.add_argument("--preset", default="jhmdb-small", help="kdant presets lists them")
    parser.add_argument("--model", default="i3d", help="of both: i3d, tsn, frame-mlp or MODULE:FUNCTION")
    parser.add_argument("--loss", default="bidirectional", help="none, direct, unidirectional, bidirectional")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
