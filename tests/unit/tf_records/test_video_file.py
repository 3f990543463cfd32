"""Long, rotated, hostile and odd files: what is decoded of them, and what is refused."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_frames import stored_frames

from tf_records.container import Limits
from tf_records.errors import VideoError
from tf_records.video import open_video, probe
from tf_records.video_file import Resizer, to_picture

RATE = 10
MINUTES = 30
STARTS_S = np.linspace(20, 60 * MINUTES - 40, 10)


def encode_long(path: Path, codec: str, frames: int = 60 * RATE * MINUTES) -> Path:
    """Small frames whose picture changes every five seconds; a key frame every 25 s, as x264 does."""
    pictures = []
    for number in range(7):
        noise = np.random.default_rng(number).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        pictures.append(av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p"))
    options = {"preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 48, 32, "yuv420p", 250
        stream.codec_context.thread_count = 1
        for number in range(frames):
            picture = pictures[number // 50 % len(pictures)]
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def times(starts_s: Iterable[float], frames: int) -> list[float]:
    return [float(start_s + (number + 0.5) / RATE) for start_s in starts_s for number in range(frames)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codec"), [("v.mp4", "libx264"), ("v.mkv", "libx264"), ("v.avi", "mpeg4"), ("v.ts", "libx264")]
)
def test_ten_actions_of_a_long_video_cost_ten_short_reads(tmp_path: Path, name: str, codec: str) -> None:
    """Each at most one group of pictures before it; MPEG-TS, which has no index, a little more."""
    path = encode_long(tmp_path / name, codec)
    wanted = times(STARTS_S, 20)
    with open_video(path) as video:
        assert video.info.frames == 18000
        shown = list(video.shown_at(wanted))
        assert video.frames_decoded <= 10 * (250 + 22)
    stored = list(stored_frames(path))
    for time_s, frame in zip(wanted, shown, strict=True):
        np.testing.assert_array_equal(frame, stored[int(time_s * RATE)])


def test_nothing_is_decoded_twice_where_no_key_frame_lies_in_a_gap(tmp_path: Path) -> None:
    """Gaps of nine seconds within groups of 25: reading on is the way."""
    path = encode_long(tmp_path / "v.mp4", "libx264", frames=600)
    with open_video(path) as video:
        list(video.shown_at(times(np.arange(0, 50, 10), 10)))
        assert video.frames_decoded <= 600
    with open_video(path) as video:
        list(video.shown_at(times([0, 0.2, 0.4], 4)[:4] + times([0.4], 4)))
        assert video.frames_decoded == 9


def test_times_that_show_one_frame_get_one_array(tmp_path: Path) -> None:
    path = encode_long(tmp_path / "v.mp4", "libx264", frames=20)
    with open_video(path) as video:
        first, again, other = video.shown_at([0.52, 0.58, 0.61])
    assert first is again
    assert other is not first


def four_colors(width: int, height: int) -> np.ndarray:
    """Red, green above blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = 255
    return picture


