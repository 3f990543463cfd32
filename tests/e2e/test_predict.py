"""`kdant predict`: what it prints of videos, folders and streams, and what it refuses."""

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main
from PIL import Image
from video_frames import stored_frames

from tf_records.flow import describe_flow


def predict(*args: object, code: int = 0, env: dict[str, str] | None = None) -> Result:
    result = CliRunner(env=env).invoke(main, ["predict", *(str(arg) for arg in args)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """Loading and tracing a network take longer than all that is tested here."""
    from kdant_tf.serving import model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "load_model", functools.cache(model.load_model))
        yield


@pytest.fixture
def without_rate(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As runs of before, and those of records of several rates, are."""
    from kdant_tf.serving import model

    loaded = dataclasses.replace(model.load_model(tiny_run), fps=None)
    monkeypatch.setattr(model, "load_model", lambda folder, engine: loaded)


@pytest.fixture(scope="module")
def video(videos: Path) -> Path:
    return sorted(videos.glob("*.mp4"))[0]


@pytest.fixture(scope="module")
def lines(video: Path, tiny_run: Path) -> list[dict[str, Any]]:
    return lines_of(predict(video, "--model", tiny_run, "--json-lines", "--top", "2"))


def test_json_lines(lines: list[dict[str, Any]], video: Path) -> None:
    assert len(lines) > 3
    assert {line["source"] for line in lines} == {str(video)}
    times = [line["time_s"] for line in lines]
    assert times == sorted(times)
    for line in lines:
        assert [*line] == ["source", "time_s", "expected_s", "expected"]
        probabilities = [each["probability"] for each in line["expected"]]
        assert len(probabilities) == 2
        assert probabilities == sorted(probabilities, reverse=True)


def test_a_folder_of_the_videos_frames_says_the_same(
    lines: list[dict[str, Any]], video: Path, tiny_run: Path, tmp_path: Path
) -> None:
    for number, frame in enumerate(stored_frames(video)):
        Image.fromarray(np.ascontiguousarray(frame)).save(tmp_path / f"frame_{number:04}.png")
    args = ("--model", tiny_run, "--json-lines", "--top", 2)
    given = lines_of(predict(tmp_path, *args))
    assert [line["time_s"] for line in given] == pytest.approx([line["time_s"] for line in lines], abs=1e-3)
    for own, other in zip(lines, given, strict=True):
        own_first, other_first = own["expected"][0], other["expected"][0]
        assert own_first["class"] == other_first["class"]
        assert own_first["probability"] == pytest.approx(other_first["probability"], abs=0.02)


def test_a_stream_on_stdin_and_a_reader_that_has_seen_enough(
    lines: list[dict[str, Any]], video: Path, tiny_run: Path
) -> None:
    command = "import sys; from kdant_cli.main import main; sys.argv[0] = 'kdant'; main()"
    args = ["predict", "-", "--model", str(tiny_run), "--json-lines", "--top", "2", "--latency"]
    with video.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", command, *args], stdin=file, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    *given, latency = [json.loads(line) for line in done.stdout.splitlines()]
    assert [{**line, "source": ""} for line in given] == [{**line, "source": ""} for line in lines]
    assert latency["latency"]["answers"] == len(lines)
    assert latency["latency"]["dropped"] == 0


@pytest.mark.usefixtures("without_rate")
def test_a_model_without_a_rate(video: Path, tiny_run: Path, lines: list[Any], tmp_path: Path) -> None:
    """The source's is taken, and said."""
    result = predict(video, "--model", tiny_run, "--json-lines", "--top", 2)
    assert "The model knows no frame rate, so that of" in result.stderr
    assert lines_of(result) == lines
    Image.new("RGB", (64, 48)).save(tmp_path / "0.png")
    assert "--source-fps" in predict(tmp_path, "--model", tiny_run, code=1).stderr
    sped_up = lines_of(predict(video, "--model", tiny_run, "--json-lines", "--fps", 40))
    assert sped_up[0]["time_s"] == 7 / 40


def test_an_overlay(video: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "over.mp4"
    result = predict(video, "--model", tiny_run, "--json-lines", "--overlay", out)
    assert f"Drew {out}" in result.stderr
    assert len(list(stored_frames(out))) == len(list(stored_frames(video)))
    for args, words in (
        ((video, video, "--overlay", out), "--overlay is for one source"),
        (("rtsp://127.0.0.1:9/a", "--overlay", out), "--overlay is for one source"),
    ):
        assert words in predict(*args, "--model", tiny_run, code=2).stderr
    refused = predict(video, "--overlay", video, "--model", tiny_run, code=1)
    assert "would replace what it is drawn of" in refused.stderr


def test_plain_lines_latency_and_threshold(video: Path, tiny_run: Path, lines: list[Any]) -> None:
    result = predict(video, "--model", tiny_run, "--latency")
    assert f"{lines[0]['expected'][0]['class']} " in result.stdout
    assert "none: clip and action overlap" in result.stdout  # It is a teacher, which sees the action.
    sure = lines_of(predict(video, "--model", tiny_run, "--threshold", 1, "--json-lines"))
    assert [line["expected"] for line in sure] == [[]] * len(lines)


def test_a_table_on_a_terminal(video: Path, tiny_run: Path, lines: list[Any]) -> None:
    result = predict(video, "--model", tiny_run, env={"FORCE_COLOR": "1", "COLUMNS": "100"})
    last = result.stdout.splitlines()[-3:]
    assert f"{lines[-1]['time_s']:.2f} s" in "".join(last)
    assert lines[-1]["expected"][0]["class"] in "".join(last)


def test_ctrl_c_ends_a_camera_well(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdant_tf.anticipation import sources

    pictures = itertools.repeat((True, np.zeros((48, 64, 3), np.uint8)), 30)

    def read() -> tuple[bool, np.ndarray]:
        picture = next(pictures, None)
        if picture is None:
            raise KeyboardInterrupt
        return picture

    quiet = types.SimpleNamespace(logging=types.SimpleNamespace(setLogLevel=int, LOG_LEVEL_SILENT=0))
    opened = types.SimpleNamespace(
        isOpened=lambda: True, get=lambda name: 20.0, read=read, release=lambda: None
    )
    fake = types.SimpleNamespace(VideoCapture=lambda number: opened, CAP_PROP_FPS="fps", utils=quiet)
    clock = itertools.count()
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setattr(sources, "time", types.SimpleNamespace(monotonic=lambda: next(clock) / 20))
    options = (
        "--json-lines",
        "--latency",
        "--reconnect-s",
        0,
    )  # a connection that is kept looks at the clock too
    *given, latency = lines_of(predict("0", "--model", tiny_run, *options))
    assert {line["source"] for line in given} == {"camera 0"}
    dropped = sum(line.get("dropped", 0) for line in given)
    assert latency["latency"]["dropped"] == dropped
    assert len(given) + dropped == 5


def test_a_model_of_flow(video: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told how flow is computed, or says what is missing."""
    from kdant_tf.serving import model

    seen: list[tuple[int, ...]] = []

    def infer(clips: np.ndarray) -> np.ndarray:
        seen.append(clips.shape)
        return np.full((1, 4), 0.25, np.float32)

    loaded = dataclasses.replace(model.load_model(tiny_run), modality="rgb,flow", infer=infer)
    monkeypatch.setattr(model, "load_model", lambda folder, engine: loaded)
    args = (video, "--model", tiny_run, "--json-lines")
    assert "--flow-algorithm tvl1, dis or farneback" in predict(*args, code=1).stderr
    assert len(lines_of(predict(*args, "--flow-algorithm", "farneback"))) == len(seen) - 1
    assert {shape[0::4] for shape in seen} == {(1, 5)}
    told = dataclasses.replace(loaded, flow=describe_flow("farneback"))
    monkeypatch.setattr(model, "load_model", lambda folder, engine: told)
    assert len(lines_of(predict(*args))) == len(lines_of(predict(*args, "--flow-algorithm", "dis")))


def test_one_bad_source_does_not_keep_the_others(
    video: Path, tiny_run: Path, lines: list[Any], tmp_path: Path
) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "one.png")
    args = ("--model", tiny_run, "--json-lines", "--top", 2)
    result = predict(tmp_path / "one.png", video, *args, code=1)
    assert lines_of(result) == lines
    assert "a clip of the model 8" in result.stderr
    assert "1 of 2 sources" in result.stderr


@pytest.fixture
def refuse(tiny_run: Path) -> Callable[..., str]:
    def call(*args: object, model: Path = tiny_run) -> str:
        result = predict(*args, "--model", model, "--json-lines", code=1)
        assert result.stdout == ""
        return result.stderr.strip().splitlines()[-1]

    return call


def test_sources_that_are_none(
    refuse: Callable[..., str], tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.isatty", lambda descriptor: True)
    assert "stdin is a terminal" in refuse("-")
    (tmp_path / "words.txt").write_text("one two three\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:400])
    assert "No such file" in refuse(tmp_path / "no.mp4")
    assert "is a text, no video" in refuse(tmp_path / "words.txt")
    assert "cannot be opened as a video" in refuse(tmp_path / "empty.mp4")
    assert "cannot be opened as a video" in refuse(tmp_path / "cut.mp4")
    assert "holds no pictures" in refuse(tmp_path)
    assert "--live is not for it" in refuse(video, "--live")
    assert "ffmpeg -i URL" in refuse("https://example.org/a.mp4")
    assert "does not exist" in refuse(video, model=tmp_path / "no")
