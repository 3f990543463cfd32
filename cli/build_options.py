"""Options of `kdant build-records` that say what to read and how to cut it."""

import click

from .command import add_options, split_names
from .options import FOLDER

source_options = add_options(
    click.option(
        "--source",
        required=True,
        type=click.Choice(["jhmdb", "epic55", "thumos14", "csv", "synthetic"]),
        help="Kind of --input.",
    ),
    click.option(
        "--input",
        "input_path",
        required=True,
        type=FOLDER,
        help="jhmdb: folder with the class folders and splits/. epic55, thumos14: folder with the "
        "annotations and the videos. csv: file with the columns video,start_s,end_s and, if wanted, "
        "label,split,fps,offset_s. synthetic: folder of videos, rendered if it has none yet.",
    ),
    click.option("--split", default=1, show_default=True, help="JHMDB's split: 1, 2 or 3."),
    click.option(
        "--target",
        default="verb",
        show_default=True,
        type=click.Choice(["verb", "noun", "action"]),
        help="EPIC-KITCHENS' classes.",
    ),
    click.option("--allow-outside", is_flag=True, help="A CSV may name videos outside its folder."),
    click.option(
        "--drift",
        type=float,
        help="How far the telling object of synthetic videos moves before the action, in frame widths.",
    ),
    click.option("--classes", callback=split_names, help="Only these classes: a,b,c."),
    click.option("--limit", type=int, help="Samples to keep a split, for a quick look."),
    click.option(
        "--label-fraction",
        default=1.0,
        show_default=True,
        type=float,
        help="Share of the training labels to keep; the other samples become unlabelled (§4.4).",
    ),
    click.option("--seed", default=0, show_default=True, help="Of --limit and --label-fraction."),
)
mining_options = add_options(
    click.option(
        "--unlabeled-per-label",
        default=0.0,
        show_default=True,
        type=float,
        help="Unlabelled pairs to draw for each labelled training sample, from stretches without annotation.",
    ),
    click.option(
        "--vicinity-s",
        default=10.0,
        show_default=True,
        type=float,
        help="How far from a training action these may lie (§4.3.1).",
    ),
    click.option("--mining-seed", default=0, show_default=True, help="Of their draw."),
)
clip_options = add_options(
    click.option(
        "--clip-frames", type=int, help="Frames a clip. Default: 8; epic55 32 (§4.3), thumos14 16 (§4.4)."
    ),
    click.option(
        "--offset-frames",
        type=int,
        help="From one clip's first frame to the other's. Default: 15; epic55 and thumos14 use "
        "--anticipation-s.",
    ),
    click.option(
        "--anticipation-s",
        type=float,
        help="Or: seconds from the end of the observed clip to the start of the action. Default: epic55 and "
        "thumos14 1.",
    ),
    click.option(
        "--longest-anticipation-s",
        type=float,
        help="Keep so many seconds before each val and test action, for `evaluate --tau`.",
    ),
    click.option(
        "--fps",
        type=float,
        help="Rate of the clock that frames are taken on. Default: each video's own; thumos14 16.",
    ),
)
