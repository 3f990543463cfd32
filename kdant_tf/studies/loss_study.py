"""Which loss helps: every way to learn from the teacher, side by side, from pretrained features.

Not a table of the paper, which has three of these rows. Each student is the same network on the same
records; only what it learns from the teacher differs. No TensorFlow here.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kdant_tf.config import STUDENT, TEACHER
from kdant_tf.studies.study_plan import (
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
from tf_records.schema import FUTURE, OBSERVED

LOSS_PRESETS = {"rgb": "jhmdb-frames", "flow": "jhmdb-frames"}
_TEACHER = "teacher"
_NONE = "none"
# Hinton et al. 2015, beside eq. 2's probabilities on unlabelled pairs.
_SOFT = {"feature_loss": _NONE, "soft_weight": 0.5, "temperature": 2.0}
# Row → settings of its student. On held-out training videos no weight near these is better, see
# docs/results/which-loss.md.
WAYS: dict[str, dict[str, Any]] = {
    _NONE: {"feature_loss": _NONE},
    "soft": _SOFT,
    "direct": {"feature_loss": "direct", "feature_weight": 1.0},
    "unidirectional": {"feature_loss": "unidirectional", "feature_weight": 0.3},
    "bidirectional": {"feature_loss": "bidirectional", "feature_weight": 0.3},
    "local": {"feature_loss": "local", "feature_weight": 0.3},
    **{
        f"{loss}-l2": {"feature_loss": loss, "feature_normalization": "l2", "feature_weight": 100.0}
        for loss in ("unidirectional", "bidirectional", "local")
    },
    "jaccard": {"feature_loss": "jaccard", "feature_weight": 1.0},
    "mmd": {"feature_loss": "mmd", "feature_weight": 1.0},
    "infonce": {"feature_loss": "infonce", "feature_weight": 0.1},
}
_TITLES = {_NONE: "student, no feature loss", "soft": "student, soft labels"}
LOSS_ROWS = (
    TableRow(name="recognition", title="teacher, whole action", network=_TEACHER, view=FUTURE),
    TableRow(name=_TEACHER, title="teacher, observed clip", network=_TEACHER, reference="labels"),
    TableRow(name="labels", title="no teacher, labels alone", network="labels", reference=_NONE),
    *(
        TableRow(
            name=name,
            title=_TITLES.get(name, f"student, {name}"),
            network=name,
            reference=None if name == _NONE else _NONE,
        )
        for name in WAYS
    ),
)
_NETWORKS = (
    Network(name=_TEACHER, role=TEACHER, views=(FUTURE, OBSERVED)),
    Network(name="labels", role=TEACHER, settings={"teacher_view": OBSERVED}),
    *(Network(name=name, role=STUDENT, settings=own, teacher=_TEACHER) for name, own in WAYS.items()),
)


def plan_losses(
    sources: Sequence[RecordSource],
    settings: StudySettings,
    row_names: Sequence[str] = (),
    *,
    reference: str = _NONE,
) -> Study:
    """A teacher, a network from labels alone, and a student for each way to learn from the teacher.

    Intervals are over videos and seeds.

    Args:
        sources: records with one test split each.
        settings: preset, scale, file and label fraction of the runs.
        row_names: empty for all.
        reference: "none" or "labels", the row that students and the other of the two differ from.

    Raises:
        KdantError: records that cannot be read, invalid settings, or unknown rows.
    """
    rows = choose_rows([_differ_from(reference, row) for row in LOSS_ROWS], row_names)
    runs = plan_runs(choose_networks(_NETWORKS, rows), sources, settings)
    streams = tuple(sources[0].records)
    return Study(
        name="losses",
        title="Which loss: ways to learn from the teacher",
        scale=settings.describe(runs),
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=tuple(TableColumn(name=stream, streams=(stream,)) for stream in streams),
        draw_seeds=True,
    )


def _differ_from(reference: str, row: TableRow) -> TableRow:
    if row.network == _TEACHER:
        return row
    return dataclasses.replace(row, reference=None if row.name == reference else reference)
