"""The files that a training leaves besides its checkpoints: networks and curves."""

import shutil
from pathlib import Path

import keras

from kdant_tf.evaluation.plots import plot_curves
from kdant_tf.metrics_csv import read_metrics
from kdant_tf.runs import CURVES_NAME, METRICS_NAME, MODEL_NAME, PROJECTION_NAME
from kdant_tf.training.assembly import Assembly
from kdant_tf.training.batch_norm import plain_batch_norm
from kdant_tf.training.best import best_network
from tf_records.files import atomic_path


def save_result(assembly: Assembly, out: Path) -> None:
    """The best epoch's networks where epochs were validated, else the last one's."""
    best = best_network(out)
    if best is None:
        save_networks(assembly, out)
        return
    for path in best.iterdir():
        with atomic_path(out / path.name) as temporary:
            shutil.copyfile(path, temporary)


def save_networks(assembly: Assembly, out: Path) -> None:
    """The network, and beside it the projection that it was trained through, where there is one."""
    with plain_batch_norm(assembly.batch_norms), atomic_path(out / MODEL_NAME) as temporary:
        assembly.network.save(temporary)
    projection = assembly.distiller.projection
    if projection is not None:
        student_map = keras.layers.Input((projection.kernel.shape[0],))
        with atomic_path(out / PROJECTION_NAME) as temporary:
            keras.Model(student_map, projection(student_map), name="projection").save(temporary)


def plot_run(out: Path) -> None:
    """Draws the curves of the epochs so far, if there are any."""
    rows = read_metrics(out / METRICS_NAME)
    if rows:
        plot_curves({out.name: rows}, out / CURVES_NAME)
