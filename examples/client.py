"""Asks a served model what comes next in a video, and warns of one action; imports no TensorFlow.

    python examples/client.py video.mp4 served --server localhost:8501 --warn-of rise

`served` is the folder that `kdant export` wrote.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import kdant_tf as kdant
from kdant_tf.serving.client import connect
from kdant_tf.serving.server import Server, parse_address


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    host, port = parse_address(options.server)
    # A server tells shapes alone: names of classes and the offset are read from the exported folder.
    model = connect(Server(host=host, port=port, timeout_s=10), options.served)
    if options.warn_of not in (None, *model.classes):
        raise kdant.KdantError(f"{options.warn_of!r} is none of the classes: {', '.join(model.classes)}.")
    for answer in kdant.predict(options.video, model, stride_s=options.stride_s):
        likely = dict(answer.top(len(model.classes)))
        name, probability = next(iter(likely.items()))
        print(f"{answer.time_s:6.2f} s  at {answer.expected_s:6.2f} s: {name} {probability:.0%}", end="")
        warns = likely.get(options.warn_of, 0.0) >= options.above
        print(f"  ← {options.warn_of}, {likely[options.warn_of]:.0%}" if warns else "")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("served", type=Path, help="folder that kdant export wrote, or its config.json")
    parser.add_argument("--server", default="localhost:8501", help="HOST:PORT of the REST interface")
    parser.add_argument("--stride-s", type=float, default=0.25, help="seconds from one clip to the next")
    parser.add_argument("--warn-of", metavar="CLASS", help="mark the times at which it is expected")
    parser.add_argument("--above", type=float, default=0.5, help="probability from which on to warn")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except kdant.KdantError as error:
        sys.exit(f"Error: {error}")
