"""Figure 4 of the paper: what twice the labels gain on THUMOS14, and what distillation does (§4.4).

No TensorFlow here.
"""

from collections.abc import Sequence

from kdant_tf.config import STUDENT, TEACHER
from kdant_tf.studies import published
from kdant_tf.studies.plan import Base, places_of, plan_runs
from kdant_tf.studies.rows import choose_rows
from kdant_tf.studies.study import Column, Network, Row, Source, Study
from kdant_tf.studies.table3 import with_rgb_alone
from tf_records.errors import KdantError
from tf_records.schema import FUTURE, OBSERVED

_HALF = 0.5
# Name of the kind → its words, preset and model.
_KINDS = {
    "resnet": ("ResNet-152 + MLP", "thumos14-frames", "frame-mlp"),
    "i3d": ("I3D", "thumos14-i3d", "i3d"),
}
_COLUMN = Column(name="top-1", streams=("rgb",))
FIGURE4_ROWS = tuple(
    Row(
        name=f"{kind}-{labels}",
        title=f"{words}, {title}",
        network=f"{kind}-{labels}",
        reference=None if labels == "half" else f"{kind}-half",
        published_difference=(
            published.fractions({_COLUMN.name: published.FIGURE4_GAINS[kind]}) if labels == "all" else {}
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
        source=f"{published.SOURCE}, §4.4, which prints differences alone",
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=(_COLUMN,),
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
