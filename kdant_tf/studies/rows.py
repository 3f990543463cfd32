"""Which rows of a table are wanted. No TensorFlow here."""

from collections.abc import Sequence

from kdant_tf.studies.study import Row
from tf_records.errors import KdantError


def choose_rows(rows: Sequence[Row], names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, in the table's order; all of them where no name is given.

    Raises:
        KdantError: a name that no row has (says which there are).
    """
    known = [row.name for row in rows]
    if unknown := [name for name in names if name not in known]:
        raise KdantError(f"There is no row {unknown[0]!r} in this table. Rows: {', '.join(known)}.")
    return tuple(row for row in rows if not names or row.name in names)
