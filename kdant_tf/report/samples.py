"""The parts of a page that need records: clips of samples, and where networks look on them."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdant_tf.evaluation.predictions import Predictions, evaluate_command
from kdant_tf.report.group import Group, refuse_records
from kdant_tf.report.page import Clip, Gallery, Guess, Picture, Section, data_uri, draw_inline
from kdant_tf.visualization.embeddings import draw_features
from kdant_tf.visualization.run_view import ClipPair, PictureError, RunView, read_clip_pairs
from kdant_tf.visualization.visualize import draw_drift, draw_heat_maps
from tf_records.records import Records
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, OBSERVED

GUESSES = 3
HEIGHT = 112
MOST_FRAMES = 16
SAMPLES = 6
_HEAT_MAPS, _DRIFTS = 3, 1
# The last frame stays, so that the loop jumps about once a second and not four times.
_HOLD_MS = 700
_GAP, _GAP_GREY = 6, 128
_QUALITY = 70
# A function that writes into a path, the text in place of the picture, and what stands below it.
_Drawing = tuple[Callable[[Path], object], str, str]


def sample_sections(group: Group, folder: RecordPath, number: int, of: int) -> list[Section]:
    """The samples of a record folder, and the pictures over them.

    Args:
        group: networks evaluated on the records.
        folder: of these records, of frames, or of features, which have none to draw.
        number, of: of the record folder among those of the page, from 0.

    Raises:
        RunError: the predictions are of other records.
        RecordError: the records are damaged.
    """
    records = Records.open(folder, split=group.split)
    names = ("samples", "looks") if of == 1 else (f"samples-{number + 1}", f"looks-{number + 1}")
    where = "" if of == 1 else f": {records.folder}"
    if records.manifest.features is not None:
        nothing = f"{records.folder} holds features, not frames: there is nothing to look at."
        return [Section(id=names[0], title=f"Samples{where}", blocks=(), text=(nothing,))]
    main = group.main
    assert main.predictions is not None  # a group has no others
    best, worst = choose_best(main.predictions), choose_wrong(main.predictions)
    pairs = read_clip_pairs(records, group.split, [*best, *worst])
    check_ids(group, pairs)
    # Of several heads, the label is that of the group's.
    pairs = [dataclasses.replace(pair, label=int(main.predictions.labels[pair.number])) for pair in pairs]
    correct, wrong = pairs[: len(best)], pairs[len(best) :]
    galleries = (
        _gallery(group, "Surest and right", f"Where {main.title}, is right, class by class.", correct),
        _gallery(group, "Sure and wrong", f"Where {main.title}, is wrong, the surest first.", wrong),
    )
    pictures, text = _draw_pictures(group, records, correct, wrong)
    loops = (
        "Each clip loops; its last frame stays a while. Below it: what each network said first, "
        "second and third, with probabilities."
    )
    blocks = [gallery for gallery in galleries if gallery.clips]
    return [
        Section(id=names[0], title=f"Samples{where}", blocks=blocks, text=(loops,)),
        Section(id=names[1], title=f"Where networks look{where}", blocks=pictures, text=text),
    ]


def _gallery(group: Group, title: str, text: str, pairs: Sequence[ClipPair]) -> Gallery:
    return Gallery(title=title, text=text, clips=[make_clip(group, pair) for pair in pairs])


def _draw_pictures(
    group: Group, records: Records, correct: Sequence[ClipPair], wrong: Sequence[ClipPair]
) -> tuple[list[Picture], list[str]]:
    """Pictures, and for those that are left out the reason."""
    on_observed = {each.name for each in group.networks if each.view == OBSERVED}
    # What differs from the records of a training stands beside its results.
    views = [RunView(name, run, records, group.split, insist=True) for name, run in group.runs.items()]
    pictures: list[Picture] = []
    text: list[str] = []
    for each in views:
        if each.name not in on_observed:
            command = evaluate_command(each.run.folder, str(records.folder))
            text.append(
                f"Not over the observed clip: {each.name}. Evaluate it there: {command} --view {OBSERVED}."
            )
    drawings = [_drift(group, views, pair) for pair in (*correct[:_DRIFTS], *wrong[:_DRIFTS])]
    if mapped := [each for each in views if each.name in on_observed]:
        drawings.insert(0, _heat_maps(group, mapped, [*correct[:_HEAT_MAPS], *wrong[:_HEAT_MAPS]]))
    for draw, alt, caption in drawings:
        try:
            pictures.append(draw_inline(draw, alt=alt, caption=caption, frames=True))
        except PictureError as error:
            text.append(f"Left out: {error}")
    if not records.manifest.heads:  # Features are coloured by one label.
        pictures.append(_features(group, views))
    return pictures, list(dict.fromkeys(text))


def _heat_maps(group: Group, views: Sequence[RunView], pairs: Sequence[ClipPair]) -> _Drawing:
    labels = ", ".join(group.classes[pair.label] for pair in pairs)
    return (
        partial(draw_heat_maps, views, pairs, group.classes),
        f"Frames of {len(pairs)} samples ({labels}), each with the length of the feature vectors of "
        f"{', '.join(each.name for each in views)} over it.",
        "Figure 3 of the paper: how long each network's feature vectors are at each place.",
    )


def _drift(group: Group, views: Sequence[RunView], pair: ClipPair) -> _Drawing:
    return (
        partial(draw_drift, views, pair, group.classes),
        f"The teacher's strongest feature vectors in the future clip of a video of "
        f"{group.classes[pair.label]}, linked to the places of the observed clip that each student "
        f"holds them at.",
        "Where did it go: the attention that the feature loss compares.",
    )


def _features(group: Group, views: Sequence[RunView]) -> Picture:
    names = {segment: [each.name for each in views if each.view == segment] for segment in (OBSERVED, FUTURE)}
    clips = "; ".join(f"the {segment} clips by {', '.join(own)}" for segment, own in names.items() if own)
    return draw_inline(
        partial(draw_features, views, group.classes),
        alt=f"Samples of {group.split} as points, one colour and marker a class, a panel a network.",
        caption=f"How features part the classes, pooled over the map and projected: of {clips}.",
    )


def choose_best(predictions: Predictions, count: int = SAMPLES) -> list[int]:
    """Samples that the network is correct about and most sure of, one of each class in turn.

    Returns:
        Their numbers in `predictions`, most probable first.
    """
    confidence = predictions.probabilities.max(axis=1)
    correct = np.flatnonzero(predictions.correct())
    correct = correct[np.argsort(-confidence[correct], kind="stable")]
    counts: Counter[int] = Counter()
    turns = []
    for label in predictions.labels[correct].tolist():
        turns.append(counts[label])
        counts[label] += 1
    chosen = correct[np.argsort(turns, kind="stable")][:count] if turns else correct
    return sorted(chosen.tolist(), key=lambda number: (-confidence[number], number))


def choose_wrong(predictions: Predictions, count: int = SAMPLES) -> list[int]:
    """Samples that the network is wrong about, most sure of its class first."""
    confidence = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(~predictions.correct())
    numbers: list[int] = wrong[np.argsort(-confidence[wrong], kind="stable")][:count].tolist()
    return numbers


def check_ids(group: Group, pairs: Sequence[ClipPair]) -> None:
    """Refuses predictions of other records than the clips were read from."""
    # All networks of a group have predictions of the same samples.
    kept = next(iter(group.predictions.values())).ids
    for pair in pairs:
        if kept[pair.number] != pair.id:
            raise refuse_records(
                group, f"sample {pair.number} is {kept[pair.number]} there and {pair.id} here"
            )


def make_clip(group: Group, pair: ClipPair) -> Clip:
    """A sample's two clips, and the most probable classes by each network.

    Raises:
        RunError: the predictions are of other records.
    """
    frames = side_by_side(pair.frames(OBSERVED), pair.frames(FUTURE))
    guesses = {
        title: top_guesses(predictions, pair.number, group.classes)
        for title, predictions in group.predictions.items()
    }
    return Clip(
        label=group.classes[pair.label],
        id=pair.id,
        still=data_uri("image/webp", encode_still(frames[0])),
        moving=data_uri("image/webp", encode_moving(frames, _seconds(pair.times_s[OBSERVED]))),
        width=frames[0].width,
        height=frames[0].height,
        frames=len(frames),
        times=f"observed {_span(pair.times_s[OBSERVED])}, future {_span(pair.times_s[FUTURE])}",
        guesses=guesses,
    )


def top_guesses(predictions: Predictions, number: int, classes: Sequence[str]) -> tuple[Guess, ...]:
    """The most probable classes of a sample, three at most."""
    probabilities = predictions.probabilities[number]
    order = np.argsort(-probabilities, kind="stable")[:GUESSES]
    return tuple(
        Guess(name=classes[i], probability=float(probabilities[i]), correct=i == predictions.labels[number])
        for i in order.tolist()
    )


def _seconds(times_s: np.ndarray) -> float:
    """That the clip lasts, its last frame included."""
    steps = np.diff(times_s)
    return float(times_s[-1] - times_s[0] + (steps[0] if len(steps) else 1.0))


def _span(times_s: np.ndarray) -> str:
    return f"{times_s[0]:.2f} to {times_s[-1]:.2f} s"


def side_by_side(observed: np.ndarray, future: np.ndarray) -> list[Image.Image]:
    """Frames with the observed clip on the left and the future one on the right, a bar between them.

    Args:
        observed, future: RGB `(T, H, W, 3)` in [0, 1], of one size; of more than MOST_FRAMES frames some
            are left out evenly.
    """
    kept = range(0, len(observed), -(-len(observed) // MOST_FRAMES))
    return [_join(observed[number], future[number]) for number in kept]


def _join(left: np.ndarray, right: np.ndarray) -> Image.Image:
    halves = [Image.fromarray(np.round(255 * half).astype(np.uint8)) for half in (left, right)]
    width = max(1, round(halves[0].width * HEIGHT / halves[0].height))
    joined = Image.new("RGB", (2 * width + _GAP, HEIGHT), (_GAP_GREY,) * 3)
    for half, at in zip(halves, (0, width + _GAP), strict=True):
        joined.paste(half.resize((width, HEIGHT), Image.Resampling.BICUBIC), (at, 0))
    return joined


def encode_still(frame: Image.Image) -> bytes:
    """WebP."""
    file = io.BytesIO()
    frame.save(file, "WEBP", quality=_QUALITY, method=4)
    return file.getvalue()


def encode_moving(frames: Sequence[Image.Image], seconds: float) -> bytes:
    """An animated WebP that loops, the last frame held.

    Args:
        frames: at least one.
        seconds: that the clip lasts; each frame stays for its part.
    """
    each_ms = max(1, round(1000 * seconds / len(frames)))
    durations = [each_ms] * (len(frames) - 1) + [max(each_ms, _HOLD_MS)]
    file = io.BytesIO()
    frames[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=_QUALITY,
        method=4,
    )
    return file.getvalue()
