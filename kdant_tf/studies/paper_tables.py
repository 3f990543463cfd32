"""Tables 1 and 2 of the paper: anticipation on JHMDB (§4.2). No TensorFlow here."""

import dataclasses
from collections.abc import Mapping, Sequence

from kdant_tf.config import FEATURE_LOSS_NAMES, STUDENT, TEACHER
from kdant_tf.studies.plan import (
    TINY,
    Base,
    Column,
    Network,
    Row,
    Source,
    Study,
    choose_rows,
    places_of,
    plan_runs,
)
from tf_records.errors import KdantError
from tf_records.manifest import load_manifest
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, OBSERVED

# What the paper prints, in percent, with where it stands.
#
# Source: V. Tran, Y. Wang, M. Hoai, "Back to the Future: Knowledge Distillation for Human Action
# Anticipation", 2019. Facts only: the method's numbers are in the paper's tables, nothing was measured here.


PAPER_SOURCE = "Tran, Wang and Hoai 2019"

# Table 1: JHMDB, top-1, averaged over the three splits. The paper has no student without a feature loss.
PUBLISHED_TABLE1: Mapping[str, Mapping[str, float]] = {
    "recognition": {"RGB": 75.3, "Flow": 77.8, "Both": 83.9},
    "teacher": {"RGB": 69.0, "Flow": 64.4, "Both": 74.9},
    "direct": {"RGB": 69.5, "Flow": 67.1, "Both": 75.5},
    "unidirectional": {"RGB": 70.0, "Flow": 67.3, "Both": 75.7},
    "bidirectional": {"RGB": 70.2, "Flow": 67.7, "Both": 75.9},
}
# Table 2: JHMDB, top-1 from the first 20 % of the video; with the references that the paper gives.
PUBLISHED_TABLE2: Mapping[str, float] = {
    "DP-SVM (Soomro et al. 2019)": 5.0,
    "S-SVM (Soomro et al. 2019)": 5.0,
    "Where/What (Soomro et al. 2016)": 10.0,
    "Context-fusion (Jain et al. 2016)": 28.0,
    "Within-class loss (Ma et al. 2016)": 33.0,
    "ELSTM (Sadegh Aliakbarian et al. 2017)": 55.0,
    "Future Dynamic Images (Rodriguez et al. 2018)": 61.0,
    "Feature Mapping RNN (Shi et al. 2018)": 73.4,
}
# Table 3: EPIC-KITCHENS-55, verbs; top-5 and the recognition network are in the text of §4.3.
PUBLISHED_TABLE3: Mapping[str, Mapping[str, float]] = {
    "recognition": {"top-1": 46.1},
    "tsn": {"top-1": 28.5, "top-5": 73.4},
    "i3d": {"top-1": 30.1, "top-5": 74.3},
    "distilled": {"top-1": 31.8, "top-5": 74.4},
}
# Figure 4: THUMOS14, what twice the labels gain. §4.4 has "1.4% and 2.8%" for the two networks and "larger
# for weaker features", so the larger one is taken for ResNet's. The accuracies are in the picture alone.
PUBLISHED_FIGURE4_GAINS: Mapping[str, float] = {"resnet": 2.8, "i3d": 1.4}


def fractions(percentages: Mapping[str, float]) -> dict[str, float]:
    """The same as shares of 1."""
    return {name: round(value / 100, 6) for name, value in percentages.items()}


TABLE1_PRESETS = {"rgb": "jhmdb-rgb", "flow": "jhmdb-flow"}
_TEACHER = Network(name="teacher", role=TEACHER, views=(FUTURE, OBSERVED))
_STUDENTS = tuple(
    Network(name=loss, role=STUDENT, settings={"feature_loss": loss}, teacher="teacher")
    for loss in FEATURE_LOSS_NAMES
)
_TABLE1_COLUMNS = (
    Column(name="RGB", streams=("rgb",)),
    Column(name="Flow", streams=("flow",)),
    Column(name="Both", streams=("rgb", "flow")),
)
TABLE1_ROWS = (
    Row(
        name="recognition",
        title="teacher, whole video",
        network="teacher",
        view=FUTURE,
        published=fractions(PUBLISHED_TABLE1["recognition"]),
    ),
    Row(
        name="teacher",
        title="teacher, first 20 %",
        network="teacher",
        reference="none",
        published=fractions(PUBLISHED_TABLE1["teacher"]),
    ),
    *(
        Row(
            name=loss,
            title=f"student {loss}",
            network=loss,
            reference=None if loss == "none" else "none",
            published=fractions(PUBLISHED_TABLE1.get(loss, {})),
        )
        for loss in FEATURE_LOSS_NAMES
    ),
)


def plan_table1(sources: Sequence[Source], base: Base, row_names: Sequence[str] = ()) -> Study:
    """Recognition, the recognition network on the first fifth, and four students: RGB, Flow and Both.

    Raises:
        KdantError: records, settings or rows that cannot be.
    """
    rows = choose_rows(TABLE1_ROWS, row_names)
    wanted = {row.network for row in rows}
    networks = (_TEACHER, *(network for network in _STUDENTS if network.name in wanted))
    runs = plan_runs(networks, sources, base)
    return Study(
        name="table1",
        title="Table 1: action anticipation on JHMDB",
        scale=base.describe(runs),
        source=f"{PAPER_SOURCE}, Table 1",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=columns_of(sources),
    )


