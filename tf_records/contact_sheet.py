"""A picture to look at: observed and future frames of some records, side by side."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from tf_records import schema
from tf_records.errors import KdantError, RecordError
from tf_records.files import atomic_path
from tf_records.heads import label_keys
from tf_records.manifest import Manifest
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, OBSERVED
from tf_records.verify import read_examples

_HEIGHT, _WIDEST, _GAP, _MARGIN = 120, 214, 4, 12
_CAPTION, _TIMES = 24, 18
_PICTURES = 3
_COLOURS = {OBSERVED: "#1f77b4", FUTURE: "#d9660a"}
_TITLES = {OBSERVED: "observed: what A sees", FUTURE: "future: the action, what R sees"}
_GREY = "#666666"
# In place of a label, where a record has several.
_SEVERAL = "several labels"


def draw_contact_sheet(
    folder: RecordPath, manifest: Manifest, path: Path, *, samples: int = 8, seed: int = 0
) -> None:
    """Draws a row a record: first, middle and last frame of the observed and of the future segment.

    Records are drawn from all splits and, as far as there are any, from as many classes as there are
    rows, one of them unlabelled. Flow is shown by the usual colours: hue is its direction, white none.

    Args:
        folder: of the records.
        manifest: of that folder.
        path: PNG to write.
        samples: rows.
        seed: of the pick.

    Raises:
        RecordError: records of features, or a damaged one.
        KdantError: `path` is no PNG, or its folder does not exist.
    """
    if manifest.features is not None:
        raise RecordError(
            f"{folder} holds features, which are no pictures. Draw the contact sheet of the records of "
            f"frames they were made from."
        )
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise KdantError(
            f"The contact sheet should be a .png file in a folder that exists. Received: {path}."
        )
    rows = [
        _make_row(pick, example, manifest)
        for pick, example in _read(folder, manifest, pick_records(manifest, samples, seed))
    ]
    sheet = _draw(rows, manifest.modalities)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


class RecordPick(NamedTuple):
    """The `place`-th record with this label (None is unlabelled) in a shard, counted from 0."""

    split: str
    shard: str
    label: str | None
    place: int


def pick_records(manifest: Manifest, samples: int, seed: int) -> list[RecordPick]:
    """Draws up to `samples` records, one of each class in turn and one without a label where there is any.

    The order is that of the splits and their shards.
    """
    generator = np.random.default_rng(seed)
    by_label: dict[str | None, list[RecordPick]] = {}
    for split, info in manifest.splits.items():
        for shard in info.shards:
            # Records of several labels are all of one kind.
            counts = {_SEVERAL: shard.labeled} if manifest.heads else shard.classes
            for label, count in ((None, shard.records - shard.labeled), *counts.items()):
                own = (RecordPick(split, shard.file, label, place) for place in range(count))
                by_label.setdefault(label, []).extend(own)
    unlabeled = by_label.pop(None, [])
    groups = [by_label[label] for label in by_label]
    order = [unlabeled, *(groups[i] for i in generator.permutation(len(groups)))]
    shuffled = [[group[i] for i in generator.permutation(len(group))] for group in order]
    turns = itertools.zip_longest(*shuffled)
    chosen = [pick for turn in turns for pick in turn if pick is not None][:samples]
    shards = [shard.file for shard in manifest.shards]
    return sorted(chosen, key=lambda pick: (shards.index(pick.shard), pick.label or "", pick.place))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _SheetRow:
    """A record as it is drawn: view → modality → pictures, and view → their times."""

    label: str
    text: str
    pictures: dict[str, dict[str, list[Image.Image]]]
    times_s: dict[str, list[float]]


def _read(
    folder: RecordPath, manifest: Manifest, picks: Sequence[RecordPick]
) -> Iterator[tuple[RecordPick, tf.train.SequenceExample]]:
    """The chosen records in the order of their shards, each of which is read once."""
    for shard in dict.fromkeys(pick.shard for pick in picks):
        wanted = [pick for pick in picks if pick.shard == shard]
        found: dict[str | None, int] = {}
        for number, example in enumerate(read_examples(folder / shard, manifest)):
            if isinstance(example, str):
                raise RecordError(
                    f"Record {number} of shard {folder / shard} is damaged: {example}. See all damage: "
                    f"kdant inspect --verify."
                )
            text = _label_text(example, manifest)
            label = _SEVERAL if manifest.heads and text is not None else text
            place = found[label] = found.get(label, -1) + 1
            for pick in wanted:
                if (pick.label, pick.place) == (label, place):
                    yield pick, example


def _label_text(example: tf.train.SequenceExample, manifest: Manifest) -> str | None:
    context = example.context.feature
    keys = label_keys(manifest.heads)
    return (
        " | ".join(name.decode() for _, key in keys for name in context[key].bytes_list.value if name) or None
    )


def _make_row(pick: RecordPick, example: tf.train.SequenceExample, manifest: Manifest) -> _SheetRow:
    context = example.context.feature
    fps = context[schema.FRAME_RATE].float_list.value[0]
    pictures: dict[str, dict[str, list[Image.Image]]] = {}
    times_s: dict[str, list[float]] = {}
    for view, start_key in ((OBSERVED, schema.OBSERVED_START_S), (FUTURE, schema.FUTURE_START_S)):
        start_s = context[start_key].float_list.value[0]
        pictures[view] = {}
        for modality in manifest.modalities:
            keys = schema.VIEW_KEYS[modality][view]
            count = len(example.feature_lists.feature_list[keys[0]].feature)
            numbers = [round(i * (count - 1) / (_PICTURES - 1)) for i in range(_PICTURES)]
            pictures[view][modality] = [
                _decode([_jpeg(example, key, number) for key in keys], modality) for number in numbers
            ]
            times_s[view] = [start_s + number / fps for number in numbers]
    identity = context[schema.CLIP_ID].bytes_list.value[0].decode(errors="replace")
    return _SheetRow(
        label=_label_text(example, manifest) or "unlabelled",
        text=f"{pick.split} · {identity}",
        pictures=pictures,
        times_s=times_s,
    )


def _jpeg(example: tf.train.SequenceExample, key: str, number: int) -> bytes:
    return bytes(example.feature_lists.feature_list[key].feature[number].bytes_list.value[0])


def _decode(jpegs: list[bytes], modality: str) -> Image.Image:
    try:
        planes = [Image.open(io.BytesIO(jpeg)).convert("RGB" if len(jpegs) == 1 else "L") for jpeg in jpegs]
    except OSError as error:
        raise RecordError(f"A frame cannot be decoded: {error}. See kdant inspect --verify.") from error
    picture = planes[0]
    if modality != schema.RGB:
        u, v = ((np.asarray(plane, float) - schema.FLOW_ZERO) / schema.FLOW_STEPS for plane in planes)
        picture = colour_flow(u, v)
    scale = min(_HEIGHT / picture.height, _WIDEST / picture.width)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def colour_flow(u: np.ndarray, v: np.ndarray) -> Image.Image:
    """Flow in [-1, 1] `(H, W)` → RGB: hue is direction; the picture's longest vectors have full colour."""
    length = np.hypot(u, v)
    # A tenth of the bound has full colour at the earliest: below is mostly noise.
    saturation = length / max(float(np.percentile(length, 99)), 0.1)
    hue = (np.arctan2(v, u) / (2 * np.pi)) % 1.0
    hsv = np.stack([hue * 255, np.clip(saturation, 0, 1) * 255, np.full_like(hue, 255)], axis=-1)
    return Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")


