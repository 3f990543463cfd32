"""What needs the records: clips, where networks look, and where the teacher's features went."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kdant_tf.pictures.pooled import draw_features
from kdant_tf.pictures.samples import Sample, read_samples
from kdant_tf.pictures.scenes import draw_drift, draw_heat_maps
from kdant_tf.pictures.shown import PictureError, ShownRun
from kdant_tf.report.chosen import choose_best, choose_wrong
from kdant_tf.report.clips import check_ids, make_clip
from kdant_tf.report.content import Gallery, Picture, Section
from kdant_tf.report.evaluated import describe_advice
from kdant_tf.report.group import Group
from kdant_tf.report.inline import draw_inline
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
            advice = describe_advice(each.run.folder, str(records.folder))
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
