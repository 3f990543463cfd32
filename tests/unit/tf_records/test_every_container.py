"""Containers and codecs as users have them: every frame of records and of predict, by the number it shows."""

import shutil
import subprocess
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import pytest
from counted_videos import RATE, add_video, build, draw_number, encode, pack, predicted, remux

from tf_records.errors import VideoError
from tf_records.video import open_video

FRAMES = 60
NUMBERS = range(FRAMES)
Write = Callable[[Path], Path]


class Kind(NamedTuple):
    """How to write a file of `frames` frames, and when the first one is shown."""

    name: str
    write: Write
    frames: int = FRAMES
    start_s: float = 0.0
    rate: float = RATE
    guessed: bool = False


def encoded(name: str, *, numbers: Iterable[int] = NUMBERS, **options: object) -> Kind:
    """A file with a key frame every 30 frames, if nothing else is said."""
    numbers, options = list(numbers), {"gop": 30, **options}
    late_s = max(0.0, float(options.get("first_s", 0.0))) if "sound" in options else 0.0
    shown = len([number for number in numbers if number >= 0])
    drawn = [number % 4096 for number in numbers]
    return Kind(
        name, lambda path: encode(path, drawn, **options), shown, late_s, float(options.get("rate", RATE))
    )


def copied(name: str, source: str, **options: object) -> Kind:
    """Copied out of another container, its stamps too."""
    return Kind(name, lambda path: remux(encode(path.with_name(source), NUMBERS, **options), path))


