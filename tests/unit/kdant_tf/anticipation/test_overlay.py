"""The video drawn over: what it keeps of its source, and that what is drawn can be read."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import counted_videos
import numpy as np
import pytest
from PIL import Image, ImageDraw

from kdant_tf.anticipation.overlay import Expectation, OverlayPanel, OverlayVideo, check_overlay
from kdant_tf.anticipation.sources import open_source
from tf_records.errors import KdantError, VideoError

CLASSES = ("clap", "golf", "swing_baseball_with_a_very_long_name", "walk")
LIKELIEST = (("swing_baseball_with_a_very_long_name", 0.9999), ("golf", 0.06), ("clap", 0.0))


def make_panel(stride_s: float = 0.25) -> OverlayPanel:
    return OverlayPanel(CLASSES, ahead_s=0.27, stride_s=stride_s)


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """Where words were drawn."""
    drawn = []
    text = ImageDraw.ImageDraw.text

    def record(draw, place, words, fill, font, anchor):  # type: ignore[no-untyped-def]
        drawn.append(draw.textbbox(place, words, font, anchor=anchor))
        text(draw, place, words, fill, font, anchor=anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return drawn


@pytest.mark.parametrize("size", [(160, 120), (120, 160), (320, 240), (1080, 1920), (1920, 1080)], ids=str)
def test_words_overlap_neither_each_other_nor_the_edge(boxes: list[tuple[float, ...]], size) -> None:
    panel, seen = make_panel(), 0
    names = itertools.cycle([LIKELIEST, (("golf", 0.5),), (("golf", 0.4),), ()])
    for number, likeliest in zip(range(40), names, strict=False):
        panel.expect(Expectation(from_s=0.5 + number / 4, likeliest=likeliest))
        boxes.clear()
        panel.draw(Image.new("RGB", size), 0.25 + number / 4)
        seen += len(boxes)
        for left, top, right, bottom in boxes:
            assert 0 <= left <= right <= size[0]
            assert 0 <= top <= bottom <= size[1]
        for first, second in itertools.combinations(boxes, 2):
            apart = first[2] <= second[0] or second[2] <= first[0]
            assert apart or first[3] <= second[1] + 1 or second[3] <= first[1] + 1
    assert seen > 40 * 5


def test_the_panel_forgets_what_has_left_the_time_line() -> None:
    panel, picture = make_panel(), Image.new("RGB", (64, 48))
    for number in range(200):
        panel.expect(Expectation(from_s=number / 4, likeliest=LIKELIEST))
        panel.draw(picture, number / 4)
    assert len(panel._expected) < 20


def encode(path: Path, *, size: tuple[int, int] = (64, 160), times: list[int] | None = None) -> Path:
    """Grey frames in ITU-R BT.709 at 25 a second, or at `times` in milliseconds, and a tone."""
    times = [40 * number for number in range(20)] if times is None else times
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        video.codec_context.colorspace = 1
        audio = container.add_stream("pcm_s16le" if path.suffix == ".avi" else "aac", rate=8000)
        audio.layout = "mono"
        tone = (8000 * np.sin(np.arange(8000) / 4)).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts = 8000, 0
        container.mux(audio.encode(sound))
        for number, time_ms in enumerate(times):
            rgb = np.full((size[1], size[0], 3), (200, 60, 40 + 5 * number), np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.colorspace, frame.pts, frame.time_base = 1, time_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def draw_over(path: Path, out: Path) -> Path:
    with closing(open_source(str(path))) as source, OverlayVideo(out, source, make_panel()) as film:
        for timed in source.frames():
            film.expect(timed.time_s + 0.5, LIKELIEST)
            film.draw(timed)
    return out


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def frames_of(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(video=0)


@pytest.mark.parametrize("times", [None, [0, 7, 90, 100, 333, 900]], ids=["even", "variable"])
def test_size_times_colours_and_sound_are_the_sources(tmp_path: Path, times: list[int] | None) -> None:
    path = encode(tmp_path / "v.mkv", times=times)
    out = draw_over(path, tmp_path / "o.mkv")
    own, drawn = list(frames_of(path)), list(frames_of(out))
    assert [frame.time for frame in drawn] == [frame.time for frame in own]
    assert {(frame.width, frame.height, frame.colorspace) for frame in drawn} == {(64, 160, 1)}
    for frame, over in zip(own, drawn, strict=True):
        before, after = (each.to_ndarray(format="rgb24")[:1].astype(int) for each in (frame, over))
        assert abs(before - after).max() <= 6
    assert sound_of(out) == sound_of(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["o.mkv", "v.mkv"]


def test_sound_that_the_new_file_does_not_take_is_encoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "v.avi")
    assert sound_of(draw_over(path, tmp_path / "o.mp4")) == sound_of(path)
    taken = {"h264", "aac"}
    monkeypatch.setattr(av.container.OutputContainer, "supported_codecs", taken, raising=False)
    with av.open(str(draw_over(path, tmp_path / "p.mp4"))) as container:
        (audio,) = container.streams.audio
        assert audio.codec_context.name == "aac"
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples > 7800  # but for what AAC begins with


def test_sound_begins_with_the_first_frame_where_stamps_lie(tmp_path: Path) -> None:
    """The frames of an AVI that are stored out of order have no stamps of their own."""
    path = counted_videos.encode(tmp_path / "v.avi", range(30), sound=("pcm_s16le", 1.2))
    out = draw_over(path, tmp_path / "o.mkv")
    with av.open(str(out)) as container:
        heard = next(container.decode(audio=0))
    assert (heard.time, next(frames_of(out)).time) == (0.0, 0.0)


def test_odd_sizes_are_kept(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (65, 47), (200, 0, 0)).save(tmp_path / f"f{number}.png")
    out = tmp_path / "o.mp4"
    with (
        closing(open_source(str(tmp_path), rate=24)) as source,
        OverlayVideo(out, source, make_panel()) as film,
    ):
        for timed in source.frames():
            film.draw(timed)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate, stream.frames) == (65, 47, 24, 3)


def test_a_source_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4")
    out = tmp_path / "o.mp4"

    def fail() -> None:
        with closing(open_source(str(path))) as source, OverlayVideo(out, source, make_panel()) as film:
            for timed in source.frames():
                film.draw(timed)
                raise VideoError("ends here")

    with pytest.raises(VideoError, match="ends here"):
        fail()
    assert [each.name for each in tmp_path.iterdir()] == ["v.mp4"]


def test_names_that_no_overlay_can_have(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.touch()
    for path, words in (
        (tmp_path / "o.gif", "should end in .mp4, .mov, .mkv"),
        (tmp_path / "no" / "o.mp4", "no folder that can be written"),
        (video, "would replace what it is drawn of"),
    ):
        with pytest.raises(KdantError, match=words):
            check_overlay(path, str(video))