def encode_picture(path: Path, picture: np.ndarray, *, turned: int = 0, codec: str = "mpeg4") -> Path:
    """Five frames; `turned` is how far a player turns them counterclockwise."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def corners(frame: np.ndarray) -> list[str]:
    """Colours of the quadrants' middles, row by row."""
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    height, width = frame.shape[:2]
    places = [(y * height // 4, x * width // 4) for y in (1, 3) for x in (1, 3)]
    return [names[tuple(int(value > 127) for value in frame[place])] for place in places]


@pytest.mark.parametrize(
    ("turned", "size", "upright"),
    [
        (0, (32, 48), ["red", "green", "blue", "white"]),
        (90, (48, 32), ["green", "white", "red", "blue"]),
        (-90, (48, 32), ["blue", "red", "white", "green"]),
        (180, (32, 48), ["white", "blue", "green", "red"]),
    ],
)
def test_a_rotation_mark_turns_the_frames_upright(
    tmp_path: Path, turned: int, size: tuple[int, int], upright: list[str]
) -> None:
    path = encode_picture(tmp_path / "phone.mp4", four_colors(96, 64), turned=turned)
    with open_video(path, short_side=32) as video:
        frames = list(video.shown_at([0.0, 0.3]))
    for frame in (frames[0], frames[1]):
        assert frame.shape == (*size, 3)
        assert corners(frame) == upright


@pytest.mark.parametrize(("width", "height"), [(95, 63), (63, 95), (17, 16), (640, 2)])
def test_odd_sizes_keep_their_shape(tmp_path: Path, width: int, height: int) -> None:
    path = encode_picture(tmp_path / "odd.avi", four_colors(width, height), codec="ffv1")
    for short_side in (32, 16):
        with open_video(path, short_side=short_side) as video:
            (frame,) = video.shown_at([0.1])
        scale = short_side / min(width, height)
        assert frame.shape == (round(height * scale), round(width * scale), 3)


def test_resizing_does_not_alias(tmp_path: Path) -> None:
    """Stripes of one pixel become grey; a filter that only picks pixels would keep them."""
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    path = encode_picture(tmp_path / "stripes.avi", stripes, codec="ffv1")
    for short_side in (100, 60, 32):
        with open_video(path, short_side=short_side) as video:
            (frame,) = video.shown_at([0.1])
        assert np.abs(frame[4:-4, 4:-4].astype(int) - 127).max() < 16


def test_resizing_is_what_pillow_gives(jhmdb: Path) -> None:
    """Within 50 dB of Pillow's antialiased bilinear, which made the records of before."""
    path = min((jhmdb / "golf").glob("*.avi"))
    for small, full in zip(stored_frames(path, short_side=128), stored_frames(path), strict=True):
        pillow = Image.fromarray(full).resize(small.shape[1::-1], Image.Resampling.BILINEAR)
        error = np.mean((small.astype(float) - np.asarray(pillow)) ** 2)
        assert error < 255**2 / 10**5


def test_frames_beyond_the_limit_are_refused_before_decoding(tmp_path: Path) -> None:
    path = encode_picture(tmp_path / "large.mp4", four_colors(96, 64))
    with pytest.raises(
        VideoError, match=r"large\.mp4 has frames of 96x64, more than the 6143 .*--max-pixels"
    ):
        probe(path, limits=Limits(max_pixels=6143))
    assert probe(path, limits=Limits(max_pixels=6144)).frames == 5
    narrow = encode_picture(tmp_path / "narrow.avi", four_colors(1200, 2), codec="ffv1")
    with (
        open_video(narrow, short_side=256) as video,
        pytest.raises(VideoError, match="frames of 153600x256"),
    ):
        list(video.stored())


def test_a_video_longer_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = encode_long(tmp_path / "long.mp4", "libx264", frames=300)
    with pytest.raises(
        VideoError, match=r"long\.mp4 lasts 30 s or more, longer than the 29 s.*--max-seconds"
    ):
        probe(path, limits=Limits(max_seconds=29))
    assert probe(path, limits=Limits(max_seconds=30)).duration_s == 30


def test_a_stream_without_a_stated_length_is_not_read_for_ever(tmp_path: Path) -> None:
    """Raw MPEG-4 states no length and no times, like a stream that never ends."""
    path = encode_long(tmp_path / "endless.m4v", "mpeg4", frames=600)
    with pytest.raises(VideoError, match="longer than the 20 s allowed"):
        probe(path, limits=Limits(max_seconds=20))
    with open_video(path) as video:
        assert video.frames_decoded == 0
        assert video.info.duration_s > 20
        assert len(list(video.stored())) == 600


def test_a_playlist_is_no_video(tmp_path: Path) -> None:
    """It names other files, and one without an end is read for ever."""
    encode_long(tmp_path / "part.ts", "libx264", frames=50)
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\npart.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "live.m3u8").write_text(text)
    with pytest.raises(VideoError, match=r"live\.m3u8 is a playlist"):
        probe(tmp_path / "live.m3u8")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="no regular file"):
        probe(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("width", [32, 33, 46, 61])
def test_a_frame_and_its_picture_are_the_same_pixels_whatever_the_padding_of_its_lines(
    width: int, rotation: int
) -> None:
    """FFmpeg pads lines; neither the frame nor Pillow's picture of it copies them."""
    pixels = np.random.default_rng(width).integers(0, 255, (24, width, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    resized = Resizer(None, Limits()).convert(frame, "a.mp4")
    turned = np.rot90(resized, rotation // 90)
    part = resized[3:20, 2:11]
    np.testing.assert_array_equal(resized, pixels)
    for view in (resized, turned, part, resized[::-1], resized[:0]):
        np.testing.assert_array_equal(np.asarray(to_picture(view).convert("RGB")), view)
