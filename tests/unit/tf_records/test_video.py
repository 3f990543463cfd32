"""From real files to frames: how many, which, and what a damaged file says."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_frames import clock_frames, stored_frames

from tf_records.errors import VideoError
from tf_records.video import probe

SIZE = 64


def encode(path: Path, times: Iterable[int], *, codec: str = "mpeg4", rate: int = 25, gop: int = 12) -> Path:
    """Writes noise that moves and brightens with each frame, shown at `times` in ticks of 1 / rate."""
    noise = np.random.default_rng(0).integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height = stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        for number, time in enumerate(times):
            picture = np.roll(noise, number, axis=0) + np.uint8(number)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def assert_shows(path: Path, first: int, stop: int, numbers: Iterable[int]) -> None:
    """Ticks `first` to `stop` show the stored frames `numbers`."""
    stored = list(stored_frames(path))
    expected = [stored[number] for number in numbers]
    np.testing.assert_array_equal(list(clock_frames(path, first, stop)), expected)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of mpeg4 in an .avi, a key frame every 12 frames."""
    return encode(tmp_path_factory.mktemp("video") / "steady.avi", range(100))


def cut(path: Path, folder: Path, share: float) -> Path:
    """A copy of the first `share` of the file's bytes."""
    content = path.read_bytes()
    out = folder / f"cut{path.suffix}"
    out.write_bytes(content[: round(len(content) * share)])
    return out


def test_a_rendered_video_has_its_forty_frames(videos: Path) -> None:
    frames = list(stored_frames(videos / "00000.mp4"))
    assert len(frames) == 40
    assert {(frame.shape, frame.dtype) for frame in frames} == {((64, 88, 3), np.dtype("uint8"))}


def test_probe_reads_rate_and_length(videos: Path) -> None:
    info = probe(videos / "00000.mp4")
    assert (info.fps, info.duration_s, info.frames) == (20.0, 2.0, 40)


@pytest.mark.parametrize(("first", "stop"), [(0, 100), (0, 5), (11, 14), (12, 13), (37, 60), (95, 100)])
@pytest.mark.parametrize(
    ("name", "codec"), [("v.avi", "mpeg4"), ("v.mp4", "mpeg4"), ("v.mp4", "libx264"), ("v.mkv", "libx264")]
)
def test_the_clock_of_a_constant_rate_shows_every_stored_frame(
    tmp_path: Path, name: str, codec: str, first: int, stop: int
) -> None:
    """Also where the reader seeks, and where frames are stored out of order (libx264)."""
    path = encode(tmp_path / name, range(100), codec=codec)
    stored = list(stored_frames(path))
    assert len(stored) == 100
    np.testing.assert_array_equal(list(clock_frames(path, first, stop)), stored[first:stop])


def test_a_tick_without_a_frame_shows_the_frame_before_it(tmp_path: Path) -> None:
    path = encode(tmp_path / "gaps.avi", [0, 1, 2, 5, 6, 9])
    assert len(list(stored_frames(path))) == 6
    assert_shows(path, 0, 10, [0, 1, 2, 2, 2, 3, 4, 4, 4, 5])
    assert_shows(path, 4, 7, [2, 3, 4])


@pytest.mark.parametrize(("name", "codec"), [("v.avi", "mpeg4"), ("v.mp4", "libx264"), ("v.mkv", "libx264")])
@pytest.mark.parametrize("fps", [5.0, 16.0, 25.0, 29.97, 60.0])
def test_a_clock_of_another_rate_shows_the_frame_at_or_before_each_tick(
    tmp_path: Path, name: str, codec: str, fps: float
) -> None:
    """Frame k is shown from k/25 s on; the times in an .mkv are rounded to a millisecond."""
    path = encode(tmp_path / name, range(100), codec=codec)
    stored = list(stored_frames(path))
    first, stop = round(fps), round(3 * fps)
    shown = list(clock_frames(path, first, stop, fps=fps))
    expected = [stored[int(tick * 25 / fps + 0.015 + 1e-9)] for tick in range(first, stop)]
    np.testing.assert_array_equal(shown, expected)


def test_a_clock_of_another_rate_holds_frames_across_gaps(tmp_path: Path) -> None:
    path = encode(tmp_path / "gaps.avi", [0, 1, 2, 5, 6, 9])
    stored = list(stored_frames(path))
    shown = list(clock_frames(path, 0, 5, fps=12.5))
    np.testing.assert_array_equal(shown, [stored[number] for number in (0, 2, 2, 4, 4)])


def test_a_clock_read_past_the_end_holds_the_last_frame(steady: Path) -> None:
    assert_shows(steady, 98, 103, [98, 99, 99, 99, 99])


def test_a_video_with_sound_gives_its_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        sound.layout = "mono"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((SIZE, SIZE, 3), np.uint8))))
        container.mux(stream.encode())
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
    assert len(list(stored_frames(path))) == 10
    assert probe(path).frames == 10


def test_a_file_of_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        sound.layout = "mono"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))
    with pytest.raises(VideoError, match=r"sound\.wav has no video stream"):
        probe(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("name", ["v.avi", "v.mkv"])
def test_a_file_cut_short_says_what_was_promised(tmp_path: Path, name: str, share: float) -> None:
    """An .avi that ends before its index too, where ffmpeg guesses the length from the file's size."""
    path = cut(encode(tmp_path / name, range(100)), tmp_path, share)
    with pytest.raises(VideoError, match=r"cut short: its header promises 4\.00 s, decoding ends at"):
        list(stored_frames(path))


def test_an_mp4_cut_short_cannot_be_opened(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(VideoError, match="cannot be opened as a video"):
        probe(cut(videos / "00000.mp4", tmp_path, 0.6))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_real_video_cut_short_is_refused(tmp_path: Path, jhmdb: Path, share: float) -> None:
    path = cut(min((jhmdb / "golf").glob("*.avi")), tmp_path, share)
    with pytest.raises(VideoError, match="cut short"):
        list(stored_frames(path))


def test_a_file_cut_before_the_frames_asked_for_is_refused(tmp_path: Path, steady: Path) -> None:
    with pytest.raises(VideoError, match=r"cut short: its header promises 4\.00 s"):
        list(clock_frames(cut(steady, tmp_path, 0.6), 90, 100))


def test_frames_before_the_cut_can_be_read(tmp_path: Path, steady: Path) -> None:
    whole = list(clock_frames(steady, 10, 20))
    np.testing.assert_array_equal(list(clock_frames(cut(steady, tmp_path, 0.6), 10, 20)), whole)


@pytest.mark.parametrize("content", [b"", b"\0", b"no video at all " * 1000, b"RIFF\0\0\0\0AVI LIST"])
@pytest.mark.parametrize("read", [probe, lambda path: list(stored_frames(path))])
def test_junk_is_no_video(tmp_path: Path, content: bytes, read) -> None:
    path = tmp_path / "junk.avi"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"junk\.avi"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4 cannot be opened as a video: No such file"):
        probe(tmp_path / "none.mp4")


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be opened as a video"):
        probe(tmp_path)


def test_jhmdb_stores_forty_frames_over_forty_eight_ticks(jhmdb: Path) -> None:
    """Written at 30 frames per second with the duplicates left out."""
    counts = set()
    for path in sorted((jhmdb / "golf").glob("*.avi"))[:8]:
        stored = sum(1 for _ in stored_frames(path))
        assert 15 <= stored <= 40
        counts.add((stored, probe(path).frames))
    assert (40, 48) in counts
