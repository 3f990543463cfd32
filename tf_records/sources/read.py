"""One way to read any source: its annotations, then what was asked to be added to them or left out."""

import dataclasses
from pathlib import Path

from tf_records.limits import Limits
from tf_records.sources.mining import mine_pairs
from tf_records.sources.protocols import Protocol
from tf_records.sources.sample import Annotations
from tf_records.sources.selection import limit_samples, use_labels


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What to read.

    Args:
        source: a key of PROTOCOLS.
        path: the source's folder, or the CSV.
        split: JHMDB's, 1 to 3.
        target: EPIC-KITCHENS' classes: "verb", "noun" or "action".
        classes: keep only these; empty for all.
        allow_outside: a CSV may name videos outside its folder.
        unlabeled_per_label: unlabelled pairs to mine for each labelled training sample.
        vicinity_s: how far from a training action they may lie.
        mining_seed: of their draw.
        label_fraction: share of the training labels to keep.
        limit: samples to keep a split, or None for all.
        seed: decides which labels and samples are kept.
        drift: of the synthetic source's videos, see SyntheticSpec.
        need_videos: False where nothing is to be built.
        limits: beyond which a video counts as one that cannot be used.
    """

    source: str
    path: Path
    split: int = 1
    target: str = "verb"
    classes: tuple[str, ...] = ()
    allow_outside: bool = False
    unlabeled_per_label: float = 0.0
    vicinity_s: float = 10.0
    mining_seed: int = 0
    label_fraction: float = 1.0
    limit: int | None = None
    seed: int = 0
    drift: float | None = None
    need_videos: bool = True
    limits: Limits = dataclasses.field(default_factory=Limits)


def read_annotations(options: SourceOptions, protocol: Protocol) -> Annotations:
    """Reads a source, mines unlabelled pairs, takes labels away and samples out, in this order.

    So other labels or fewer samples change nothing else: the pairs are mined for all labels.

    Raises:
        AnnotationError: annotations that cannot be right, or an option that does not suit them.
    """
    annotations = _read_source(options, protocol)
    if options.unlabeled_per_label != 0:
        annotations = mine_pairs(
            annotations,
            protocol.clip,
            protocol.fps,
            per_label=options.unlabeled_per_label,
            vicinity_s=options.vicinity_s,
            seed=options.mining_seed,
        )
    if options.label_fraction != 1:
        annotations = use_labels(annotations, options.label_fraction, options.seed)
    if options.limit is not None:
        annotations = limit_samples(annotations, options.limit, options.seed)
    return annotations


def _read_source(options: SourceOptions, protocol: Protocol) -> Annotations:
    """Calls the source's own reader, imported here since some bring PyAV along."""
    if options.source == "jhmdb":
        from tf_records.sources.jhmdb import read_jhmdb

        return read_jhmdb(options.path, options.split, options.classes)
    if options.source == "epic55":
        from tf_records.sources.epic_kitchens import read_epic55

        return read_epic55(options.path, options.target, options.classes, need_videos=options.need_videos)
    if options.source == "thumos14":
        from tf_records.sources.thumos14 import read_thumos14

        return read_thumos14(
            options.path, options.classes, lead_s=protocol.lead_s, need_videos=options.need_videos
        )
    if options.source == "csv":
        from tf_records.sources.csv_manifest import read_csv

        return read_csv(
            options.path, options.classes, allow_outside=options.allow_outside, limits=options.limits
        )
    from tf_records.sources.synthetic import SyntheticSpec, read_synthetic

    spec = None if options.drift is None else SyntheticSpec(drift=options.drift)
    return read_synthetic(options.path, spec, options.classes)
