"""Pictures that need nothing but run folders. No TensorFlow here."""

from collections.abc import Mapping

from kdant_tf.evaluation.plots import plot_curves
from kdant_tf.metrics_csv import read_metrics
from kdant_tf.report.content import Picture
from kdant_tf.report.inline import draw_inline
from kdant_tf.runs import METRICS_NAME, Run


def training_picture(runs: Mapping[str, Run]) -> Picture | None:
    """Losses and accuracy against the epoch; None where no run has kept any."""
    rows = {name: read_metrics(run.folder / METRICS_NAME) for name, run in runs.items()}
    rows = {name: own for name, own in rows.items() if own}
    if not rows:
        return None
    ends = [
        f"{name}: accuracy {own[-1]['accuracy']:.2f}, classification loss "
        f"{own[-1]['classification_loss']:.3g} after epoch {own[-1]['epoch']}"
        for name, own in rows.items()
    ]
    return draw_inline(
        lambda path: plot_curves(rows, path),
        alt=f"Classification loss, accuracy and feature loss against the epoch. {'; '.join(ends)}.",
        caption="On training samples; dashed on those held out for validation, where there are any.",
    )