def run_ffmpeg(path: Path, *args: str, **options: object) -> Path:
    """What the ffmpeg of this machine makes of an encoded file; skips where there is none."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg here")
    source = encode(path.with_name("source.mp4"), NUMBERS, **{"gop": 30, **options})
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-i", source, *args, path], check=True, stdin=subprocess.DEVNULL
    )
    return path


# MPEG streams, and raw ones, do not say where they end.
OPEN_ENDED = {".ts", ".m2ts", ".mpg", ".vob", ".m1v", ".m2v", ".h264", ".hevc", ".mjpeg"}
REFUSED = r"cut short|cannot be (opened|decoded)|no frame that can be decoded"
OPEN_GROUPS = {"x264-params": "open-gop=1"}
INTERLACED = {"flags": "+ildct+ilme"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
NEGATIVE = {"avoid_negative_ts": "disabled"}
KINDS: dict[str, Kind] = {
    "ts, h264": encoded("v.ts"),
    "ts, h264, open groups": encoded("v.ts", options=OPEN_GROUPS),
    "ts, h264, one group": encoded("v.ts", gop=1000),
    "ts, hevc": encoded("v.ts", codec="libx265"),
    "ts, hevc, one group": encoded("v.ts", codec="libx265", gop=1000),
    "ts, mpeg2": encoded("v.ts", codec="mpeg2video"),
    "ts, mpeg2, one group": encoded("v.ts", codec="mpeg2video", gop=600),
    "ts, sound first": encoded("v.ts", sound=("mp2", 4.0), first_s=1.0),
    "m2ts, h264": encoded("v.m2ts", format="mpegts", muxer={"mpegts_m2ts_mode": "1"}),
    "m2ts, mpeg2": encoded("v.m2ts", codec="mpeg2video", format="mpegts", muxer={"mpegts_m2ts_mode": "1"}),
    "mpg, mpeg2": encoded("v.mpg", codec="mpeg2video", format="mpeg"),
    "vob, mpeg2": encoded("v.vob", codec="mpeg2video", format="vob", sound=("ac3", 3.0)),
    "mpg, mpeg1": encoded("v.mpg", codec="mpeg1video", format="mpeg"),
    "raw mpeg1": encoded("v.m1v", codec="mpeg1video", format="mpeg1video"),
    "raw mpeg2": encoded("v.m2v", codec="mpeg2video", format="mpeg2video"),
    "raw mpeg2, nothing reordered": encoded("v.m2v", codec="mpeg2video", format="mpeg2video", b_frames=0),
    "raw h264": encoded("v.h264", format="h264"),
    "raw hevc": encoded("v.hevc", codec="libx265", format="hevc"),
    "raw mjpeg": encoded("v.mjpeg", codec="mjpeg", format="mjpeg", b_frames=0),
    "avi, h264": encoded("v.avi"),
    "avi, mpeg4": encoded("v.avi", codec="mpeg4"),
    "avi, mpeg2": encoded("v.avi", codec="mpeg2video"),
    "avi, packed mpeg4": Kind("v.avi", lambda path: pack(path, NUMBERS)),
    "avi, mjpeg": encoded("v.avi", codec="mjpeg", b_frames=0),
    "avi, more sound": encoded("v.avi", codec="mpeg4", sound=("mp2", 6.0)),
    "mkv, h264": encoded("v.mkv"),
    "mkv, hevc": encoded("v.mkv", codec="libx265"),
    "mkv, ffv1": encoded("v.mkv", codec="ffv1", b_frames=0),
    "mkv, mpeg2 from avi": copied("v.mkv", "v.avi", codec="mpeg2video"),
    "mkv, more sound": encoded("v.mkv", sound=("aac", 6.0)),
    "mkv, sound first": encoded("v.mkv", sound=("aac", 4.0), first_s=1.0),
    "webm, vp8": encoded("v.webm", codec="libvpx", b_frames=0),
    "webm, vp9": encoded("v.webm", codec="libvpx-vp9", b_frames=0),
    "webm, vp9 with sound first": encoded(
        "v.webm", codec="libvpx-vp9", b_frames=0, sound=("libopus", 5.0), first_s=1.0
    ),
    "ogv, vp8": encoded("v.ogv", codec="libvpx", b_frames=0)._replace(guessed=True),
    "nut, h264": encoded("v.nut"),
    "nut, mpeg4": encoded("v.nut", codec="mpeg4"),
    "nut, sound first": encoded("v.nut", sound=("aac", 4.0), first_s=1.0),
    "ogv, theora": Kind(
        "v.ogv", lambda path: run_ffmpeg(path, "-c:v", "libtheora", "-q:v", "9"), guessed=True
    ),
    "mxf, mpeg2": encoded("v.mxf", codec="mpeg2video"),
    "asf, wmv2": encoded("v.wmv", codec="wmv2", format="asf", b_frames=0),
    "flv, h264": encoded("v.flv"),
    "flv, flv1": encoded("v.flv", codec="flv", b_frames=0),
    "flv, sound first": encoded("v.flv", sound=("aac", 4.0), first_s=1.0),
    "3gp, h263": encoded("v.3gp", codec="h263", b_frames=0, format="3gp"),
    "3gp, mpeg4": encoded("v.3gp", codec="mpeg4", format="3gp"),
    "mp4, h264": encoded("v.mp4"),
    "mp4, h264, open groups": encoded("v.mp4", options=OPEN_GROUPS),
    "mp4, hevc": encoded("v.mp4", codec="libx265"),
    "mp4, mpeg4": encoded("v.mp4", codec="mpeg4"),
    "mp4, negative offsets of composition": encoded("v.mp4", muxer={"movflags": "negative_cts_offsets"}),
    "mp4, fragmented": encoded("v.mp4", muxer=FRAGMENTED),
    "mp4, more sound": encoded("v.mp4", sound=("aac", 6.0)),
    "mp4, sound first": encoded("v.mp4", sound=("aac", 4.0), first_s=1.0),
    "mov, prores": encoded("v.mov", codec="prores_ks", b_frames=0),
    # The first frames lie before 0: only players that know no edit lists show them.
    "mov, edit list": encoded("v.mov", numbers=range(-25, FRAMES), first_s=-1.0),
    "mp4, edit list and sound": encoded(
        "v.mp4", numbers=range(-25, FRAMES), first_s=-1.0, sound=("aac", 3.0)
    ),
    "mkv, from before 0": encoded("v.mkv", first_s=-1.0, muxer=NEGATIVE),
    "mkv, from before 0, nothing reordered": encoded("v.mkv", first_s=-1.0, muxer=NEGATIVE, b_frames=0),
    "mkv, sound from 0, video from before": encoded(
        "v.mkv", first_s=-1.0, muxer=NEGATIVE, sound=("aac", 2.0)
    ),
    "interlaced h264 in ts": encoded("v.ts", options={"x264-params": "tff=1"}),
    "interlaced h264 in mkv": encoded("v.mkv", options={"x264-params": "tff=1"}),
    "interlaced mpeg2 in ts": encoded("v.ts", codec="mpeg2video", options=INTERLACED),
    "interlaced mpeg2 in mpg": encoded("v.mpg", codec="mpeg2video", format="mpeg", options=INTERLACED),
    "50 a second in ts": encoded("v.ts", rate=50),
    "29.97 a second in mkv": encoded("v.mkv", rate=Fraction(30000, 1001)),
    "23.976 a second in mp4": encoded("v.mp4", rate=Fraction(24000, 1001)),
}


def check(kind: Kind, folder: Path, fps: float | None) -> None:
    """Whole video, a stretch in the middle, first and last frames, from records; and what predict sees."""
    path = folder / kind.name
    with open_video(path) as video:
        assert (video.info.frames, video.info.rate_is_guessed) == (kind.frames, kind.guessed)
        assert video.info.fps == pytest.approx(kind.rate, rel=1e-3)
        assert video.info.start_s == pytest.approx(kind.start_s, abs=0.05)
        first = video.info.first_tick(fps)
        assert -1e-6 < (first - video.info.start_s * kind.rate) * (1 if fps else 0) < 1
    few = min(10, kind.frames)
    places = [0, min(35, kind.frames - few), kind.frames - few]
    ticks = [(first + place, first + place + few) for place in places]
    times = [None, *((start / kind.rate, stop / kind.rate) for start, stop in ticks)]
    (whole, *stretches), manifest = build(folder / f"build-{fps}", path, times, fps=fps)
    assert whole == list(range(kind.frames))
    assert stretches == [whole[place : place + few] for place in places]
    assert (manifest.skipped, manifest.damaged_frames) == ((), {})
    assert manifest.open_ended == ((path.name,) if path.suffix in OPEN_ENDED else ())
    assert predicted(path, fps) == list(zip(range(first, first + kind.frames), whole, strict=True))


def check_cut(path: Path) -> None:
    """A copy of the file that was cut is refused."""
    content, cut = path.read_bytes(), path.with_name(f"cut_{path.name}")
    cut.write_bytes(content[: len(content) * 6 // 10 | 1])  # within a packet, of MPEG-TS too
    with (
        pytest.raises(VideoError, match=REFUSED),
        open_video(cut) as video,
    ):
        list(video.stored())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_where_the_player_shows_it(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = kind.write(tmp_path / kind.name)
    kind = kind._replace(name=path.name)
    for fps in (None, kind.rate):
        check(kind, tmp_path, fps)
    # Of a raw stream nothing tells where it ends; sound that is cut is no fault of the video.
    if not name.startswith("raw") and "more sound" not in name:
        check_cut(path)


FEW = {
    **{
        f"{name[2:]}": (name, "libx264", None)
        for name in ("v.mp4", "v.mov", "v.mkv", "v.avi", "v.flv", "v.nut")
    },
    "ts": ("v.ts", "libx264", None),
    "ts, mpeg2": ("v.ts", "mpeg2video", None),
    "ts, hevc": ("v.ts", "libx265", None),
    "mpg": ("v.mpg", "mpeg2video", "mpeg"),
    "mpg, mpeg1": ("v.mpg", "mpeg1video", "mpeg"),
    "raw mpeg2": ("v.m2v", "mpeg2video", "mpeg2video"),
    "raw h264": ("v.h264", "libx264", "h264"),
    "webm": ("v.webm", "libvpx", None),
    "3gp": ("v.3gp", "mpeg4", "3gp"),
}


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("name", FEW)
def test_a_video_of_one_or_two_frames_has_its_stated_rate(tmp_path: Path, name: str, frames: int) -> None:
    file, codec, format_name = FEW[name]
    b_frames = 0 if codec == "libvpx" else 2
    kind = encoded(file, numbers=range(frames), codec=codec, format=format_name, b_frames=b_frames)
    kind.write(tmp_path / kind.name)
    for fps in (None, kind.rate):
        check(kind, tmp_path, fps)


UNEVEN = {
    "mp4": ("v.mp4", "libx264", 2),
    "mkv": ("v.mkv", "libx264", 2),
    "webm": ("v.webm", "libvpx-vp9", 0),
    "ts": ("v.ts", "libx264", 2),
    "mov": ("v.mov", "mpeg4", 0),
}


def encode_uneven(path: Path, codec: str, b_frames: int, ticks: list[int]) -> Path:
    """Frames whose numbers are those of the ticks, 50 a second, at which they are shown."""
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, rate=50, b_frames=b_frames, gop=30)
        for tick in ticks:
            frame = av.VideoFrame.from_ndarray(draw_number(tick), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 50)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", UNEVEN)
def test_frames_at_uneven_times_are_shown_when_their_stamps_say(tmp_path: Path, name: str) -> None:
    file, codec, b_frames = UNEVEN[name]
    ticks = [*range(0, 40, 2), *range(80, 100), *range(100, 150, 3), 151]
    path = encode_uneven(tmp_path / file, codec, b_frames, ticks)
    for fps in (50.0, 10.0):
        step = round(50 / fps)
        # The last frame is shown for as long as its container says, or for a mean frame.
        shown = [max(tick for tick in ticks if tick <= at) for at in range(0, 160, step)]
        (whole, middle), manifest = build(tmp_path / f"{fps}", path, [None, (1.0, 2.0)], fps=fps)
        seen = [number for _, number in predicted(path, fps)]
        for numbers in (whole, seen):
            assert numbers == shown[: len(numbers)]
            assert len(numbers) in range(152 // step, 155 // step + 1)
        assert middle == shown[round(fps) : round(2 * fps)]
        assert (manifest.skipped, manifest.damaged_frames) == ((), {})
    (stored,), _ = build(tmp_path / "stored", path, [None])
    assert stored == ticks
