"""kdant predict"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tf_records.errors import KdantError

from .command import KdantCommand
from .options import FOLDER
from .server_options import open_model, server_options


@click.command("predict", cls=KdantCommand)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--model", "folder", required=True, type=FOLDER, help="Run folder, or one written by export.")
@click.option(
    "--stride-s",
    type=click.FloatRange(0, 3600, min_open=True),
    default=0.25,
    show_default=True,
    help="Seconds from one clip to the next.",
)
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="Actions shown of each time."
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.0, help="Leave less probable actions out."
)
@click.option("--json-lines", is_flag=True, help="Print one JSON object a clip.")
@click.option(
    "--overlay",
    type=FOLDER,
    help="Also write a copy of the video with the likeliest actions drawn over it: FILE.mp4, .mov or .mkv.",
)
@click.option("--live", is_flag=True, help="stdin does not wait: drop clips rather than fall behind.")
@click.option("--latency", is_flag=True, help="Report what share of the anticipation time computing takes.")
@click.option(
    "--fps",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Frames per second of the model's clips; default: those it was trained on, or else the source's.",
)
@click.option(
    "--source-fps",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Frames per second of a source that states none, such as a folder; default: the model's.",
)
@click.option(
    "--reconnect-s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds that an rtsp:// stream or a camera may be away before it is given up; 0: not at all.",
)
@click.option(
    "--flow-algorithm",
    type=click.Choice(["tvl1", "dis", "farneback"]),
    help="For a model of optical flow; default: as its records were made.",
)
@server_options
def predict(
    sources: tuple[str, ...],
    folder: Path,
    stride_s: float,
    top: int,
    threshold: float,
    json_lines: bool,
    overlay: Path | None,
    live: bool,
    latency: bool,
    fps: float | None,
    source_fps: float | None,
    reconnect_s: float,
    flow_algorithm: str | None,
    **where: Any,
) -> None:
    """Say what is about to happen, time by time, in videos and streams.

    SOURCE is a video file, a folder of numbered pictures, - for a stream on stdin, the number of a camera, or
    an rtsp:// URL; several are gone through one after the other. A window of the length of the model's clips
    slides over it; for each time it is said what is expected when the model's offset has passed.
    """
    from kdant_tf.anticipation.source import check_source

    for text in sources:
        check_source(text, live=live)
    if overlay is not None:
        _check_overlay(overlay, sources, live)
    model = open_model(folder, **where)
    from .anticipation_output import Wishes, show_anticipations, warm_up

    if fps is not None:
        model = dataclasses.replace(model, fps=fps)
    wishes = Wishes(
        live=live,
        source_fps=source_fps,
        reconnect_s=reconnect_s,
        stride_s=stride_s,
        flow=_choose_flow(model, flow_algorithm),
        top=top,
        threshold=threshold,
        json_lines=json_lines,
        latency=latency,
        overlay=overlay,
    )
    warm_up(model)
    _go_through_all(sources, lambda text: show_anticipations(text, model, wishes))


def _go_through_all(sources: tuple[str, ...], go_through: Callable[[str], None]) -> None:
    """One source that fails does not keep the others from being gone through."""
    failed = 0
    for text in sources:
        try:
            go_through(text)
        except KdantError as error:
            if len(sources) == 1:
                raise
            failed += 1
            click.echo(f"Error: {error}", err=True)
    if failed:
        raise KdantError(f"{failed} of {len(sources)} sources could not be gone through, see above.")


def _check_overlay(overlay: Path, sources: tuple[str, ...], live: bool) -> None:
    from kdant_tf.anticipation.overlay_video import check_overlay
    from kdant_tf.anticipation.source import is_live

    if len(sources) > 1 or live or is_live(sources[0]):
        raise click.UsageError("--overlay is for one source, which waits for its frames to be read.")
    check_overlay(overlay, sources[0])


def _choose_flow(model: Any, algorithm: str | None) -> Any:
    """How flow is computed, for a model that sees it."""
    from tf_records.flow import describe_flow

    if "flow" not in model.modality:
        return None
    if algorithm is not None:
        return describe_flow(algorithm) if model.flow is None else describe_flow(algorithm, model.flow.bound)
    if model.flow is None:  # Of an older run.
        raise KdantError(
            f"Model {model.name} sees optical flow. Say how that of its records was computed, which kdant "
            f"inspect tells: --flow-algorithm tvl1, dis or farneback."
        )
    # With the OpenCV that is here.
    return dataclasses.replace(model.flow, opencv=describe_flow(model.flow.algorithm).opencv)
