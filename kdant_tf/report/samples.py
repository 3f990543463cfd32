"""What needs the records: clips, where networks look, and where the teacher's features went."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdant_tf.evaluation.predictions import Predictions, evaluate_command
from kdant_tf.report.group import Group, refuse_records
from kdant_tf.report.page import Clip, Gallery, Guess, Picture, Section, data_uri, draw_inline
from kdant_tf.visualization.embeddings import draw_features
from kdant_tf.visualization.run_view import PictureError, Sample, ShownRun, read_samples
from kdant_tf.visualization.visualize import draw_drift, draw_heat_maps
from tf_records.records import Records
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, OBSERVED

_HEAT_MAPS, _DRIFTS = 3, 1


def seen_sections(group: Group, folder: RecordPath, number: int, of: int) -> list[Section]:
    """The samples of a record folder, and the pictures over them.

    Args:
        group: networks evaluated on the records.
        folder: of these records, of frames, or of features, which show nothing.
        number, of: of the record folder among those of the page, from 0.
    """
    records = Records.open(folder, split=group.split)
    names = ("samples", "looks") if of == 1 else (f"samples-{number + 1}", f"looks-{number + 1}")
    where = "" if of == 1 else f": {records.folder}"
    if records.manifest.features is not None:
        nothing = f"{records.folder} holds features, not frames: there is nothing to look at."
        return [Section(id=names[0], title=f"Samples{where}", blocks=(), text=(nothing,))]
    judge = group.judge
    assert judge.predictions is not None  # a group has no others
    best, wrong = choose_best(judge.predictions), choose_wrong(judge.predictions)
    samples = read_samples(records, group.split, [*best, *wrong])
    check_ids(group, samples)
    right, missed = samples[: len(best)], samples[len(best) :]
    galleries = (
        _gallery(group, "Surest and right", f"Where {judge.title}, is right, class by class.", right),
        _gallery(group, "Sure and wrong", f"Where {judge.title}, is wrong, the surest first.", missed),
    )
    pictures, text = _pictures(group, records, right, missed)
    return [
        Section(
            id=names[0],
            title=f"Samples{where}",
            blocks=[gallery for gallery in galleries if gallery.clips],
            text=(
                "Each clip loops; its last frame stays a while. Below it: what each network said first, "
                "second and third, with probabilities.",
            ),
        ),
        Section(id=names[1], title=f"Where networks look{where}", blocks=pictures, text=text),
    ]


def _gallery(group: Group, title: str, text: str, samples: Sequence[Sample]) -> Gallery:
    return Gallery(title=title, text=text, clips=[make_clip(group, sample) for sample in samples])


def _pictures(
    group: Group, records: Records, right: Sequence[Sample], missed: Sequence[Sample]
) -> tuple[list[Picture], list[str]]:
    """Pictures, and for those that are left out the reason."""
    seeing = {each.name for each in group.networks if each.view == OBSERVED}
    shown = [ShownRun(name, run, records, group.split) for name, run in group.runs.items()]
    drawn: list[Picture] = []
    text: list[str] = []
    for each in shown:
        if each.name not in seeing:
            advice = evaluate_command(each.run.folder, str(records.folder))
            text.append(
                f"Not over the observed clip: {each.name}. Evaluate it there: {advice} --view {OBSERVED}."
            )
    mapped = [each for each in shown if each.name in seeing]
    chosen = [*right[:_HEAT_MAPS], *missed[:_HEAT_MAPS]]
    labels = ", ".join(group.classes[sample.label] for sample in chosen)
    wanted: list[tuple[Callable[[Path], object], str, str]] = []
    if mapped:
        wanted.append(
            (
                partial(draw_heat_maps, mapped, chosen, group.classes),
                f"Frames of {len(chosen)} samples ({labels}), each with the length of the feature vectors of "
                f"{', '.join(each.name for each in mapped)} over it.",
                "Figure 3 of the paper: how long each network's feature vectors are at each place.",
            )
        )
    for sample in [*right[:_DRIFTS], *missed[:_DRIFTS]]:
        wanted.append(
            (
                partial(draw_drift, shown, sample, group.classes),
                f"The teacher's strongest feature vectors in the future clip of a video of "
                f"{group.classes[sample.label]}, linked to the places of the observed clip that each student "
                f"holds them at.",
                "Where did it go: the attention that the feature loss compares.",
            )
        )
    for draw, alt, caption in wanted:
        try:
            drawn.append(draw_inline(draw, alt=alt, caption=caption, frames=True))
        except PictureError as error:
            text.append(f"Left out: {error}")
    drawn.append(_features(group, shown))
    return drawn, list(dict.fromkeys(text))


def _features(group: Group, shown: Sequence[ShownRun]) -> Picture:
    sides = {name: [each.name for each in shown if each.view == name] for name in (OBSERVED, FUTURE)}
    seeing = "; ".join(f"the {name} clips by {', '.join(names)}" for name, names in sides.items() if names)
    return draw_inline(
        partial(draw_features, shown, group.classes),
        alt=f"Samples of {group.split} as points, one colour and marker a class, a panel a network.",
        caption=f"How features part the classes, pooled over the map and projected: of {seeing}.",
    )


# Samples as looping clips, with what each network said of them.


GUESSES = 3


def make_clip(group: Group, sample: Sample) -> Clip:
    """A sample's two clips, and the most probable classes by each network.

    Raises:
        RunError: the predictions are of other records.
    """
    frames = side_by_side(sample.frames(OBSERVED), sample.frames(FUTURE))
    said = {
        title: top_guesses(predictions, sample.number, group.classes)
        for title, predictions in group.predictions.items()
    }
    return Clip(
        label=group.classes[sample.label],
        id=sample.id,
        still=data_uri("image/webp", encode_still(frames[0])),
        moving=data_uri("image/webp", encode_moving(frames, _seconds(sample.times_s[OBSERVED]))),
        width=frames[0].width,
        height=frames[0].height,
        frames=len(frames),
        times=f"observed {_span(sample.times_s[OBSERVED])}, future {_span(sample.times_s[FUTURE])}",
        said=said,
    )


def check_ids(group: Group, samples: Sequence[Sample]) -> None:
    """Refuses predictions of other records than the samples were read from."""
    # All networks of a group saw the same samples.
    kept = next(iter(group.predictions.values())).ids
    for sample in samples:
        if kept[sample.number] != sample.id:
            raise refuse_records(
                group, f"sample {sample.number} is {kept[sample.number]} there and {sample.id} here"
            )


def top_guesses(predictions: Predictions, place: int, classes: Sequence[str]) -> tuple[Guess, ...]:
    """The most probable classes of a sample, three at most."""
    probabilities = predictions.probabilities[place]
    order = np.argsort(-probabilities, kind="stable")[:GUESSES]
    return tuple(
        Guess(name=classes[i], probability=float(probabilities[i]), right=i == predictions.labels[place])
        for i in order.tolist()
    )


def _seconds(times_s: np.ndarray) -> float:
    """That the clip lasts, its last frame included."""
    steps = np.diff(times_s)
    return float(times_s[-1] - times_s[0] + (steps[0] if len(steps) else 1.0))


def _span(times_s: np.ndarray) -> str:
    return f"{times_s[0]:.2f} to {times_s[-1]:.2f} s"


# A pair of clips as one looping picture.


HEIGHT = 112
MOST_FRAMES = 16
# The last frame stays, so that the loop jumps about once a second and not four times.
_HOLD_MS = 700
_GAP, _GAP_GREY = 6, 128
_QUALITY = 70


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


# Which samples a page shows. No TensorFlow here.


SAMPLES = 6


def choose_best(predictions: Predictions, count: int = SAMPLES) -> list[int]:
    """Samples that the network is right and most sure of, one of each class in turn.

    Returns:
        Their places in `predictions`, most probable first.
    """
    sure = predictions.probabilities.max(axis=1)
    right = np.flatnonzero(predictions.correct())
    right = right[np.argsort(-sure[right], kind="stable")]
    turns: dict[int, int] = {}
    rounds = []
    for place in right.tolist():
        label = int(predictions.labels[place])
        rounds.append(turns.get(label, 0))
        turns[label] = rounds[-1] + 1
    chosen = right[np.argsort(rounds, kind="stable")][:count] if rounds else right
    return sorted(chosen.tolist(), key=lambda place: (-sure[place], place))


def choose_wrong(predictions: Predictions, count: int = SAMPLES) -> list[int]:
    """Samples that the network is wrong about, most sure of its class first."""
    sure = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(~predictions.correct())
    return wrong[np.argsort(-sure[wrong], kind="stable")][:count].tolist()
