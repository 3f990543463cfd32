"""The `kdant` command."""

import click

from kdant_tf.version import __version__

from .benchmark import benchmark
from .build_records import build_records
from .command import KdantGroup
from .demo import demo
from .evaluate import evaluate
from .export import export
from .extract_features import extract_features
from .inspect import inspect
from .predict import predict
from .report import report
from .reproduce import reproduce
from .runs import presets, runs
from .train import distill, train_teacher
from .visualize import visualize

_COMMANDS = {
    "Data": (build_records, inspect, extract_features),
    "Training": (train_teacher, distill),
    "Results": (evaluate, visualize, report, runs),
    "Use": (export, predict, benchmark),
    "Reproduce": (demo, reproduce, presets),
}


@click.group(
    cls=KdantGroup,
    headings=_COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="kdant")
def main() -> None:
    """Train a network to name an action before it happens.

    It learns from labels where there are any, and from a network that sees the action itself.

    \b
    See it work:  kdant demo
    Your videos:  kdant build-records → train-teacher → distill → evaluate
    """
