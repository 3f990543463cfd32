"""Real video files of moving shapes, for the demo and for tests that need video anywhere.

In each video a yellow ring drifts sideways among coloured distractors. From `ACTION_START_S` on it
rises, falls, grows or shrinks; before that it does so already, but so slowly that the hint is easily
missed. With a `drift` it stands in one place, and in another once the action begins: what an observed clip
shows then lies elsewhere in the future clip. None of the classes changes its meaning in a mirror. Some
training videos carry no label.
"""

import csv
import dataclasses
import io
import json
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from tf_records.errors import AnnotationError
from tf_records.files import atomic_path, write_text_atomically
from tf_records.sources.csv_manifest import COLUMNS, read_csv
from tf_records.sources.sample import Annotations

CLASSES = ("fall", "grow", "rise", "shrink")
ANNOTATIONS_NAME = "annotations.csv"
SPEC_NAME = "rendered.json"
FPS = 20
FRAMES = 40
HEIGHT, WIDTH = 64, 88
ACTION_START_S = 1.2
OFFSET_FRAMES = 16
_ACTION_START = round(ACTION_START_S * FPS)
HINT = 0.25
_PIXELS_PER_FRAME = {"rise": (-1.5, 0.0), "fall": (1.5, 0.0), "grow": (0.0, 0.45), "shrink": (0.0, -0.3)}
_DISTRACTORS = 4
MAX_DRIFT = 0.6
# Pixels that the ring keeps from either side where it is told how far to drift.
_MARGIN = 12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSpec:
    """How many videos to render, and how.

    Args:
        train, unlabeled, test: labelled and unlabelled training videos, and test videos.
        seed: of everything drawn.
        drift: how far away the ring stands once the action begins, as a share of the frame's width, 0 to
            MAX_DRIFT; the frames are then square. None lets it drift steadily, by a random amount.
        hint: how fast the ring moves before the action begins, as a share of its speed in it, 0 to 1.
    """

    train: int = 160
    unlabeled: int = 80
    test: int = 80
    seed: int = 0
    drift: float | None = None
    hint: float = HINT

    def __post_init__(self) -> None:
        if not 0 <= self.hint <= 1:
            raise AnnotationError(f"`hint` should be from 0 to 1. Received: {self.hint}.")
        if self.drift is not None and not 0 <= self.drift <= MAX_DRIFT:
            raise AnnotationError(f"`drift` should be from 0 to {MAX_DRIFT}. Received: {self.drift}.")


def read_synthetic(
    root: str | Path, spec: SyntheticSpec | None = None, classes: tuple[str, ...] = ()
) -> Annotations:
    """Reads the videos in `root`, rendering them first where there are none.

    Args:
        root: folder of the videos and of annotations.csv.
        spec: what to render, and what the videos that are there should have been rendered with; None takes
            what is there, or renders the default.
        classes: leave out the other classes; empty for all.

    Returns:
        What `read_csv` reads from annotations.csv.

    Raises:
        AnnotationError: `root` holds other things than rendered videos, or some of another drift or hint.
    """
    root = Path(root)
    annotations = root / ANNOTATIONS_NAME
    if not annotations.is_file():
        if root.exists() and not root.is_dir():
            raise AnnotationError(f"{root} is a file; give a folder for the rendered videos.")
        if root.is_dir() and any(path.suffix != ".mp4" and path.name != SPEC_NAME for path in root.iterdir()):
            raise AnnotationError(
                f"Folder {root} holds other things than rendered videos. Give a new or empty folder."
            )
        _render_videos(root, spec or SyntheticSpec())
    if spec is not None:
        _check_rendered(root, spec)
    return dataclasses.replace(read_csv(annotations, classes), dataset="synthetic")


def _check_rendered(root: Path, spec: SyntheticSpec) -> None:
    path = root / SPEC_NAME
    fields = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, default in (("drift", None), ("hint", HINT)):
        rendered, asked = fields.get(name, default), getattr(spec, name)
        if rendered != asked:
            raise AnnotationError(
                f"The videos in {root} were rendered with {name} {rendered}, not {asked}. Give a new folder."
            )


