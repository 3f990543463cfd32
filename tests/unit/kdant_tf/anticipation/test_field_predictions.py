"""Predictions on files as users have them: which frames a model is shown, and the times that are told."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from counted_videos import read_number
from kdant_cli.main import main

from kdant_tf.anticipation.anticipate import predict
from kdant_tf.anticipation.overlay import OverlayPanel, OverlayVideo
from kdant_tf.anticipation.sources import open_source
from kdant_tf.serving.model import AnticipationModel
from tf_records.schema import ClipSpec

COMMAND = "import sys; from kdant_cli.main import main; sys.argv[0] = 'kdant'; main()"


def watch(path: Path, *, fps: float | None, stride_s: float = 0.2) -> dict[float, list[int]]:
    """Time of a clip's last frame → the numbers of the clip's frames."""
    clips: list[list[int]] = []

    def infer(given: np.ndarray) -> np.ndarray:
        clips.append([read_number(frame) for frame in given[0]])
        return np.full((1, 2), 0.5, np.float32)

    model = AnticipationModel(
        name="recorder",
        classes=("a", "b"),
        clip=ClipSpec(clip_frames=4, offset_frames=8),
        modality="rgb",
        short_side=48,
        fps=fps,
        anticipates=True,
        infer=infer,
    )
    times = [each.time_s for each in predict(path, model, stride_s=stride_s)]
    return dict(zip(times, clips[1:], strict=True))  # the first clip is the one that warms up


@pytest.mark.parametrize("fps", [None, 25.0])
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("ts_b_frames.ts", 300),
        ("avi_h264_b_frames.avi", 200),
        ("avi_mpeg2_b_frames.avi", 200),
        ("concatenated_clock_restarts.ts", 200),
        ("whole_video.mpg", 300),
    ],
)
def test_every_clip_holds_frames_in_a_row_up_to_its_time(
    field: Path, name: str, frames: int, fps: float | None
) -> None:
    clips = watch(field / name, fps=fps)
    assert len(clips) == (frames - 4) // 5 + 1
    for time_s, numbers in clips.items():
        last = round(time_s * 25)
        assert numbers == [last - 3, last - 2, last - 1, last]


@pytest.mark.parametrize("fps", [None, 30.0])
def test_times_are_those_of_a_player(field: Path, fps: float | None) -> None:
    """Of a video that begins 2 s after its sound; nothing is expected of what is not shown."""
    clips = watch(field / "video_starts_2s_after_audio.mp4", fps=fps, stride_s=1 / 30)
    assert min(clips) == pytest.approx(2 + 3 / 30)
    assert max(clips) == pytest.approx(2 + 299 / 30)
    at_3_s = {round(time_s, 3): numbers for time_s, numbers in clips.items()}[3.0]
    assert at_3_s == [27, 28, 29, 30]


def lines_of(stdout: str) -> list[dict[str, Any]]:
    return [{**json.loads(line), "source": ""} for line in stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["concatenated_clock_restarts.ts", "ts_b_frames.ts"])
def test_a_stream_says_what_its_file_says(field: Path, exported: Path, name: str) -> None:
    args = ["--model", str(exported), "--json-lines", "--stride-s", "0.5"]
    given = CliRunner().invoke(main, ["predict", str(field / name), *args])
    assert given.exit_code == 0, given.stderr
    with (field / name).open("rb") as file:
        piped = subprocess.run(
            [sys.executable, "-c", COMMAND, "predict", "-", *args],
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
        )
    assert piped.returncode == 0, piped.stderr
    assert lines_of(piped.stdout) == lines_of(given.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate", "start_s"),
    [
        ("avi_h264_b_frames.avi", 25, 0.0),
        ("ts_b_frames.ts", 25, 0.0),
        ("video_starts_2s_after_audio.mp4", 30, 2.0),
    ],
)
def test_an_overlay_has_each_frame_once_at_its_time(
    field: Path, tmp_path: Path, name: str, rate: int, start_s: float
) -> None:
    out = tmp_path / "over.mkv"
    with (
        closing(open_source(field / name)) as source,
        OverlayVideo(out, source, OverlayPanel(("a",), ahead_s=0.1, stride_s=0.25)) as overlay,
    ):
        for timed in source.frames():
            overlay.draw(timed)
    with av.open(str(out)) as container, av.open(str(field / name)) as original:
        times = [frame.time for frame in container.decode(video=0)]
        assert len(container.streams.audio) == len(original.streams.audio)
    # Matroska begins at 0, AAC a moment before it: all is as much later.
    assert times[0] == pytest.approx(start_s, abs=0.03)
    np.testing.assert_allclose(np.diff(times), 1 / rate, atol=2e-3)
    with av.open(str(field / name)) as original:
        assert len(times) == sum(1 for _ in original.decode(video=0))