def _draw(rows: list[_SheetRow], modalities: tuple[str, ...]) -> Image.Image:
    cell = max(picture.width for row in rows for picture in _all_pictures(row))
    half = _PICTURES * (cell + _GAP) - _GAP
    row_height = _CAPTION + len(modalities) * (_HEIGHT + _GAP) + _TIMES + _MARGIN
    lefts = {OBSERVED: _MARGIN, FUTURE: _MARGIN + half + 2 * _MARGIN}
    size = (lefts[FUTURE] + half + _MARGIN, 2 * _MARGIN + _CAPTION + len(rows) * row_height)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for view, left in lefts.items():
        draw.rectangle((left, _MARGIN, left + half - 1, _MARGIN + _CAPTION - 1), fill=_COLOURS[view])
        draw.text((left + 6, _MARGIN + 3), _TITLES[view], "white", _font(14, bold=True))
    for number, row in enumerate(rows):
        top = 2 * _MARGIN + _CAPTION + number * row_height
        _draw_caption(draw, row, (_MARGIN, top), size[0] - _MARGIN)
        for view, left in lefts.items():
            _draw_segment(sheet, draw, row, view, (left, top + _CAPTION), cell)
    return sheet


def _all_pictures(row: _SheetRow) -> Iterator[Image.Image]:
    for by_modality in row.pictures.values():
        for pictures in by_modality.values():
            yield from pictures


def _draw_caption(draw: ImageDraw.ImageDraw, row: _SheetRow, place: tuple[int, int], right: int) -> None:
    left, top = place
    bold, plain = _font(14, bold=True), _font(12)
    draw.text((left, top + 2), row.label, "black", bold)
    start = left + draw.textlength(row.label, bold) + 10
    text = row.text
    while text and start + draw.textlength(text, plain) > right:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    draw.text((start, top + 4), text, _GREY, plain)


def _draw_segment(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    row: _SheetRow,
    view: str,
    place: tuple[int, int],
    cell: int,
) -> None:
    left, top = place
    for column, time_s in enumerate(row.times_s[view]):
        x = left + column * (cell + _GAP)
        for line, pictures in enumerate(row.pictures[view].values()):
            picture = pictures[column]
            y = top + line * (_HEIGHT + _GAP)
            draw.rectangle((x, y, x + cell - 1, y + _HEIGHT - 1), fill="#eeeeee")
            sheet.paste(picture, (x + (cell - picture.width) // 2, y + (_HEIGHT - picture.height) // 2))
        bottom = top + len(row.pictures[view]) * (_HEIGHT + _GAP)
        draw.text((x + 2, bottom), f"{time_s:.2f} s", _COLOURS[view], _font(12))


def _font(size: int, *, bold: bool = False) -> Any:
    """DejaVu, which comes with Matplotlib and has more alphabets than Pillow's own."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