def _render_videos(root: Path, spec: SyntheticSpec) -> None:
    """Encodes the videos of `spec` and, last, their annotations. The same spec gives the same frames."""
    root.mkdir(parents=True, exist_ok=True)
    write_text_atomically(root / SPEC_NAME, json.dumps(dataclasses.asdict(spec)) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    groups = (("train", spec.train, True), ("train", spec.unlabeled, False), ("test", spec.test, True))
    number = 0
    for split, count, labeled in groups:
        for index in range(count):
            label = CLASSES[index % len(CLASSES)]
            name = f"{number:05d}.mp4"
            rng = np.random.default_rng((spec.seed, number))
            _encode(root / name, render_frames(label, rng, spec.drift, spec.hint))
            writer.writerow((name, ACTION_START_S, FRAMES / FPS, label if labeled else "", split))
            number += 1
    write_text_atomically(root / ANNOTATIONS_NAME, text.getvalue())


def render_frames(
    label: str, rng: np.random.Generator, drift: float | None = None, hint: float = HINT
) -> np.ndarray:
    """The frames of one video.

    Args:
        label: one of CLASSES.
        rng: of what is drawn; the same state gives the same frames.
        drift, hint: as of SyntheticSpec.

    Returns:
        uint8 `(FRAMES, HEIGHT, WIDTH, 3)`, with a `drift` as wide as it is high.
    """
    width = WIDTH if drift is None else HEIGHT
    background = _background(rng, width)
    distractors = [_Distractor.draw(rng, width) for _ in range(_DISTRACTORS)]
    speed_y, speed_radius = _PIXELS_PER_FRAME[label]
    y, x = HEIGHT / 2 + rng.uniform(-6, 6), WIDTH / 2 + rng.uniform(-14, 14)
    radius = rng.uniform(8, 10)
    places = _steady_places(rng, x) if drift is None else _two_places(rng, drift)
    frames = []
    for number, x in enumerate(places):
        share = 1.0 if number >= _ACTION_START else hint
        y, radius = y + share * speed_y, radius + share * speed_radius
        image = background.copy()
        canvas = ImageDraw.Draw(image)
        for distractor in distractors:
            distractor.paint(canvas, number, width)
        jitter = rng.normal(0, 0.3, 2)
        _paint_ring(canvas, y + jitter[0], x + jitter[1], max(radius, 2.0))
        frames.append(np.asarray(image))
    return np.stack(frames)


def _steady_places(rng: np.random.Generator, x: float) -> np.ndarray:
    """The ring's x in each frame, moving steadily to one side."""
    speed = rng.uniform(0.2, 0.7) * rng.choice((-1, 1))
    return np.cumsum([x, *FRAMES * [speed]])[1:]


def _two_places(rng: np.random.Generator, drift: float) -> np.ndarray:
    """The ring's x in each frame: one place, and once the action begins another, `drift` widths away."""
    pixels = drift * HEIGHT
    left = rng.uniform(_MARGIN, HEIGHT - _MARGIN - pixels)
    before, after = rng.permutation((left, left + pixels))
    return np.asarray(np.where(np.arange(FRAMES) < _ACTION_START, before, after))


@dataclasses.dataclass(frozen=True, slots=True)
class _Distractor:
    """A square or disc that keeps its course."""

    start: tuple[float, float]
    speed: tuple[float, float]
    size: float
    colour: tuple[int, ...]
    square: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, width: int) -> "_Distractor":
        return cls(
            start=(rng.uniform(0, HEIGHT), rng.uniform(0, width)),
            speed=(rng.uniform(-1, 1), rng.uniform(-1, 1)),
            size=rng.uniform(3, 7),
            colour=tuple(int(value) for value in rng.integers(30, 200, 3)),
            square=bool(rng.integers(2)),
        )

    def paint(self, canvas: ImageDraw.ImageDraw, number: int, width: int) -> None:
        y = (self.start[0] + number * self.speed[0]) % HEIGHT
        x = (self.start[1] + number * self.speed[1]) % width
        box = (x - self.size, y - self.size, x + self.size, y + self.size)
        (canvas.rectangle if self.square else canvas.ellipse)(box, fill=self.colour)


def _background(rng: np.random.Generator, width: int) -> Image.Image:
    coarse = rng.integers(40, 140, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, HEIGHT), Image.Resampling.BILINEAR)


def _paint_ring(canvas: ImageDraw.ImageDraw, y: float, x: float, radius: float) -> None:
    for share, colour in ((1.0, (250, 220, 40)), (0.5, (30, 30, 30))):
        size = radius * share
        canvas.ellipse((x - size, y - size, x + size, y + size), fill=colour)


def _encode(path: Path, frames: np.ndarray) -> None:
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 800_000
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
