"""Table 3 of the paper: anticipating verbs on EPIC-KITCHENS-55 (§4.3). No TensorFlow here."""

import dataclasses
from collections.abc import Sequence

from kdant_tf.config import STUDENT, TEACHER
from kdant_tf.studies import published
from kdant_tf.studies.plan import Base, places_of, plan_runs
from kdant_tf.studies.rows import choose_rows
from kdant_tf.studies.scales import TINY
from kdant_tf.studies.study import Column, Network, Row, Source, Study
from tf_records.errors import KdantError
from tf_records.manifest import load_manifest
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, OBSERVED

PRESETS = {"rgb": "epic55"}
_COLUMNS = (Column(name="top-1", streams=("rgb",)), Column(name="top-5", streams=("rgb",), k=5))
_TITLES = {
    "recognition": ("teacher, the action itself", "teacher", FUTURE),
    "tsn": ("TSN-RGB, labels", "tsn", OBSERVED),
    "i3d": ("I3D, labels", "i3d", OBSERVED),
    "distilled": ("I3D, distilled", "distilled", OBSERVED),
}
TABLE3_ROWS = tuple(
    Row(
        name=name,
        title=title,
        network=network,
        view=view,
        reference="i3d" if name in ("tsn", "distilled") else None,
        published=published.fractions(published.TABLE3[name]),
    )
    for name, (title, network, view) in _TITLES.items()
)


def plan_table3(
    sources: Sequence[Source],
    base: Base,
    row_names: Sequence[str] = (),
    frame_records: Sequence[RecordPath] = (),
) -> Study:
    """TSN-RGB and I3D from the labels alone, and I3D with a teacher and the unlabelled pairs too.

    Args:
        sources: records of EPIC-KITCHENS-55, of frames or of features.
        base: settings.
        row_names: empty for all.
        frame_records: as frames, one a source, for TSN; needed where `sources` are of features.

    Raises:
        KdantError: records, settings or rows that cannot be.
    """
    rows = choose_rows(TABLE3_ROWS, row_names)
    sources = with_rgb_alone(sources)
    if frame_records:
        sources = _with_frames(sources, frame_records)
    wanted = {row.network for row in rows}
    if "tsn" in wanted and not frame_records:
        _check_frames(sources)
    runs = plan_runs(_choose_networks(wanted, base), sources, base)
    return Study(
        name="table3",
        title="Table 3: anticipation of verbs on EPIC-KITCHENS-55",
        scale=base.describe(runs),
        source=f"{published.SOURCE}, Table 3 and §4.3",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=_COLUMNS,
    )


def _choose_networks(wanted: set[str | None], base: Base) -> list[Network]:
    # TSN's pretraining is ImageNet's; the smallest scale needs no download.
    tsn = {"model": "tsn", "init": "random" if base.scale == TINY else "imagenet"}
    networks = [
        Network(name="teacher", role=TEACHER, views=(FUTURE,)),
        Network(name="tsn", role=TEACHER, settings={"teacher_view": OBSERVED, **tsn}, frames=True),
        Network(name="i3d", role=TEACHER, settings={"teacher_view": OBSERVED}),
        Network(
            name="distilled", role=STUDENT, settings={"feature_loss": "bidirectional"}, teacher="teacher"
        ),
    ]
    needed = wanted | ({"teacher"} if "distilled" in wanted else set())
    return [network for network in networks if network.name in needed]


def with_rgb_alone(sources: Sequence[Source]) -> list[Source]:
    """The sources without optical flow, which only Table 1 uses.

    Raises:
        KdantError: records without RGB.
    """
    if not all("rgb" in source.records for source in sources):
        raise KdantError("This table needs records of RGB. Received optical flow alone.")
    return [dataclasses.replace(source, records={"rgb": source.records["rgb"]}) for source in sources]


def _with_frames(sources: Sequence[Source], frame_records: Sequence[RecordPath]) -> list[Source]:
    if len(frame_records) != len(sources):
        raise KdantError(
            f"--frame-records should be given once for each --records. Received: {len(frame_records)} for "
            f"{len(sources)}."
        )
    return [
        dataclasses.replace(source, frames=folder)
        for source, folder in zip(sources, frame_records, strict=True)
    ]


def _check_frames(sources: Sequence[Source]) -> None:
    for source in sources:
        if load_manifest(source.records["rgb"]).features is not None:
            raise KdantError(
                f"TSN-RGB sees frames, {source.records['rgb']} has features. Give the frames too, with "
                f"--frame-records, or leave the row out: --rows recognition,i3d,distilled."
            )
