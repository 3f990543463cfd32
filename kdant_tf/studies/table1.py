"""Tables 1 and 2 of the paper: anticipation on JHMDB (§4.2). No TensorFlow here."""

from collections.abc import Sequence

from kdant_tf.config import FEATURE_LOSS_NAMES, STUDENT, TEACHER
from kdant_tf.studies import published
from kdant_tf.studies.plan import Base, places_of, plan_runs
from kdant_tf.studies.rows import choose_rows
from kdant_tf.studies.study import Column, Network, Row, Source, Study
from tf_records.schema import FUTURE, OBSERVED

PRESETS = {"rgb": "jhmdb-rgb", "flow": "jhmdb-flow"}
_TEACHER = Network(name="teacher", role=TEACHER, views=(FUTURE, OBSERVED))
_STUDENTS = tuple(
    Network(name=loss, role=STUDENT, settings={"feature_loss": loss}, teacher="teacher")
    for loss in FEATURE_LOSS_NAMES
)
_COLUMNS = (
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
        published=published.fractions(published.TABLE1["recognition"]),
    ),
    Row(
        name="teacher",
        title="teacher, first 20 %",
        network="teacher",
        reference="none",
        published=published.fractions(published.TABLE1["teacher"]),
    ),
    *(
        Row(
            name=loss,
            title=f"student {loss}",
            network=loss,
            reference=None if loss == "none" else "none",
            published=published.fractions(published.TABLE1.get(loss, {})),
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
        source=f"{published.SOURCE}, Table 1",
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
        published={"top-1": published.fractions(published.TABLE1["bidirectional"])[column.name]},
    )
    rows = (
        *(
            Row(name=name, title=f"{name}, as published", published={"top-1": share})
            for name, share in published.fractions(published.TABLE2).items()
        ),
        ours,
    )
    networks = (_TEACHER, *(network for network in _STUDENTS if network.name == ours.network))
    runs = plan_runs(networks, sources, base)
    return Study(
        name="table2",
        title=f"Table 2: anticipation from the first 20 % of JHMDB's videos ({column.name})",
        scale=base.describe(runs),
        source=f"{published.SOURCE}, Table 2",
        places=places_of(sources),
        runs=runs,
        rows=choose_rows(rows, row_names),
        columns=(Column(name="top-1", streams=column.streams),),
    )


def columns_of(sources: Sequence[Source]) -> tuple[Column, ...]:
    """Those whose streams there are records of."""
    return tuple(column for column in _COLUMNS if set(column.streams) <= set(sources[0].records))
