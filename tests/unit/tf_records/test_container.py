"""What a container says of its video: which stream it is, how fast, how long."""

from pathlib import Path

import av
import pytest
from counted_videos import RATE, add_video, draw_number, encode, encode_frames, read_number

from tf_records.container import Limits, choose_stream, find_rate, open_container
from tf_records.errors import VideoError
from tf_records.video import open_video, probe


def write_streams(path: Path, *streams: tuple[int, tuple[int, int], bool]) -> Path:
    """Streams of ten frames: the first frame's number, the size, and whether it is marked as default."""
    with av.open(str(path), "w") as container:
        added = [add_video(container, "libx264", size=size, b_frames=0) for _, size, _ in streams]
        for stream, (_, _, default) in zip(added, streams, strict=True):
            stream.disposition = av.stream.Disposition.default if default else 0
        for stream, (first, size, _) in zip(added, streams, strict=True):
            for packet in encode_frames(stream, range(first, first + 10), RATE, size):
                container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "streams", "expected"),
    [
        ("v.mp4", [(0, (32, 24), False), (500, (128, 96), True)], 500),
        ("v.mkv", [(0, (32, 24), False), (500, (128, 96), True)], 500),
        ("v.mp4", [(0, (128, 96), True), (500, (256, 192), False)], 0),
        ("v.mkv", [(0, (64, 48), True), (500, (128, 96), True)], 500),
        # Which marks none.
        ("v.ts", [(0, (64, 48), False), (500, (128, 96), False), (900, (64, 48), False)], 500),
    ],
)
def test_the_stream_marked_as_default_is_taken_or_else_the_largest(
    tmp_path: Path, name: str, streams: list, expected: int
) -> None:
    path = write_streams(tmp_path / name, *streams)
    with open_video(path) as video:
        assert [read_number(frame) for frame in video.stored()] == list(range(expected, expected + 10))


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    """A picture of 256 x 192 attached to a video of 128 x 96, and to sound alone."""
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 256, 192, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = add_video(container, "libx264", b_frames=0)
        image = av.VideoFrame.from_ndarray(draw_number(4000, 256, 192), format="rgb24")
        for packet in cover.encode(image.reformat(format="yuvj420p")):
            container.mux(packet)
        for packet in encode_frames(stream, range(10), RATE, (128, 96)):
            container.mux(packet)
    with open_container(str(path)) as opened:
        assert len(opened.streams.video) == 2
    with open_video(path) as video:
        assert [read_number(frame) for frame in video.stored()] == list(range(10))


def test_a_stated_rate_is_no_guess(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", range(10))
    with open_container(str(path)) as container:
        assert find_rate(choose_stream(container, str(path), Limits())) == (RATE, False)
    assert not probe(path).rate_is_guessed


def test_lengths_beyond_the_limit_are_refused_where_packets_are_counted(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.ts", range(50))
    with pytest.raises(VideoError, match="longer than the 1 s allowed"):
        probe(path, limits=Limits(max_seconds=1.0))
    assert probe(path).duration_s == 2.0
