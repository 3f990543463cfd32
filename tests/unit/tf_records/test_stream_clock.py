"""Every frame once, in order, at the player's time: whatever the container does to time stamps."""

from collections.abc import Callable
from pathlib import Path

import pytest
from counted_videos import RATE, encode, pack, read_number, remux

from tf_records.errors import VideoError
from tf_records.video import open_video

FRAMES = 120
NUMBERS = range(FRAMES)
Write = Callable[[Path], Path]


def join(path: Path, codec: str, b_frames: int, second_s: float, container: str) -> Path:
    """Two files of one stream each as one, the clock of the second from `second_s` on."""
    parts = [
        encode(
            path.with_name(f"{number}.{container}"),
            NUMBERS[number * 60 : number * 60 + 60],
            codec=codec,
            b_frames=b_frames,
            first_s=number * second_s,
            format={"mpg": "mpeg", "ts": "mpegts"}[container],
        )
        for number in range(2)
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def copied(path: Path, codec: str) -> Path:
    """Copied out of an AVI, whose stamps come along."""
    return remux(encode(path.with_suffix(".avi"), NUMBERS, codec=codec), path)


INTRA_REFRESH = {"x264-params": "intra-refresh=1:keyint=30"}
KINDS: dict[str, tuple[str, Write]] = {
    "ts": ("v.ts", lambda p: encode(p, NUMBERS)),
    "ts of one group": ("v.ts", lambda p: encode(p, NUMBERS, gop=1000)),
    "ts, open groups": ("v.ts", lambda p: encode(p, NUMBERS, options={"x264-params": "open-gop=1"}, gop=30)),
    "ts with sound": ("v.ts", lambda p: encode(p, NUMBERS, sound=("mp2", 4.8))),
    "m2ts": ("v.m2ts", lambda p: encode(p, NUMBERS, format="mpegts", muxer={"mpegts_m2ts_mode": "1"})),
    "ts, mpeg1": ("v.ts", lambda p: encode(p, NUMBERS, codec="mpeg1video")),
    "mpg": ("v.mpg", lambda p: encode(p, NUMBERS, codec="mpeg2video", format="mpeg")),
    "avi, h264": ("v.avi", lambda p: encode(p, NUMBERS)),
    "avi, h264, three b-frames": ("v.avi", lambda p: encode(p, NUMBERS, b_frames=3)),
    "avi, h264, no b-frames": ("v.avi", lambda p: encode(p, NUMBERS, b_frames=0)),
    "avi, mpeg4": ("v.avi", lambda p: encode(p, NUMBERS, codec="mpeg4")),
    "avi, mpeg2": ("v.avi", lambda p: encode(p, NUMBERS, codec="mpeg2video")),
    "avi, mpeg1": ("v.avi", lambda p: encode(p, NUMBERS, codec="mpeg1video")),
    "avi, h264, as mkv": ("v.mkv", lambda p: copied(p, "libx264")),
    "avi, h264, as mp4": ("v.mp4", lambda p: copied(p, "libx264")),
    "avi, mpeg4, as mkv": ("v.mkv", lambda p: copied(p, "mpeg4")),
    "avi, mpeg2, as ts": ("v.ts", lambda p: copied(p, "mpeg2video")),
    "avi, packed mpeg4": ("v.avi", lambda p: pack(p, NUMBERS)),
    "avi, packed mpeg4, as mkv": ("v.mkv", lambda p: remux(pack(p.with_suffix(".avi"), NUMBERS), p)),
    "joined ts": ("v.ts", lambda p: join(p, "libx264", 0, 0.0, "ts")),
    "joined ts, b-frames": ("v.ts", lambda p: join(p, "libx264", 2, 0.0, "ts")),
    "joined ts, the clock leaps": ("v.ts", lambda p: join(p, "libx264", 2, 500.0, "ts")),
    "joined mpg": ("v.mpg", lambda p: join(p, "mpeg2video", 2, 0.0, "mpg")),
    "intra refresh": ("v.mp4", lambda p: encode(p, NUMBERS, b_frames=0, options=INTRA_REFRESH)),
    "intra refresh in ts": ("v.ts", lambda p: encode(p, NUMBERS, b_frames=0, options=INTRA_REFRESH)),
    "mp4": ("v.mp4", lambda p: encode(p, NUMBERS, gop=30)),
    "mp4, nothing is reordered": ("v.mp4", lambda p: encode(p, NUMBERS, b_frames=0)),
    "mkv, more sound": ("v.mkv", lambda p: encode(p, NUMBERS, sound=("aac", 9.0))),
    "webm, more sound": ("v.webm", lambda p: encode(p, NUMBERS, codec="libvpx", sound=("libopus", 9.0))),
    "flv, more sound": ("v.flv", lambda p: encode(p, NUMBERS, sound=("aac", 9.0))),
    "mkv, starts late": ("v.mkv", lambda p: encode(p, NUMBERS, first_s=2.0)),
}


def read(path: Path, fps: float | None) -> list[int]:
    """The numbers of a clock's frames over the whole video."""
    with open_video(path) as video:
        ticks = range(video.info.first_tick(fps), video.info.stop_tick(fps))
        return [read_number(frame) for frame in video.shown_at([video.info.shown_s(t, fps) for t in ticks])]


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_comes_once_and_in_order_wherever_one_starts(tmp_path: Path, kind: str) -> None:
    name, write = KINDS[kind]
    path = write(tmp_path / name)
    with open_video(path) as video:
        assert [read_number(frame) for frame in video.stored()] == list(NUMBERS)
        assert (video.info.frames, video.info.start_s < 0.03, video.info.fps) == (FRAMES, True, RATE)
    assert read(path, None) == read(path, float(RATE)) == list(NUMBERS)
    for number in range(2, FRAMES, 13):
        with open_video(path) as video:
            stretch = range(number, min(number + 4, FRAMES))
            shown = video.shown_at([video.info.shown_s(tick, None) for tick in stretch])
            assert [read_number(frame) for frame in shown] == list(stretch)


LATE = {
    "mp4": ("v.mp4", "libx264", "aac"),
    "mkv": ("v.mkv", "libx264", "aac"),
    "webm": ("v.webm", "libvpx", "libopus"),
    "flv": ("v.flv", "libx264", "aac"),
    "ts": ("v.ts", "libx264", "mp2"),
}


@pytest.mark.parametrize("kind", LATE)
def test_zero_is_the_players_where_sound_comes_first(tmp_path: Path, kind: str) -> None:
    """Two seconds of sound, then the video: at 3.01 s a player shows frame 25."""
    name, codec, sound = LATE[kind]
    path = encode(tmp_path / name, NUMBERS, codec=codec, sound=(sound, 5.0), first_s=2.0)
    with open_video(path) as video:
        assert video.info.start_s == pytest.approx(2.0, abs=0.03)
        assert video.info.duration_s == pytest.approx(2.0 + FRAMES / RATE, abs=0.05)
        times_s = [0.5, *(video.info.start_s + more_s for more_s in (0.01, 1.01, 4.69))]
        assert [read_number(frame) for frame in video.shown_at(times_s)] == [0, 0, 25, 117]
    assert read(path, None) == read(path, float(RATE)) == list(NUMBERS)


@pytest.mark.parametrize("kind", ["mkv, more sound", "mkv, starts late", "avi, mpeg2", "m2ts", "joined ts"])
def test_a_file_cut_short_is_still_refused(tmp_path: Path, kind: str) -> None:
    name, write = KINDS[kind]
    content = write(tmp_path / name).read_bytes()
    cut = tmp_path / f"cut{Path(name).suffix}"
    cut.write_bytes(content[: len(content) * 6 // 10 // 188 * 188 + 90])
    with pytest.raises(VideoError, match="cut short"), open_video(cut) as video:
        list(video.stored())


def test_sound_that_was_cut_is_no_fault_of_the_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mkv", NUMBERS, sound=("aac", 9.0))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[:-2000])
    assert read(cut, None) == list(NUMBERS)
