"""The README's picture: two clips of one video on a clock, and where teacher and student look in them."""

import base64
import io
from pathlib import Path

import av
import matplotlib
import numpy as np
from PIL import Image

from kdant_tf.report.samples import choose_best
from kdant_tf.runs import load_run
from kdant_tf.visualization.heat_maps import activation_magnitude
from kdant_tf.visualization.run_view import ClipPair, RunView, read_clip_pairs
from tf_records.records import Records
from tf_records.schema import FUTURE, OBSERVED

# Pixels: a second of the clock, where it begins, a frame of the film, and a heat map.
_SECOND, _LEFT = 440, 40
_FRAME_WIDTH, _FRAME_HEIGHT = 88, 64
_HEAT = 104
_FRAMES = 10
_BLUE, _ORANGE, _GREY = "#1f5fa8", "#b5571b", "#44515f"
_SHARE_OF_HEAT = 0.55


def draw_two_clips(demo: Path, label: str, path: Path) -> Path:
    """Draws the test video of class `label` that the demo's last student is right and surest about.

    Args:
        demo: folder that `kdant demo` wrote.
        label: class.
        path: SVG to write.
    """
    records = Records.open(demo / "records")
    student, teacher = (
        RunView(name, load_run(demo / name), records, "test") for name in ("student-bidirectional", "teacher")
    )
    predictions = student.predictions(OBSERVED)
    wanted = records.manifest.classes.index(label)
    number = next(
        each
        for each in choose_best(predictions, len(predictions.labels))
        if predictions.labels[each] == wanted
    )
    [pair] = read_clip_pairs(records, "test", [number])
    video = demo / "videos" / pair.id.partition("@")[0]
    parts = [
        *_networks(label, _sees(student, pair, OBSERVED), _sees(teacher, pair, FUTURE)),
        *_film(_frames(video), pair),
        *_clock(pair),
    ]
    path.write_text(_HEAD + "\n".join(parts) + "\n</svg>\n", encoding="utf-8")
    return path


