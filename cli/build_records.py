"""kdant build-records: what to read and how to cut it, one call, and what came of it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tf_records.errors import AnnotationError
from tf_records.flow import ALGORITHMS
from tf_records.heads import describe_heads, heads_from
from tf_records.remote_path import RecordPath
from tf_records.schema import MODALITIES
from tf_records.start_tensorflow import start_tensorflow

from .command import (
    FOLDER,
    NAMES,
    RECORD_FOLDER,
    CommaList,
    KdantCommand,
    NameList,
    add_options,
    command_line,
    folder_options,
    json_option,
    parse_not_negative,
    printable,
)
from .extract_features import say_if_random

if TYPE_CHECKING:
    from tf_records.plan import BuildOptions
    from tf_records.sources.read import Protocol
    from tf_records.sources.sample import Annotations

# Of what was skipped and absent, on stderr and in the table's title; the manifest and --json name all.
_LINES = 10
_NAMES = 30
# Options that mean something for one source alone.
_OWN_OPTIONS = {
    "split": "jhmdb",
    "target": ("epic55", "epic100"),
    "drift": "synthetic",
    "allow_outside": "csv",
    "skip_bad_rows": "csv",
}
_TARGETS = ("verb", "noun", "action")

source_options = add_options(
    click.option(
        "--source",
        required=True,
        type=click.Choice(["jhmdb", "epic55", "epic100", "thumos14", "csv", "synthetic"]),
        help="Kind of --input.",
    ),
    click.option(
        "--input",
        "input_path",
        required=True,
        type=FOLDER,
        help="jhmdb: folder with the class folders and splits/. epic55, epic100, thumos14: folder with the "
        "annotations and the videos. csv: file with the columns video,start_s,end_s and, if wanted, "
        "label,split,fps,offset_s. synthetic: folder of videos, rendered if it has none yet.",
    ),
    click.option("--split", default=1, show_default=True, help="JHMDB's split: 1, 2 or 3."),
    click.option(
        "--target",
        default="verb",
        show_default=True,
        type=NameList(_TARGETS, distinct=True),
        help="EPIC-KITCHENS' classes: verb, noun, action; several, verb,noun,action, give one network a head "
        "for each.",
    ),
    click.option("--allow-outside", is_flag=True, help="A CSV may name videos outside its folder."),
    click.option(
        "--skip-bad-rows", is_flag=True, help="Leave out rows of a CSV that cannot be used, and name them."
    ),
    click.option(
        "--drift",
        type=float,
        show_default="a steady drift, drawn for each video",
        help="How far the telling object of synthetic videos moves before the action, in frame widths.",
    ),
    click.option(
        "--classes",
        type=NAMES,
        default=(),
        show_default="all",
        help="Only these classes; a name with a comma stands in quotes.",
    ),
    click.option("--limit", type=int, show_default="all", help="Samples to keep a split, for a quick look."),
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
        "--clip-frames",
        type=int,
        show_default="8; epic55, epic100 32 (§4.3), thumos14 16 (§4.4)",
        help="Frames a clip.",
    ),
    click.option(
        "--offset-frames",
        type=int,
        show_default="15; EPIC-KITCHENS and thumos14 use --anticipation-s",
        help="Frames from one clip's first frame to the other's.",
    ),
    click.option(
        "--anticipation-s",
        type=CommaList(parse_not_negative, "seconds, at least 0, such as 1 or 0.5,1,2", name="seconds"),
        show_default="EPIC-KITCHENS and thumos14 1; others use --offset-frames",
        help="Or: seconds from the end of the observed clip to the start of the action; several, 0.5,1,2, "
        "give a student a head for each.",
    ),
    click.option(
        "--longest-anticipation-s",
        type=float,
        show_default="those of the observed clip",
        help="Keep so many seconds before each val and test action, for `evaluate --tau`.",
    ),
    click.option(
        "--fps",
        type=float,
        show_default="each video's own; thumos14 16",
        help="Rate of the clock that frames are taken on.",
    ),
)


@click.command(
    "build-records", cls=KdantCommand, short_help="Turn videos and annotations into records of paired clips."
)
@source_options
@click.option(
    "--out",
    type=RECORD_FOLDER,
    help="Record folder to make, local or s3://…, gs://…; not needed with --dry-run.",
)
@mining_options
@clip_options
@click.option(
    "--short-side", default=256, show_default=True, help="Pixels of the shorter side of stored frames."
)
@click.option("--jpeg-quality", default=95, show_default=True, help="Of stored frames, 1 to 100.")
@click.option(
    "--modality",
    default="rgb",
    show_default=True,
    type=click.Choice(list(MODALITIES)),
    help="What to store of each frame; flow is computed on the resized frames.",
)
@click.option(
    "--flow-algorithm",
    default="tvl1",
    show_default=True,
    type=click.Choice(list(ALGORITHMS)),
    help="tvl1 is what I3D's Flow network was trained on; dis and farneback are much faster.",
)
@click.option(
    "--flow-bound",
    type=click.FloatRange(0, min_open=True),
    show_default="20 at --short-side 256, as I3D's Flow network was trained, and in proportion at others",
    help="Pixels a frame that flow is clipped to ±, stored in 254 steps.",
)
@click.option(
    "--features",
    metavar="INIT",
    show_default="frames",
    help="Keep features of I3D's stem in place of frames (§4.3): kinetics, or a path as for "
    "extract-features. The frames lie in OUT/.frames until the features are whole. One clip a segment, whole "
    "frames; for others use extract-features.",
)
@click.option("--shards", type=int, show_default="one every 64 samples, 16 with flow", help="Shards a split.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option(
    "--runner",
    default="local",
    show_default=True,
    type=click.Choice(["local", "beam"]),
    help="What writes the shards: processes of this machine, or Apache Beam (its options follow `--`).",
)
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM OPTIONS]")
@click.option(
    "--max-pixels",
    type=int,
    show_default="7680x4320, those of 8K",
    help="Videos with larger frames are skipped.",
)
@click.option("--max-seconds", type=float, show_default="86400, a day", help="Longer videos are skipped.")
@click.option(
    "--max-damaged-frames",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    metavar="SHARE",
    help="Actions with a larger share of frames that are corrupt or predicted from such are skipped; a "
    "smaller share is counted.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with 1 if an input had to be skipped or has damaged frames, and at once if a stretch of video "
    "is in two splits.",
)
@click.option("--dry-run", is_flag=True, help="Check the annotations and count; decode and write nothing.")
@folder_options
@json_option
@click.pass_context
def build_records(ctx: click.Context, /, **options: Any) -> None:
    """Turn videos and annotations into records of clips.

    Records are TFRecord shards of paired clips: one before the action, one of it.

    A video that cannot be decoded is skipped, and named here and in the manifest.
    """
    from tf_records.plan import dry_run_summary
    from tf_records.sources.read import resolve_protocol

    _check_usage(ctx, options)
    distance = ("clip_frames", "offset_frames", "anticipation_s", "fps")
    protocol = resolve_protocol(options["source"], **{name: options[name] for name in distance})
    build_options = _build_options(options, protocol)
    annotations = _read_source(options, protocol, build_options)
    _report_overlaps(annotations.overlaps, options["strict"])
    if options["dry_run"]:
        summary = dry_run_summary(annotations, build_options)
    else:
        summary = _build(annotations, build_options, options)
    early = annotations.too_early
    faults = summary["skipped"][early:]
    _report_missing([*faults, *summary["skipped"][:early]], annotations.absent)
    for note in annotations.notes:
        click.echo(printable(note), err=True)
    _report_doubts(summary["damaged_frames"], summary["guessed_fps"], summary["open_ended"])
    _print(summary, None if options["dry_run"] else options["out"], options["as_json"])
    if options["strict"] and (faults or summary["damaged_frames"]):
        wrong = f"{len(faults)} inputs were skipped"
        if not faults:
            wrong = f"{len(summary['damaged_frames'])} videos have damaged frames"
        click.echo(f"Error: {wrong}, and --strict was given.", err=True)
        ctx.exit(1)


def _check_usage(ctx: click.Context, options: dict[str, Any]) -> None:
    if options["out"] is None and not options["dry_run"]:
        raise click.UsageError("Missing option '--out'.")
    if options["offset_frames"] is not None and options["anticipation_s"] is not None:
        raise click.UsageError("Give --offset-frames or --anticipation-s, not both.")
    for option in ("flow_algorithm", "flow_bound"):
        given = ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE
        if given and "flow" not in options["modality"]:
            raise click.UsageError(f"--{option.replace('_', '-')} is for --modality flow or rgb,flow.")
    if options["features"] is not None and "," in options["modality"]:
        raise click.UsageError("--features is for one modality: --modality rgb or flow.")
    if len(options["anticipation_s"] or ()) > 1 and options["features"] is not None:
        raise click.UsageError("--features goes with one time for --anticipation-s.")
    if options["longest_anticipation_s"] is not None:
        if options["features"] is not None:
            raise click.UsageError("--longest-anticipation-s does not go with --features.")
        if options["source"] == "jhmdb":
            raise click.UsageError("--longest-anticipation-s is not for JHMDB, whose videos are the actions.")
    _check_runner(ctx, options)
    for name, source in _OWN_OPTIONS.items():
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        sources = (source,) if isinstance(source, str) else source
        if given and options["source"] not in sources:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is for --source {' or '.join(sources)}. "
                f"Received: --source {options['source']}."
            )


def _check_runner(ctx: click.Context, options: dict[str, Any]) -> None:
    if options["runner"] == "beam":
        if ctx.get_parameter_source("workers") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--workers is for --runner local; Apache Beam has options of its own.")
        if options["features"] is not None:
            raise click.UsageError("--features is for --runner local. Run extract-features afterwards.")
    elif options["beam_options"]:
        raise click.UsageError(
            f"Apache Beam's options need --runner beam. Received: {' '.join(options['beam_options'])}."
        )


def _build_options(options: dict[str, Any], protocol: Protocol) -> BuildOptions:
    from tf_records.container import Limits
    from tf_records.flow import describe_flow, proportional_bound
    from tf_records.plan import BuildOptions

    flow = None
    if "flow" in options["modality"]:
        bound = options["flow_bound"]
        bound = proportional_bound(options["short_side"]) if bound is None else bound
        flow = describe_flow(options["flow_algorithm"], bound)
    limits = {name: options[name] for name in ("max_pixels", "max_seconds") if options[name] is not None}
    longest_s = options["longest_anticipation_s"]
    if protocol.times_s:
        longest_s = max(protocol.times_s[-1], longest_s or 0.0)
    same = (
        "short_side",
        "jpeg_quality",
        "modality",
        "shards",
        "max_damaged_frames",
    )
    return BuildOptions(
        clip=protocol.clip,
        fps=protocol.fps,
        flow=flow,
        limits=Limits(**limits),
        longest_anticipation_s=longest_s,
        times_s=protocol.times_s,
        **{name: options[name] for name in same},
    )


def _read_source(options: dict[str, Any], protocol: Protocol, build_options: BuildOptions) -> Annotations:
    from tf_records.files import check_apart
    from tf_records.sources.read import SourceOptions, read_annotations

    out, source = options["out"], options["input_path"]
    # Below a folder of videos records overwrite nothing of it.
    if out is not None and not (isinstance(out, Path) and source.resolve() in out.resolve().parents):
        check_apart(out, source)
    same = (
        "source",
        "split",
        "classes",
        "drift",
        "allow_outside",
        "skip_bad_rows",
        "label_fraction",
        "limit",
        "seed",
    )
    mining = ("unlabeled_per_label", "vicinity_s", "mining_seed")
    wanted = SourceOptions(
        path=options["input_path"],
        need_videos=not options["dry_run"],
        limits=build_options.limits,
        **{name: options[name] for name in (*same, *mining)},
        target=",".join(options["target"]),
    )
    return read_annotations(wanted, protocol)


def _report_overlaps(overlaps: tuple[str, ...], strict: bool) -> None:
    """On stderr, which stretches of video are in two splits, or the first of them."""
    for line in overlaps[:_LINES]:
        click.echo(f"Warning: {printable(line)}.", err=True)
    if len(overlaps) > _LINES:
        click.echo(f"… {len(overlaps)} stretches are in two splits in all.", err=True)
    if overlaps and strict:
        raise AnnotationError(
            f"{len(overlaps)} stretches of video are in two splits, and --strict was given. What is tested "
            f"should not be trained on: take these rows out of one split."
        )


def _report_missing(skipped: list[dict[str, str]], absent: dict[str, list[str]]) -> None:
    """On stderr, what was skipped and what is absent, or the first of it."""
    for item in skipped[:_LINES]:
        click.echo(printable(f"Skipped {item['video']}: {item['reason']}"), err=True)
    if len(skipped) > _LINES:
        click.echo(f"… {len(skipped)} skipped in all.", err=True)
    for what, names in absent.items():
        if names:
            click.echo(f"Absent {what}, {len(names)}: {printable(_list_names(names))}", err=True)


def _report_doubts(
    damaged_frames: dict[str, int], guessed_fps: dict[str, float], open_ended: list[str]
) -> None:
    """On stderr, which videos have damaged frames, state no rate or no end, or the first of them."""
    for video, count in [*damaged_frames.items()][:_LINES]:
        line = f"Damaged {video}: {count} of its frames in the records are corrupt or predicted from such."
        click.echo(printable(line), err=True)
    if len(damaged_frames) > _LINES:
        click.echo(f"… {len(damaged_frames)} videos with damaged frames in all.", err=True)
    if guessed_fps:
        names = _list_names([f"{video} ({fps:.4g})" for video, fps in guessed_fps.items()])
        click.echo(f"No frame rate is stated, so that FFmpeg's guess is taken: {printable(names)}", err=True)
    if open_ended:
        names = _list_names(open_ended)
        click.echo(f"No end is stated, so that a cut copy looks whole: {printable(names)}", err=True)


def _list_names(names: list[str]) -> str:
    return ", ".join([*names[:_NAMES], *(["…"] if len(names) > _NAMES else [])])


def _build(annotations: Annotations, build_options: BuildOptions, options: dict[str, Any]) -> dict[str, Any]:
    """Builds, and returns the summary; no frames are decoded where a finished build is resumed."""
    from .output import BuildProgress

    write_shards = None
    if options["runner"] == "beam":
        from tf_records.beam import parse_beam_options, write_shards_on_beam

        beam_options = parse_beam_options(options["beam_options"])
        write_shards = functools.partial(write_shards_on_beam, options=beam_options)
    arguments = {name: options[name] for name in ("workers", "resume", "overwrite")}
    with BuildProgress(len(annotations.samples)) as progress:
        arguments |= {"on_shard": progress.add_shard, "write_shards": write_shards}
        if options["features"] is None:
            from tf_records.writer import build_records as build

            arguments["report"] = progress.say
            manifest = build(annotations, options["out"], build_options, **arguments)
        else:
            say_if_random(options["features"])
            start_tensorflow()
            from kdant_tf.training.feature_extraction import build_features

            arguments |= {"init": options["features"], "on_record": progress.add_features}
            manifest = build_features(annotations, options["out"], build_options, **arguments)
    return {**manifest.summary(), "frames_decoded": progress.frames_decoded}


def _print(summary: dict[str, Any], built: RecordPath | None, as_json: bool) -> None:
    """The summary on stdout, and below the table what to do next with the folder that was built."""
    from .output import print_json, print_table

    if as_json:
        print_json(summary)
        return
    rows = [
        (name, split["labeled"], split["unlabeled"], split["shards"], f"{split['bytes'] / 1e6:.1f}")
        for name, split in summary["splits"].items()
    ]
    title = f"{len(summary['classes'])} classes: {_list_names(summary['classes'])}"
    if "heads" in summary:
        title = f"Heads: {describe_heads(heads_from(summary['heads']))}"
    print_table(title, ("split", "labelled", "unlabelled", "shards", "MB"), rows)
    if built is not None:
        click.echo(f"Next: {command_line('train-teacher', '--records', built, '--out', 'teacher')}")
