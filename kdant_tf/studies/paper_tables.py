"""The paper's tables as studies: Tables 1 and 2 (JHMDB), Table 3 (EPIC-KITCHENS-55), Figure 4 (THUMOS14).

Each has the figures that the paper prints, the rows of its table, and a function that plans its runs.
No TensorFlow here.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from kdant_tf.config import STUDENT, TEACHER
from kdant_tf.losses import PAPER_LOSS_NAMES
from kdant_tf.studies.study_plan import (
    TINY,
    Network,
    RecordSource,
    Study,
    StudySettings,
    TableColumn,
    TableRow,
    choose_networks,
    choose_rows,
    places_of,
    plan_runs,
)
from tf_records.errors import KdantError
from tf_records.manifest import load_manifest
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, OBSERVED

PAPER_SOURCE = "Tran, Wang and Hoai 2019"


def fractions(percentages: Mapping[str, float]) -> dict[str, float]:
    """Percentages, as the paper prints them, as shares of 1."""
    return {name: round(value / 100, 6) for name, value in percentages.items()}


# Tables 1 and 2: anticipation on JHMDB (§4.2).

# Top-1 in percent, averaged over the three splits. The paper has no student without a feature loss.
PUBLISHED_TABLE1: Mapping[str, Mapping[str, float]] = {
    "recognition": {"RGB": 75.3, "Flow": 77.8, "Both": 83.9},
    "teacher": {"RGB": 69.0, "Flow": 64.4, "Both": 74.9},
    "direct": {"RGB": 69.5, "Flow": 67.1, "Both": 75.5},
    "unidirectional": {"RGB": 70.0, "Flow": 67.3, "Both": 75.7},
    "bidirectional": {"RGB": 70.2, "Flow": 67.7, "Both": 75.9},
}
# Table 2: top-1 from the first 20 % of the video; with the references that the paper gives.
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
TABLE1_PRESETS = {"rgb": "jhmdb-rgb", "flow": "jhmdb-flow"}
_TABLE1_NETWORKS = (
    Network(name="teacher", role=TEACHER, views=(FUTURE, OBSERVED)),
    *(
        Network(name=loss, role=STUDENT, settings={"feature_loss": loss}, teacher="teacher")
        for loss in PAPER_LOSS_NAMES
    ),
)
_TABLE1_COLUMNS = (
    TableColumn(name="RGB", streams=("rgb",)),
    TableColumn(name="Flow", streams=("flow",)),
    TableColumn(name="Both", streams=("rgb", "flow")),
)
TABLE1_ROWS = (
    TableRow(
        name="recognition",
        title="teacher, whole video",
        network="teacher",
        view=FUTURE,
        published=fractions(PUBLISHED_TABLE1["recognition"]),
    ),
    TableRow(
        name="teacher",
        title="teacher, first 20 %",
        network="teacher",
        reference="none",
        published=fractions(PUBLISHED_TABLE1["teacher"]),
    ),
    *(
        TableRow(
            name=loss,
            title=f"student {loss}",
            network=loss,
            reference=None if loss == "none" else "none",
            published=fractions(PUBLISHED_TABLE1.get(loss, {})),
        )
        for loss in PAPER_LOSS_NAMES
    ),
)


def plan_table1(
    sources: Sequence[RecordSource], settings: StudySettings, row_names: Sequence[str] = ()
) -> Study:
    """Recognition, the recognition network on the first fifth, and four students: RGB, Flow and Both.

    Raises:
        KdantError: records that do not fit, invalid settings, or unknown rows.
    """
    rows = choose_rows(TABLE1_ROWS, row_names)
    runs = plan_runs(choose_networks(_TABLE1_NETWORKS, rows), sources, settings)
    return Study(
        name="table1",
        title="Table 1: action anticipation on JHMDB",
        scale=settings.describe(runs),
        source=f"{PAPER_SOURCE}, Table 1",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=_table1_columns(sources),
    )


def plan_table2(
    sources: Sequence[RecordSource], settings: StudySettings, row_names: Sequence[str] = ()
) -> Study:
    """The bidirectional student, RGB and Flow added where there are both, beside the literature.

    Its runs are some of Table 1's, of the same names.

    Raises:
        KdantError: records that do not fit, invalid settings, or unknown rows.
    """
    column = _table1_columns(sources)[-1]
    ours = TableRow(
        name="bidirectional",
        title="I3D + knowledge distillation",
        network="bidirectional",
        published={"top-1": fractions(PUBLISHED_TABLE1["bidirectional"])[column.name]},
    )
    rows = (
        *(
            TableRow(name=name, title=f"{name}, as published", published={"top-1": share})
            for name, share in fractions(PUBLISHED_TABLE2).items()
        ),
        ours,
    )
    runs = plan_runs(choose_networks(_TABLE1_NETWORKS, [ours]), sources, settings)
    return Study(
        name="table2",
        title=f"Table 2: anticipation from the first 20 % of JHMDB's videos ({column.name})",
        scale=settings.describe(runs),
        source=f"{PAPER_SOURCE}, Table 2",
        places=places_of(sources),
        runs=runs,
        rows=choose_rows(rows, row_names),
        columns=(TableColumn(name="top-1", streams=column.streams),),
    )


def _table1_columns(sources: Sequence[RecordSource]) -> tuple[TableColumn, ...]:
    """Those whose streams there are records of."""
    return tuple(column for column in _TABLE1_COLUMNS if set(column.streams) <= set(sources[0].records))


# Table 3: anticipating verbs on EPIC-KITCHENS-55 (§4.3).

# In percent; top-5 and the recognition network are in the text.
PUBLISHED_TABLE3: Mapping[str, Mapping[str, float]] = {
    "recognition": {"top-1": 46.1},
    "tsn": {"top-1": 28.5, "top-5": 73.4},
    "i3d": {"top-1": 30.1, "top-5": 74.3},
    "distilled": {"top-1": 31.8, "top-5": 74.4},
}
TABLE3_PRESETS = {"rgb": "epic55"}
_TABLE3_COLUMNS = (
    TableColumn(name="top-1", streams=("rgb",)),
    TableColumn(name="top-5", streams=("rgb",), k=5),
)
TABLE3_ROWS = tuple(
    TableRow(
        name=name,
        title=title,
        network="teacher" if name == "recognition" else name,
        view=FUTURE if name == "recognition" else OBSERVED,
        reference="i3d" if name in ("tsn", "distilled") else None,
        published=fractions(PUBLISHED_TABLE3[name]),
    )
    for name, title in (
        ("recognition", "teacher, the action itself"),
        ("tsn", "TSN-RGB, labels"),
        ("i3d", "I3D, labels"),
        ("distilled", "I3D, distilled"),
    )
)


def plan_table3(
    sources: Sequence[RecordSource],
    settings: StudySettings,
    row_names: Sequence[str] = (),
    frame_records: Sequence[RecordPath] = (),
) -> Study:
    """TSN-RGB and I3D from the labels alone, and I3D with a teacher and the unlabelled pairs too.

    Args:
        sources: records of EPIC-KITCHENS-55, of frames or of features.
        settings: preset, scale and file of the runs.
        row_names: empty for all.
        frame_records: as frames, one a source, for TSN; needed where `sources` are of features.

    Raises:
        KdantError: records that do not fit, invalid settings, or unknown rows.
    """
    rows = choose_rows(TABLE3_ROWS, row_names)
    sources = _with_rgb_alone(sources)
    if frame_records:
        sources = _with_frames(sources, frame_records)
    elif any(row.network == "tsn" for row in rows):
        _check_frames(sources)
    runs = plan_runs(choose_networks(_table3_networks(settings.scale), rows), sources, settings)
    return Study(
        name="table3",
        title="Table 3: anticipation of verbs on EPIC-KITCHENS-55",
        scale=settings.describe(runs),
        source=f"{PAPER_SOURCE}, Table 3 and §4.3",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=_TABLE3_COLUMNS,
    )


def _table3_networks(scale: str) -> tuple[Network, ...]:
    # TSN's pretraining is ImageNet's; the smallest scale needs no download.
    tsn = {"model": "tsn", "init": "random" if scale == TINY else "imagenet", "teacher_view": OBSERVED}
    distillation = {"feature_loss": "bidirectional"}
    return (
        Network(name="teacher", role=TEACHER, views=(FUTURE,)),
        Network(name="tsn", role=TEACHER, settings=tsn, frames=True),
        Network(name="i3d", role=TEACHER, settings={"teacher_view": OBSERVED}),
        Network(name="distilled", role=STUDENT, settings=distillation, teacher="teacher"),
    )


def _with_rgb_alone(sources: Sequence[RecordSource]) -> list[RecordSource]:
    """The sources without optical flow, which only Table 1 uses.

    Raises:
        KdantError: records without RGB.
    """
    if not all("rgb" in source.records for source in sources):
        raise KdantError("This table needs records of RGB. Received optical flow alone.")
    return [dataclasses.replace(source, records={"rgb": source.records["rgb"]}) for source in sources]


def _with_frames(sources: Sequence[RecordSource], frame_records: Sequence[RecordPath]) -> list[RecordSource]:
    if len(frame_records) != len(sources):
        raise KdantError(
            f"--frame-records should be given once for each --records. Received: {len(frame_records)} for "
            f"{len(sources)}."
        )
    return [
        dataclasses.replace(source, frames=folder)
        for source, folder in zip(sources, frame_records, strict=True)
    ]


def _check_frames(sources: Sequence[RecordSource]) -> None:
    for source in sources:
        if load_manifest(source.records["rgb"]).features is not None:
            raise KdantError(
                f"TSN-RGB sees frames, {source.records['rgb']} has features. Give the frames too, with "
                f"--frame-records, or leave the row out: --rows recognition,i3d,distilled."
            )


# Figure 4: what twice the labels gain on THUMOS14, and what distillation does (§4.4).

# Percentage points from twice the labels. §4.4 has "1.4% and 2.8%" for the two networks and "larger
# for weaker features", so the larger one is taken for ResNet's. The accuracies are in the picture alone.
PUBLISHED_FIGURE4_GAINS: Mapping[str, float] = {"resnet": 2.8, "i3d": 1.4}
_HALF = 0.5
# Kind of network → its words, preset and model.
_KINDS = {
    "resnet": ("ResNet-152 + MLP", "thumos14-frames", "frame-mlp"),
    "i3d": ("I3D", "thumos14-i3d", "i3d"),
}
_FIGURE4_COLUMN = TableColumn(name="top-1", streams=("rgb",))
FIGURE4_ROWS = tuple(
    TableRow(
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


def plan_figure4(
    sources: Sequence[RecordSource], settings: StudySettings, row_names: Sequence[str] = ()
) -> Study:
    """Two networks with all labels, with half of them, and with half and the rest taught by a teacher.

    The teacher has half of the labels too.

    Raises:
        KdantError: records that do not fit, invalid settings, or unknown rows.
    """
    if settings.label_fraction != 1:
        raise KdantError(
            f"Figure 4 sets the share of the labels itself. Received: {settings.label_fraction}."
        )
    rows = choose_rows(FIGURE4_ROWS, row_names)
    sources = _with_rgb_alone(sources)
    networks = [network for kind in _KINDS for network in _figure4_networks(kind)]
    runs = plan_runs(choose_networks(networks, rows), sources, settings)
    return Study(
        name="figure4",
        title="Figure 4: labels and distillation on THUMOS14",
        scale=settings.describe(runs),
        source=f"{PAPER_SOURCE}, §4.4, which prints differences alone",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=(_FIGURE4_COLUMN,),
    )


def _figure4_networks(kind: str) -> tuple[Network, ...]:
    _, preset, model = _KINDS[kind]
    half, alone = {"model": model, "label_fraction": _HALF}, {"teacher_view": OBSERVED}
    distillation = {**half, "feature_loss": "bidirectional"}
    teacher = f"{kind}-teacher"
    return (
        Network(name=f"{kind}-half", role=TEACHER, settings={**half, **alone}, preset=preset),
        Network(name=teacher, role=TEACHER, settings=half, views=(FUTURE,), preset=preset),
        Network(
            name=f"{kind}-distilled", role=STUDENT, settings=distillation, teacher=teacher, preset=preset
        ),
        Network(name=f"{kind}-all", role=TEACHER, settings={"model": model, **alone}, preset=preset),
    )