def _sees(view: RunView, pair: ClipPair, segment: str) -> tuple[str, float]:
    """A frame under the network's heat map, as a data URI, and what it gives the pair's class."""
    magnitude = activation_magnitude(view.map_of(pair, segment))
    span = magnitude.max() - magnitude.min()
    grey = Image.fromarray(np.uint8(255 * (magnitude - magnitude.min()) / span))
    smooth = np.asarray(grey.resize((2 * _HEAT, 2 * _HEAT), Image.Resampling.BICUBIC))
    heat = Image.fromarray(np.uint8(255 * matplotlib.colormaps["inferno"](smooth)[..., :3]))
    frames = pair.frames(segment)
    frame = Image.fromarray(np.uint8(255 * frames[len(frames) // 2])).resize(
        heat.size, Image.Resampling.LANCZOS
    )
    probability = float(view.probabilities(pair, segment)[pair.label])
    return _uri(Image.blend(frame, heat, _SHARE_OF_HEAT)), probability


def _frames(video: Path) -> list[str]:
    """The frames in the middle of each tenth of a video, as data URIs."""
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    step = len(frames) / _FRAMES
    chosen = (frames[int((each + 0.5) * step)] for each in range(_FRAMES))
    size = (2 * _FRAME_WIDTH, 2 * _FRAME_HEIGHT)
    return [_uri(frame.resize(size, Image.Resampling.LANCZOS)) for frame in chosen]


def _uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _x(seconds: float) -> float:
    return round(_LEFT + _SECOND * seconds, 1)


def _networks(label: str, student: tuple[str, float], teacher: tuple[str, float]) -> list[str]:
    """A box for each network over the clip that it sees, and what goes from one to the other."""
    return [
        *_network(164, "Student A", "expects", f"“{label}” {student[1]:.0%}", student[0], _BLUE, "#e9f1fb"),
        *_network(
            536, "Teacher R", "recognises", f"“{label}” {teacher[1]:.0%}", teacher[0], _ORANGE, "#fdf0e6"
        ),
        f'<path d="M530 92H432" stroke="{_GREY}" stroke-width="2.5" marker-end="url(#head)"/>',
        '<g text-anchor="middle" font-size="12.5"><text x="480" y="62">probabilities,</text>'
        '<text x="480" y="79">feature maps</text></g>',
    ]


def _network(x: int, name: str, verb: str, answer: str, picture: str, color: str, pale: str) -> list[str]:
    text = x + _HEAT + 28
    return [
        f'<rect x="{x}" y="20" width="260" height="128" rx="10" fill="{pale}" stroke="{color}" '
        f'stroke-width="2"/>',
        f'<image x="{x + 12}" y="32" width="{_HEAT}" height="{_HEAT}" href="{picture}"/>',
        f'<text x="{text}" y="52" font-weight="bold" font-size="18" fill="{color}">{name}</text>',
        f'<text x="{text}" y="80">{verb}</text>',
        f'<text x="{text}" y="102" font-weight="bold">{answer}</text>',
        f'<text x="{text}" y="135" font-size="12.5" fill="#55616e">bright: looked at</text>',
        f'<path d="M{x + 130} 186V153" stroke="{color}" stroke-width="2.5" marker-end="url(#head)"/>',
    ]


def _film(frames: list[str], pair: ClipPair) -> list[str]:
    """The video as a strip of frames, the two clips framed."""
    cuts = "".join(
        f"M{_LEFT + _FRAME_WIDTH * number} 192v{_FRAME_HEIGHT}" for number in range(1, len(frames))
    )
    parts = [
        f'<image x="{_LEFT + _FRAME_WIDTH * number}" y="192" width="{_FRAME_WIDTH}" height="{_FRAME_HEIGHT}" '
        f'href="{frame}"/>'
        for number, frame in enumerate(frames)
    ]
    parts.append(f'<path d="{cuts}" stroke="#ffffff" stroke-width="2"/>')
    for segment, color in ((OBSERVED, _BLUE), (FUTURE, _ORANGE)):
        first, last = _span(pair, segment)
        middle = (_x(first) + _x(last)) / 2
        parts += [
            f'<rect x="{_x(first)}" y="192" width="{_x(last) - _x(first):g}" height="{_FRAME_HEIGHT}" rx="3" '
            f'fill="none" stroke="{color}" stroke-width="5"/>',
            f'<text x="{middle:g}" y="280" text-anchor="middle" font-weight="bold" fill="{color}">'
            f"{segment} clip</text>",
        ]
    return parts


def _clock(pair: ClipPair) -> list[str]:
    """Seconds, and the two distances between the clips."""
    (first, last), (future, end) = _span(pair, OBSERVED), _span(pair, FUTURE)
    marks = [
        f'<path d="M{_x(each)} 293v12" stroke="{_GREY}" stroke-width="2"/>'
        f'<text x="{_x(each)}" y="324" text-anchor="middle">{each:.1f} s</text>'
        for each in (0, first, last, future, end, 2)
    ]
    return [
        f'<path d="M{_LEFT} 299H{_x(2)}" stroke="{_GREY}" stroke-width="2"/>',
        *marks,
        *_distance(first, future, 350, "offset"),
        *_distance(last, future, 378, "anticipation time"),
        f'<text x="{_x(future) + 12}" y="366" font-style="italic">the action begins</text>',
        f'<path d="M{_x(first)} 332v24M{_x(last)} 332v52M{_x(future)} 332v52" stroke="{_GREY}" '
        f'stroke-dasharray="2 3"/>',
    ]


def _distance(first: float, last: float, y: int, name: str) -> list[str]:
    arrow = f'<path d="M{_x(first) + 3} {y}H{_x(last) - 3}" stroke="{_GREY}" stroke-width="1.5" ' + (
        'marker-start="url(#head)" marker-end="url(#head)"/>'
    )
    words = f"{name} {last - first:.1f} s"
    side = f'x="{_x(first) - 8}" y="{y + 5}" text-anchor="end"'
    return [arrow, f"<text {side}>{words}</text>"]


def _span(pair: ClipPair, segment: str) -> tuple[float, float]:
    """When a clip's first frame appears, and when its last one goes."""
    times = pair.times_s[segment]
    return float(times[0]), float(times[-1] + times[1] - times[0])


_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 400" width="960" height="400" role="img" \
font-family="system-ui, Helvetica, Arial, sans-serif" font-size="15" fill="#26303b">
<title>Two clips of one video on a clock</title>
<desc>The student sees the observed clip, the teacher the future clip with the action. Both have \
a heat map of where they look. The teacher hands its probabilities and feature maps to the student.</desc>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" \
orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="#44515f"/></marker></defs>
<rect x="1" y="1" width="958" height="398" rx="14" fill="#ffffff" stroke="#d4dae1"/>
"""
