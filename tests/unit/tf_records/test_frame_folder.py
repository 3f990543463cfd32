"""Folders of extracted frames: their rate, their order, and how a bad one is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_frames import clock_frames, stored_frames

from tf_records.errors import VideoError
from tf_records.sources.sample import FolderClock
from tf_records.video import find_rate, holds_frames, probe


def extract(folder: Path, count: int, first: int = 1, name: str = "frame_{:010d}.png") -> Path:
    """Frame k of the video is grey of the level k; written without loss."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 6), (number, number, number)).save(folder / name.format(first + number))
    return folder


def levels(frames) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return extract(tmp_path / "P01_01", 60)


CLOCK = FolderClock(duration_s=2.0, rates=(15.0, 30.0))


@pytest.mark.parametrize(
    ("first", "name"), [(1, "frame_{:010d}.png"), (0, "{:d}.PNG"), (1, "img{}.jpeg"), (0, "a1_b_{:05d}.jpg")]
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, first: int, name: str) -> None:
    folder = extract(tmp_path / "frames", 12, first, name)
    (folder / "notes.txt").write_text("not a frame")
    frames = list(stored_frames(folder))
    assert levels(frames) == list(range(12))
    assert {(frame.shape, frame.dtype) for frame in frames} == {((6, 8, 3), np.dtype("uint8"))}


def test_the_number_of_frames_tells_the_rate(folder: Path) -> None:
    assert find_rate(folder, CLOCK) == 30.0
    assert find_rate(folder, FolderClock(duration_s=4.0, rates=(15.0, 30.0))) == 15.0
    info = probe(folder, CLOCK)
    assert (info.fps, info.duration_s, info.frames) == (30.0, 2.0, 60)


def test_frames_taken_at_60_a_second_are_told_from_those_of_a_video_of_59_94(tmp_path: Path) -> None:
    """The difference is one frame in a thousand."""
    folder = extract(tmp_path / "frames", 250)
    rates = (60000 / 1001, 60.0)
    for rate in rates:
        assert find_rate(folder, FolderClock(duration_s=250 / rate, rates=rates)) == rate


@pytest.mark.parametrize(("first", "stop"), [(0, 60), (0, 1), (17, 30), (55, 64)])
def test_the_folders_own_clock_shows_every_frame(folder: Path, first: int, stop: int) -> None:
    shown = levels(clock_frames(folder, first, stop, folder=CLOCK))
    assert shown == [min(tick, 59) for tick in range(first, stop)]


@pytest.mark.parametrize("fps", [10.0, 16.0, 24.0, 30.0, 50.0])
def test_another_clock_shows_the_frame_at_or_before_each_tick(folder: Path, fps: float) -> None:
    stop = round(2 * fps)
    shown = levels(clock_frames(folder, 3, stop, fps=fps, folder=CLOCK))
    assert shown == [int(tick * 30 / fps + 1e-9) for tick in range(3, stop)]


def test_a_rate_that_does_not_fit_is_refused_with_the_numbers(folder: Path) -> None:
    clock = FolderClock(duration_s=10.0, rates=(59.94, 60.0))
    with pytest.raises(VideoError, match=r"holds 60 frames, but 10\.00 s at 59\.94 or 60 .* are 599\."):
        probe(folder, clock)


def test_a_folder_of_unknown_rate_is_refused(folder: Path) -> None:
    with pytest.raises(VideoError, match="no rate is known for it"):
        probe(folder)


@pytest.mark.parametrize(
    ("number", "words"), [(1, "lacks frame 1, though it has frame 60"), (31, "lacks frame 31, though")]
)
def test_a_missing_frame_is_named(folder: Path, number: int, words: str) -> None:
    (folder / f"frame_{number:010d}.png").unlink()
    with pytest.raises(VideoError, match=words):
        list(stored_frames(folder))


def test_two_frames_of_one_number_are_named(folder: Path) -> None:
    (folder / "frame_7.jpg").write_bytes(b"")
    with pytest.raises(VideoError, match="two frames of one number"):
        probe(folder, CLOCK)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_a_frame_that_is_no_picture_is_named(folder: Path, content: bytes) -> None:
    (folder / "frame_0000000005.png").write_bytes(content)
    with pytest.raises(VideoError, match=r"frame_0000000005\.png cannot be read as a picture"):
        list(clock_frames(folder, 0, 9, folder=CLOCK))
    assert levels(clock_frames(folder, 5, 9, folder=CLOCK)) == [5, 6, 7, 8]


def test_a_frame_of_another_size_is_named(folder: Path) -> None:
    Image.new("RGB", (9, 6)).save(folder / "frame_0000000005.png")
    with pytest.raises(VideoError, match=r"frame_0000000005\.png is 9x6, the frame before it is not"):
        list(stored_frames(folder))


def test_a_frame_that_cannot_be_opened_is_named(folder: Path) -> None:
    (folder / "frame_0000000005.png").unlink()
    (folder / "frame_0000000005.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(VideoError, match=r"frame_0000000005\.png cannot be read .*No such file"):
        list(stored_frames(folder))


def test_a_folder_without_pictures_holds_no_frames(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert not holds_frames(tmp_path)
    assert not holds_frames(tmp_path / "none")
    assert not holds_frames(tmp_path / "notes.txt")
    assert holds_frames(folder)


def test_a_folder_that_grew_is_counted_anew(folder: Path) -> None:
    assert len(list(stored_frames(folder))) == 60
    extract(folder, 3, first=61)
    assert len(list(stored_frames(folder))) == 63
