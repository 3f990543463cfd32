"""From a record folder to batches. Every batch is a function of (seed, epoch), whatever the machine.

Training draws one start, one crop and one flip for both clips of a pair, keyed by the record's number
in its split; evaluation cuts evenly spaced windows and the central crop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tensorflow as tf

from tf_records import augment, schema
from tf_records.augment import NO_AUGMENTATION, Augmentation
from tf_records.errors import RecordError
from tf_records.heads import Heads, label_keys
from tf_records.manifest import SplitInfo
from tf_records.schema import EITHER, FLOW, FUTURE, OBSERVED

if TYPE_CHECKING:
    from tf_records.records import Records

_F = TypeVar("_F", bound=Callable[..., Any])

_SHUFFLE_RECORDS = 256
# At most, where records are large: a pair of maps of 8x16x29x480 takes 7 MB.
_SHUFFLE_BYTES = 2**30
_CONTEXT = {
    schema.CLIP_ID: tf.io.FixedLenFeature((), tf.string),
    schema.CLIP_VIDEO: tf.io.FixedLenFeature((), tf.string),
    # Empty in records of frames.
    schema.FEATURE_SHAPE: tf.io.RaggedFeature(tf.int64),
}
# Of records, not of those of features: where the clip to observe lies within a longer segment.
_TIMES = {
    schema.OBSERVED_START_S: tf.io.FixedLenFeature((), tf.float32),
    schema.FUTURE_START_S: tf.io.FixedLenFeature((), tf.float32),
    schema.FRAME_RATE: tf.io.FixedLenFeature((), tf.float32),
    schema.CLIP_OFFSET_FRAMES: tf.io.FixedLenFeature((), tf.int64),
}


def plain(function: _F) -> _F:
    """The function as it is: nothing here needs AutoGraph, whose conversion takes longer than the tracing."""
    unconverted: _F = tf.autograph.experimental.do_not_convert(function)
    return unconverted


def training_batches(
    records: Records, *, epoch: int, draw: int | None = None, skip_batches: int = 0, **settings: Any
) -> tf.data.Dataset:
    """One epoch of training batches: `training_epochs` of the other arguments, called with these."""
    return training_epochs(records, trace=False, **settings)(epoch, draw, skip_batches)


def training_epochs(
    records: Records,
    *,
    views: tuple[str, ...],
    batch_size: int,
    crop: int,
    seed: int,
    labels: np.ndarray | None = None,
    labeled_only: bool = False,
    held_out: np.ndarray | None = None,
    share: tuple[int, int] = (0, 1),
    augmentation: Augmentation = NO_AUGMENTATION,
    eight_bits: bool = False,
    trace: bool = True,
) -> Callable[..., tf.data.Dataset]:
    """Epoch → its training batches; the last, incomplete batch is dropped.

    Args:
        records: an opened record folder.
        views: which clips to give: "observed", "future", or "either", a clip of either segment.
        batch_size: records a batch.
        crop: pixels of the square that the network sees; of maps, the square that is as large.
        seed: decides, with the epoch, order, starts, crops and flips; maps are not flipped.
        labels: int64 `(records,)`, or `(records, n)`, in record order, in place of the recorded labels.
        labeled_only: leave out records whose label is -1.
        held_out: bool `(records,)`, records to leave out.
        share: (i, n) gives the i-th of n equal parts of each batch, and decodes no other; n divides
            `batch_size`.
        augmentation: what else is drawn, as starts, crops and flips are.
        eight_bits: leave frames in uint8 where they are cut without being scaled or coloured, so that
            `augment.scale` in the step gives the same values and less is copied on the way.
        trace: have TensorFlow trace the pipeline once, not for each epoch.

    Returns:
        A function of the epoch; of `draw`, by default the epoch, whose starts, crops and flips are to come
        again in the epoch's order; and of `skip_batches`, how many to leave out without decoding them. It
        gives a dataset of dicts: each view float32 `(batch, T, crop, crop, C)` in [-1, 1] with C 3 for RGB, 2
        (u, v) for flow; of records of features `(batch, T, *shape)` of a frame's or `(batch, T, side,
        side, C)` of a clip's, see `FeatureInfo.map_side`; `index` int64 `(batch,)`, the record's number
        in the split; and `label` int32 `(batch,)`, -1 where unlabelled, or of records with heads `(batch,
        n)`, see `label_of`; and of records of several anticipation times `time` int32 `(batch,)`, which one.
    """
    eight_bits = eight_bits and _stay_in_eight_bits(records, crop, augmentation)

    @plain
    def decode(draw: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        decision = augment.draw_decision(seed, draw, index, augmentation)
        return _training_example(records, serialized, decision, views, crop, index, labels, eight_bits)

    def batches_of(
        paths: tf.Tensor, first: tf.Tensor, seeds: tf.Tensor, draw: tf.Tensor, skip: tf.Tensor
    ) -> tf.data.Dataset:
        with tf.device("/device:CPU:0"):  # A graph may be placed elsewhere.
            dataset = _shuffled_records(
                records,
                *(paths, first, seeds),
                labels=labels,
                labeled_only=labeled_only,
                held_out=held_out,
            ).skip(skip * batch_size)
            if share != (0, 1):
                dataset = _share_of(dataset, batch_size, *share)
            dataset = dataset.map(
                plain(lambda *record: decode(draw, *record)),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            return dataset.batch(batch_size // share[1], drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    shapes = {"paths": (None,), "first": (None,), "seeds": (2,), "draw": (), "skip": ()}
    signature = [
        tf.TensorSpec(shape, tf.string if name == "paths" else tf.int64) for name, shape in shapes.items()
    ]
    make = tf.function(batches_of, input_signature=signature, autograph=False) if trace else batches_of

    def batches(epoch: int, draw: int | None = None, skip_batches: int = 0) -> tf.data.Dataset:
        order = _draw_order(records, seed, epoch)
        return make(*order, np.int64(epoch if draw is None else draw), np.int64(skip_batches))

    return batches


def fresh_training_batches(
    records: Records,
    *,
    views: tuple[str, ...],
    batch_size: int,
    crop: int,
    seed: int,
    labeled_only: bool = False,
) -> tf.data.Dataset:
    """Training batches of another epoch on every pass: pass k, from 0, is `training_batches` of epoch k.

    The passes are counted in this process, and a pass begins when an iterator asks for its first batch.

    Args:
        records, views, batch_size, crop, seed, labeled_only: as of `training_batches`.

    Returns:
        Dataset of the same dicts, with a length.

    Raises:
        RecordError: the split has fewer records than a batch.
    """
    count = _count_batches(records, batch_size, labeled_only)
    epochs = itertools.count()

    def draw_next() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
        epoch = next(epochs)
        yield *_draw_order(records, seed, epoch), epoch

    @plain
    def shuffle(paths: tf.Tensor, first: tf.Tensor, seeds: tf.Tensor, epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = _shuffled_records(records, paths, first, seeds, labeled_only=labeled_only)
        return shuffled.map(plain(lambda *record: (epoch, *record)))

    @plain
    def decode(epoch: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        decision = augment.draw_decision(seed, epoch, index)
        return _training_example(records, serialized, decision, views, crop, index)

    specs = (((None,), tf.string), ((None,), tf.int64), ((2,), tf.int64), ((), tf.int64))
    passes = tf.data.Dataset.from_generator(
        draw_next, output_signature=tuple(tf.TensorSpec(*spec) for spec in specs)
    )
    dataset = passes.flat_map(shuffle)
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def _count_batches(records: Records, batch_size: int, labeled_only: bool) -> int:
    """Whole batches of an epoch. Raises RecordError where there is none."""
    split = records.split("train")
    count = split.labeled if labeled_only else split.records
    if count < batch_size:
        kind = "labelled records" if labeled_only else "records"
        raise RecordError(
            f"{records.folder} has {count} {kind} to train on, fewer than a batch of {batch_size}. "
            f"Lower the batch size."
        )
    return count // batch_size


def clips_in_order(
    records: Records,
    *,
    view: str,
    batch_size: int,
    crop: int,
    seed: int,
    draw: int,
    first: int = 0,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> tf.data.Dataset:
    """The clips that `training_batches` gives of a view with this `draw`, in record order.

    Returns:
        Dataset of clips `(batch, …)` from record number `first` on; the last batch may be smaller.
    """

    @plain
    def decode(index: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        decision = augment.draw_decision(seed, draw, index, augmentation)
        return _pair_of_clips(records, serialized, decision, (view,), crop)[1][view]

    dataset = tf.data.TFRecordDataset(records.paths("train")).enumerate().skip(first)
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    records: Records,
    *,
    split: str,
    view: str,
    batch_size: int,
    crop: int | None,
    windows: int,
    share: float = 1.0,
    tau_s: float | None = None,
    chosen: np.ndarray | None = None,
) -> tf.data.Dataset:
    """All windows of a split in record order; a record gives as many as its segment has, up to `windows`.

    Args:
        records: an opened record folder.
        split: to read.
        view: segment to cut windows of, "observed" or "future".
        batch_size: windows a batch.
        crop: pixels of the central square; None for whole frames, which may want a batch of one.
        windows: evenly spaced ones a segment, at most.
        share: of the segment's entries, from its start, that are looked at, rounded up; in (0, 1].
        tau_s: seconds from the end of the observed clip to the start of the action, in place of the
            records' own; of records that keep frames for that (`longest_anticipation_s`).
        chosen: bool `(records,)`, the only records to read; None for all.

    Returns:
        Dataset of dicts: `clip` float32 `(batch, T, crop, crop, C)`, `index` int64 `(batch,)` (the
        record's number in the split), `label` int32 `(batch,)`, and strings `id` and `video` `(batch,)`.
        The last batch may be smaller.
    """

    @plain
    def cut_windows(index: tf.Tensor, serialized: tf.Tensor) -> tf.data.Dataset:
        context, segments = parse(records, serialized, (view,))
        encoded = _first_share(segments[view], share)
        starts = _evaluation_starts(records, serialized, tf.shape(encoded)[0], view, split, windows, tau_s)

        @plain
        def cut(start: tf.Tensor) -> dict[str, tf.Tensor]:
            clip = cut_clip(records, context, encoded, start, crop, None)
            return {
                "clip": clip,
                "index": index,
                "label": tf.cast(context[schema.LABEL_INDEX], tf.int32),
                "id": context[schema.CLIP_ID],
                "video": context[schema.CLIP_VIDEO],
            }

        return tf.data.Dataset.from_tensor_slices(starts).map(cut)

    dataset = tf.data.TFRecordDataset(records.paths(split)).enumerate()
    if chosen is not None:
        dataset = _keep(dataset, chosen)
    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    dataset = dataset.interleave(cut_windows, cycle_length=4, block_length=windows, **parallel)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def central_batches(
    records: Records,
    *,
    split: str,
    views: tuple[str, ...],
    batch_size: int,
    crop: int,
    labeled_only: bool = False,
) -> tf.data.Dataset:
    """The middle clip of each view of each record, in record order, of which the central square.

    Args:
        records, split, batch_size, crop: as of `evaluation_batches`.
        views: "observed", "future", or both.
        labeled_only: leave out records whose label is -1.

    Returns:
        Dataset of the dicts of `training_batches`, with a length; the last batch may be smaller.
    """

    @plain
    def cut(index: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        context, segments = parse(records, serialized, views)
        clips = {}
        for view, encoded in segments.items():
            frames = tf.shape(encoded)[0]
            start = _evaluation_starts(records, serialized, frames, view, split, 1, None)[0]
            clips[view] = cut_clip(records, context, encoded, start, crop, None)
        return {**clips, "index": index, "label": tf.cast(context[schema.LABEL_INDEX], tf.int32)}

    dataset = tf.data.TFRecordDataset(records.paths(split)).enumerate()
    info = records.split(split)
    if labeled_only:
        dataset = dataset.filter(
            plain(lambda index, record: is_labeled(_parse_context(records, record)[schema.LABEL_INDEX]))
        )
    dataset = dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    count = info.labeled if labeled_only else info.records
    dataset = dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    return dataset.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))


def _first_share(encoded: tf.Tensor, share: float) -> tf.Tensor:
    """The first `share` of a segment's entries, rounded up."""
    # Exact: a float times a count may come out just above a whole number, and be rounded up from there.
    part = Fraction(str(share))
    entries = tf.cast(tf.shape(encoded)[0], tf.int64)
    return encoded[: -(-entries * part.numerator // part.denominator)]


def observed_start(
    records: Records, serialized: tf.Tensor, entries: tf.Tensor, tau_s: float | None
) -> tf.Tensor:
    """Where the clip to observe begins in a segment of so many entries, as far as the video allows."""
    times, _ = tf.io.parse_single_sequence_example(serialized, context_features=_TIMES)
    fps, clip_frames = times[schema.FRAME_RATE], records.manifest.clip.clip_frames
    lead_s = times[schema.FUTURE_START_S] - times[schema.OBSERVED_START_S]
    offset = tf.cast(times[schema.CLIP_OFFSET_FRAMES], tf.int32)
    if tau_s is not None:
        offset = clip_frames + tf.cast(tf.round(tau_s * fps), tf.int32)
    start = tf.cast(tf.round(lead_s * fps), tf.int32) - offset
    return tf.clip_by_value(start, 0, tf.maximum(entries - clip_frames, 0))


def _share_of(dataset: tf.data.Dataset, batch_size: int, part: int, parts: int) -> tf.data.Dataset:
    """The elements in the `part`-th of `parts` equal parts of each whole batch."""
    size = batch_size // parts

    @plain
    def cut(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(values[part * size : (part + 1) * size] for values in batch)

    return dataset.batch(batch_size, drop_remainder=True).map(cut).unbatch()


def _draw_order(records: Records, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An epoch's shards as drawn, the number of each one's first record, and two seeds to shuffle with."""
    shards = records.split("train").shards
    first = np.cumsum([0] + [shard.records for shard in shards])[:-1].astype(np.int64)
    order = np.random.default_rng((seed, epoch)).permutation(len(shards))
    order_seed = np.random.SeedSequence((seed, epoch)).generate_state(1)[0]
    # As `shuffle` makes of one: TensorFlow's global seed has a part in it.
    seeds = np.array(tf.compat.v1.get_seed(int(order_seed)), np.int64)
    return np.array(records.paths("train"))[order], first[order], seeds


def _shuffled_records(
    records: Records,
    paths: np.ndarray | tf.Tensor,
    first: np.ndarray | tf.Tensor,
    seeds: np.ndarray | tf.Tensor,
    *,
    labels: np.ndarray | None = None,
    labeled_only: bool = False,
    held_out: np.ndarray | None = None,
) -> tf.data.Dataset:
    """(number in the split, serialized record) of an epoch, in the order of `_draw_order`."""

    @plain
    def has_label(index: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        if labels is not None:
            return is_labeled(tf.gather(tf.constant(labels), index))
        return is_labeled(_parse_context(records, serialized)[schema.LABEL_INDEX])

    dataset = tf.data.Dataset.from_tensor_slices((paths, first)).interleave(
        plain(lambda path, number: tf.data.TFRecordDataset(path).enumerate(start=number)),
        cycle_length=4,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if held_out is not None:
        dataset = _keep(dataset, ~held_out)
    split = records.split("train")
    if labeled_only and (labels is not None or split.labeled < split.records):
        dataset = dataset.filter(has_label)
    return _shuffle(dataset, _records_to_shuffle(split), seeds)


def _shuffle(dataset: tf.data.Dataset, size: int, seeds: np.ndarray | tf.Tensor) -> tf.data.Dataset:
    """`dataset.shuffle(size)`, whose seed may be a tensor under any global seed."""
    specs = tf.nest.flatten(dataset.element_spec)
    shuffled = tf.raw_ops.ShuffleDatasetV3(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=tf.constant(size, tf.int64),
        seed=seeds[0],
        seed2=seeds[1],
        seed_generator=tf.raw_ops.DummySeedGenerator(),
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(shuffled, dataset.element_spec)


def _records_to_shuffle(split: SplitInfo) -> int:
    """Records to hold for shuffling."""
    mean_bytes = sum(shard.bytes for shard in split.shards) // split.records
    return max(1, min(_SHUFFLE_RECORDS, _SHUFFLE_BYTES // max(1, mean_bytes)))


def _training_example(
    records: Records,
    serialized: tf.Tensor,
    decision: augment.Decision,
    views: tuple[str, ...],
    crop: int,
    index: tf.Tensor,
    labels: np.ndarray | None = None,
    eight_bits: bool = False,
) -> dict[str, tf.Tensor]:
    context, clips = _pair_of_clips(records, serialized, decision, views, crop, eight_bits)
    label = context[schema.LABEL_INDEX] if labels is None else tf.gather(tf.constant(labels), index)
    example = {**clips, "index": index, "label": tf.cast(label, tf.int32)}
    if records.manifest.times_s:
        features = {schema.TIME_INDEX: tf.io.FixedLenFeature((), tf.int64)}
        context, _ = tf.io.parse_single_sequence_example(serialized, context_features=features)
        example["time"] = tf.cast(context[schema.TIME_INDEX], tf.int32)
    return example


def _evaluation_starts(
    records: Records,
    serialized: tf.Tensor,
    entries: tf.Tensor,
    view: str,
    split: str,
    windows: int,
    tau_s: float | None,
) -> tf.Tensor:
    """Where the windows of a segment of so many entries begin: int32 `(n,)`."""
    # Where val and test segments hold more than the protocol lets A see, that clip is cut out of them.
    if view == OBSERVED and split != "train" and records.manifest.longest_anticipation_s is not None:
        return tf.reshape(observed_start(records, serialized, entries, tau_s), (1,))
    return augment.window_starts(entries, records.clip_entries, windows)


def _keep(numbered: tf.data.Dataset, chosen: np.ndarray) -> tf.data.Dataset:
    """The (number, record) pairs whose number is chosen: bool `(records,)`."""
    return numbered.filter(plain(lambda number, serialized: tf.gather(tf.constant(chosen), number)))


def _pair_of_clips(
    records: Records,
    serialized: tf.Tensor,
    decision: augment.Decision,
    views: tuple[str, ...],
    crop: int,
    eight_bits: bool = False,
) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
    """The context, and clips of the views, cut with the same start, square, flip and colours."""
    context, segments = parse(records, serialized, (OBSERVED, FUTURE))
    observed, future = segments[OBSERVED], segments[FUTURE]
    entries = records.clip_entries
    if decision.tenths is not None:
        times, _ = tf.io.parse_single_sequence_example(serialized, context_features=_TIMES)
        offset = tf.cast(times[schema.CLIP_OFFSET_FRAMES], tf.int32)
        seen, first = augment.clip_of_share(decision, observed, future, offset, entries)
        # The future clip is as much later, as far as the video goes.
        later = tf.minimum(first, tf.maximum(tf.shape(future)[0] - entries, 0))
        drawn = {OBSERVED: (seen, tf.constant(0)), FUTURE: (future, later)}
        return context, {
            view: cut_clip(records, context, *drawn[view], crop, decision, eight_bits) for view in views
        }
    starts = [tf.maximum(tf.shape(encoded)[0] - entries + 1, 1) for encoded in (observed, future)]
    shared = _draw_start(decision, tf.minimum(*starts))
    drawn = _draw_start(decision, starts[0] + starts[1])
    clips = {}
    for view in views:
        if view == EITHER:
            in_future = drawn >= starts[0]
            encoded = tf.cond(in_future, lambda: future, lambda: observed)
            start = tf.where(in_future, drawn - starts[0], drawn)
        else:
            encoded, start = segments[view], shared
        clips[view] = cut_clip(records, context, encoded, start, crop, decision, eight_bits)
    return context, clips


def cut_clip(
    records: Records,
    context: dict[str, Any],
    encoded: tf.Tensor,
    start: tf.Tensor,
    crop: int | None,
    decision: augment.Decision | None,
    eight_bits: bool = False,
) -> tf.Tensor:
    """The clip that begins at `start`; of frames and maps, the square decided on, or the central one.

    Without `crop` frames stay whole; a map always wants one.
    """
    features, clip_frames = records.manifest.features, records.manifest.clip.clip_frames
    if features is not None and features.per == schema.PER_CLIP:
        assert crop is not None
        side = features.map_side(crop)
        features_map = augment.decode_map(encoded[start], context[schema.FEATURE_SHAPE])
        cut = augment.crop_map(features_map, decision, side)
        return tf.ensure_shape(cut, (features.shape[0], side, side, features.shape[-1]))
    if features is not None:
        indices = augment.clip_indices(tf.shape(encoded)[0], start, clip_frames)
        return augment.decode_features(encoded, indices, clip_frames, features.shape)
    frames = decode_clip(records, encoded, start)
    if crop is None:
        return augment.scale(frames)
    if decision is None:
        return augment.crop_centrally(frames, crop)
    cut = augment.crop_in_eight_bits if eight_bits else augment.crop_randomly
    return cut(frames, decision, crop)


def _stay_in_eight_bits(records: Records, crop: int, augmentation: Augmentation) -> bool:
    """Whether training only cuts and mirrors the frames that are stored."""
    if records.manifest.features is not None or augmentation.changes_colours:
        return False
    return bool(augment.square_side(records.manifest.short_side) == crop)


def decode_clip(records: Records, encoded: tf.Tensor, start: tf.Tensor | int) -> tf.Tensor:
    """A segment's strings, as `parse` gives them → the clip at `start`: uint8 `(T, H, W, C)`."""
    clip_frames = records.manifest.clip.clip_frames
    indices = augment.clip_indices(tf.shape(encoded)[0], start, clip_frames)
    decode = augment.decode_flow if records.modality == FLOW else augment.decode_frames
    return decode(encoded, indices, clip_frames)


def _draw_start(decision: augment.Decision, starts: tf.Tensor) -> tf.Tensor:
    return tf.cast(decision.start * tf.cast(starts, tf.float32), tf.int32)


def is_labeled(label: tf.Tensor) -> tf.Tensor:
    """Whether a record has any label: bool (), of what `label_of` gives."""
    return tf.reduce_any(label >= 0)


def label_features(heads: Heads) -> dict[str, Any]:
    """Parsing specs of the labels of records with these heads."""
    if heads and heads[0].several:
        return {index: tf.io.RaggedFeature(tf.int64) for index, _ in label_keys(heads)}
    return {index: tf.io.FixedLenFeature((), tf.int64) for index, _ in label_keys(heads)}


def label_of(context: dict[str, Any], heads: Heads) -> tf.Tensor:
    """A record's label: int64 `()`, of several heads `(heads,)`, of several labels a clip `(classes,)`.

    The last is 1 for each class that is there and 0 for the others. Where there is no label it is -1.
    """
    labels = [context[index] for index, _ in label_keys(heads)]
    if not heads:
        return labels[0]
    if not heads[0].several:
        return tf.stack(labels)
    classes = len(heads[0].classes)
    there = tf.reduce_max(tf.one_hot(labels[0], classes, dtype=tf.int64), axis=0)
    return tf.where(is_labeled(labels[0]), there, tf.constant(schema.UNLABELED, tf.int64, (classes,)))


def _parse_context(records: Records, serialized: tf.Tensor) -> dict[str, Any]:
    """Label, id, video and the shape of features, where there are any."""
    heads = records.manifest.heads
    context: dict[str, Any]
    features = {**_CONTEXT, **label_features(heads)}
    context, _ = tf.io.parse_single_sequence_example(serialized, context_features=features)
    return {**context, schema.LABEL_INDEX: label_of(context, heads)}


def parse(
    records: Records, serialized: tf.Tensor, views: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
    """The context, and view → its strings `(N,)`, or `(N, 2)` of u and v."""
    keys = records.view_keys
    heads = records.manifest.heads
    context, lists = tf.io.parse_single_sequence_example(
        serialized,
        context_features={**_CONTEXT, **label_features(heads)},
        sequence_features={
            key: tf.io.FixedLenSequenceFeature((), tf.string) for view in views for key in keys[view]
        },
    )
    context[schema.LABEL_INDEX] = label_of(context, heads)
    segments = {view: [lists[key] for key in keys[view]] for view in views}
    return context, {
        view: strings[0] if len(strings) == 1 else tf.stack(strings, axis=1)
        for view, strings in segments.items()
    }