def plan_table2(sources: Sequence[Source], base: Base, row_names: Sequence[str] = ()) -> Study:
    """The bidirectional student, RGB and Flow added where there are both, beside the literature.

    Its runs are some of Table 1's, of the same names.

    Raises:
        KdantError: records or settings that cannot be.
    """
    column = columns_of(sources)[-1]
    ours = Row(
        name="bidirectional",
        title="I3D + knowledge distillation",
        network="bidirectional",
        published={"top-1": fractions(PUBLISHED_TABLE1["bidirectional"])[column.name]},
    )
    rows = (
        *(
            Row(name=name, title=f"{name}, as published", published={"top-1": share})
            for name, share in fractions(PUBLISHED_TABLE2).items()
        ),
        ours,
    )
    networks = (_TEACHER, *(network for network in _STUDENTS if network.name == ours.network))
    runs = plan_runs(networks, sources, base)
    return Study(
        name="table2",
        title=f"Table 2: anticipation from the first 20 % of JHMDB's videos ({column.name})",
        scale=base.describe(runs),
        source=f"{PAPER_SOURCE}, Table 2",
        places=places_of(sources),
        runs=runs,
        rows=choose_rows(rows, row_names),
        columns=(Column(name="top-1", streams=column.streams),),
    )


def columns_of(sources: Sequence[Source]) -> tuple[Column, ...]:
    """Those whose streams there are records of."""
    return tuple(column for column in _TABLE1_COLUMNS if set(column.streams) <= set(sources[0].records))


# Table 3 of the paper: anticipating verbs on EPIC-KITCHENS-55 (§4.3). No TensorFlow here.


TABLE3_PRESETS = {"rgb": "epic55"}
_TABLE3_COLUMNS = (Column(name="top-1", streams=("rgb",)), Column(name="top-5", streams=("rgb",), k=5))
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
        published=fractions(PUBLISHED_TABLE3[name]),
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
        source=f"{PAPER_SOURCE}, Table 3 and §4.3",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=_TABLE3_COLUMNS,
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


# Figure 4 of the paper: what twice the labels gain on THUMOS14, and what distillation does (§4.4).
#
# No TensorFlow here.


_HALF = 0.5
# Name of the kind → its words, preset and model.
_KINDS = {
    "resnet": ("ResNet-152 + MLP", "thumos14-frames", "frame-mlp"),
    "i3d": ("I3D", "thumos14-i3d", "i3d"),
}
_FIGURE4_COLUMN = Column(name="top-1", streams=("rgb",))
FIGURE4_ROWS = tuple(
    Row(
        name=f"{kind}-{labels}",
        title=f"{words}, {title}",
        network=f"{kind}-{labels}",
        reference=None if labels == "half" else f"{kind}-half",
        published_difference=(
            fractions({_FIGURE4_COLUMN.name: PUBLISHED_FIGURE4_GAINS[kind]}) if labels == "all" else {}
        ),
    )
    for kind, (words, _, _) in _KINDS.items()
    for labels, title in (
        ("half", "half the labels"),
        ("distilled", "half, distilled"),
        ("all", "all labels"),
    )
)


def plan_figure4(sources: Sequence[Source], base: Base, row_names: Sequence[str] = ()) -> Study:
    """Two networks with all labels, with half of them, and with half and the rest taught by a teacher.

    The teacher has half of the labels too.

    Raises:
        KdantError: records, settings or rows that cannot be.
    """
    if base.label_fraction != 1:
        raise KdantError(f"Figure 4 sets the share of the labels itself. Received: {base.label_fraction}.")
    rows = choose_rows(FIGURE4_ROWS, row_names)
    sources = with_rgb_alone(sources)
    wanted = {row.network for row in rows}
    networks = [network for kind in _KINDS for network in _networks_of(kind, wanted)]
    runs = plan_runs(networks, sources, base)
    return Study(
        name="figure4",
        title="Figure 4: labels and distillation on THUMOS14",
        scale=base.describe(runs),
        source=f"{PAPER_SOURCE}, §4.4, which prints differences alone",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=(_FIGURE4_COLUMN,),
    )


def _networks_of(kind: str, wanted: set[str | None]) -> list[Network]:
    """Those of a kind that are wanted, and the teacher that one of them needs."""
    _, preset, model = _KINDS[kind]
    half, alone = {"model": model, "label_fraction": _HALF}, {"teacher_view": OBSERVED}
    distilled = {**half, "feature_loss": "bidirectional"}
    networks = [
        Network(name=f"{kind}-half", role=TEACHER, settings={**half, **alone}, preset=preset),
        Network(name=f"{kind}-teacher", role=TEACHER, settings=half, views=(FUTURE,), preset=preset),
        Network(
            name=f"{kind}-distilled",
            role=STUDENT,
            settings=distilled,
            teacher=f"{kind}-teacher",
            preset=preset,
        ),
        Network(name=f"{kind}-all", role=TEACHER, settings={"model": model, **alone}, preset=preset),
    ]
    needed = wanted | ({f"{kind}-teacher"} if f"{kind}-distilled" in wanted else set())
    return [network for network in networks if network.name in needed]
