"""Files as users have them: what records hold of each, by the frames' numbers, and that predict agrees."""

import os
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from counted_videos import build, encode, read_number

from kdant_tf.anticipation.anticipate import Resampler
from kdant_tf.anticipation.sources import TimedFrame, open_source
from tf_records.errors import RecordError, VideoError
from tf_records.video import open_video
from tf_records.video_file import Resizer


class Kind(NamedTuple):
    """A file: its frames and their rate, when the first is shown, and whether frames tell their number."""

    frames: int
    rate: int = 25
    start_s: float = 0.0
    counted: bool = True


FIELD = {
    "ts_b_frames.ts": Kind(300),
    "avi_h264_b_frames.avi": Kind(200),
    "avi_mpeg2_b_frames.avi": Kind(200),
    "audio_outlasts_video.mkv": Kind(100, counted=False),
    "video_starts_2s_after_audio.mp4": Kind(300, 30, 2.0),
    "two_video_streams.mp4": Kind(300, 30),
    "concatenated_clock_restarts.ts": Kind(200),
    "whole_video.mpg": Kind(300),
    "no_stated_rate.ogv": Kind(100, counted=False),
}


@pytest.mark.parametrize("given", [False, True], ids=["own clock", "--fps"])
@pytest.mark.parametrize("name", FIELD)
def test_records_hold_the_right_frames(field: Path, tmp_path: Path, name: str, given: bool) -> None:
    kind = FIELD[name]
    end_s = kind.start_s + kind.frames / kind.rate
    middle = kind.start_s + 2.0
    times = [None, (middle, middle + 0.4), (kind.start_s, kind.start_s + 0.4), (end_s - 0.4, end_s)]
    options = {"fps": float(kind.rate)} if given else {}
    (whole, stretch, first, last), manifest = build(tmp_path / "build", field / name, times, **options)
    few = round(0.4 * kind.rate)
    assert [len(whole), len(stretch), len(first), len(last)] == [kind.frames, few, few, few]
    assert manifest.skipped == ()
    if kind.counted:
        assert whole == list(range(kind.frames))
        assert stretch == whole[2 * kind.rate :][:few]
        assert (first, last) == (whole[:few], whole[-few:])


@pytest.mark.parametrize("name", FIELD)
def test_predict_sees_the_same_frames_as_records(field: Path, name: str) -> None:
    for fps in (None, 12.0):
        with open_video(field / name, short_side=48) as video:
            ticks = range(video.info.first_tick(fps), video.info.stop_tick(fps))
            recorded = list(video.shown_at([video.info.shown_s(tick, fps) for tick in ticks]))
        source = open_source(str(field / name))
        assert source.rate is not None
        resampler, resizer = Resampler(source.rate, fps), Resizer(48, video._limits)
        shown = [pair for timed in source.frames() for pair in resampler.push(timed)]
        shown += resampler.finish()
        assert source.problems() == []
        assert [tick for tick, _ in shown][: len(ticks)] == list(ticks)
        for (_, frame), own in zip(shown, recorded, strict=False):
            np.testing.assert_array_equal(resizer.convert(frame, name), own)


def test_a_program_stream_on_stdin_shows_what_the_file_shows(tmp_path: Path) -> None:
    """FFmpeg cannot go back there, and gives the first frames other stamps than in a file."""
    path = encode(tmp_path / "v.mpg", range(60), codec="mpeg1video", format="mpeg")
    kept = os.dup(0)
    try:
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)
            shown = [
                (round(time_s, 3), read_number(f.to_ndarray(format="rgb24"))) for time_s, f in _frames("-")
            ]
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert shown == [(round(number / 25, 3), number) for number in range(60)]
    assert [time_s for time_s, _ in _frames(str(path))] == pytest.approx([time_s for time_s, _ in shown])


def _frames(source: str) -> list[TimedFrame]:
    return list(open_source(source).frames())


def test_predict_counts_what_is_predicted_from_damage(field: Path) -> None:
    source = open_source(str(field / "flagged_corrupt.mp4"))
    assert len(list(source.frames())) == 300
    assert source.problems() == ["54 frames are damaged."]


def test_a_video_refreshed_bit_by_bit_is_right_wherever_one_starts(field: Path) -> None:
    for number in (61, 431, 1507, 2999):
        with open_video(field / "intra_refresh.mp4", short_side=48) as video:
            (frame,) = video.shown_at([video.info.shown_s(number, None)])
            assert read_number(frame) == number


def test_a_video_whose_shape_changes_is_skipped_and_named(field: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecordError, match=r"size_changes\.mkv changes the shape of its picture .* 64x48 and 96x48"
    ):
        build(tmp_path / "whole", field / "size_changes.mkv", [None])
    (before, after), manifest = build(
        tmp_path / "parts", field / "size_changes.mkv", [(0.4, 1.2), (2.0, 4.0), (4.0, 5.0)]
    )
    assert (before, after) == (list(range(10, 30)), list(range(100, 125)))
    assert len(manifest.skipped) == 1


def test_a_video_whose_size_changes_but_not_its_shape_gets_one_size(tmp_path: Path) -> None:
    """Matroska takes H.264 of two sizes one after the other, each with headers of its own."""
    headers = {"x264-params": "repeat-headers=1"}
    parts = [
        encode(
            tmp_path / f"{number}.h264",
            range(50 * number, 50 * number + 50),
            b_frames=0,
            size=size,
            options=headers,
            format="h264",
        )
        for number, size in enumerate([(128, 96), (256, 192)])
    ]
    path = tmp_path / "v.mkv"
    with (
        av.open(str(path), "w") as container,
        av.open(str(parts[0])) as first,
        av.open(str(parts[1])) as second,
    ):
        stream = container.add_stream_from_template(first.streams.video[0])
        packets = [packet for part in (first, second) for packet in part.demux() if packet.size]
        for number, packet in enumerate(packets):
            packet.time_base, packet.stream = Fraction(1, 25), stream
            packet.pts = packet.dts = number
            packet.duration = 1
            container.mux(packet)
    (whole,), manifest = build(tmp_path / "build", path, [None])
    assert whole == list(range(100))
    assert manifest.skipped == ()


def test_frames_that_ffmpeg_flags_are_counted_and_too_many_skipped(field: Path, tmp_path: Path) -> None:
    video = field / "flagged_corrupt.mp4"
    records, manifest = build(tmp_path / "counted", video, [None, (7.0, 9.0), (1.0, 2.0)])
    assert manifest.damaged_frames == {"flagged_corrupt.mp4": 54}
    assert (len(records), len(manifest.skipped)) == (2, 1)
    assert manifest.summary()["damaged_frames"] == {"flagged_corrupt.mp4": 54}
    records, manifest = build(tmp_path / "none", video, [(7.0, 9.0), (1.0, 2.0)], max_damaged_frames=0.0)
    assert records == [list(range(30, 60))]
    assert "has 28 damaged frames among the 64 of an action" in manifest.skipped[0].reason
    assert manifest.damaged_frames == {"flagged_corrupt.mp4": 28}


def test_a_guessed_rate_is_noted(field: Path, tmp_path: Path) -> None:
    _, manifest = build(tmp_path / "build", field / "no_stated_rate.ogv", [None])
    assert manifest.guessed_fps == {"no_stated_rate.ogv": 25.0}


@pytest.mark.parametrize("name", ["audio_outlasts_video.mkv", "no_stated_rate.ogv", "ts_b_frames.ts"])
def test_a_file_cut_short_is_refused(field: Path, tmp_path: Path, name: str) -> None:
    content = (field / name).read_bytes()
    cut = tmp_path / f"cut{Path(name).suffix}"
    cut.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(VideoError, match="cut short"), open_video(cut) as video:
        list(video.stored())


def test_nothing_is_shown_before_the_video_begins(field: Path, tmp_path: Path) -> None:
    video = field / "video_starts_2s_after_audio.mp4"
    (action,), manifest = build(tmp_path / "build", video, [(3.0, 3.5), (0.5, 1.5)])
    assert action == list(range(30, 45))
    assert "shows nothing before 2.00 s" in manifest.skipped[0].reason
