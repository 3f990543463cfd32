"""Help is there for every verb, and costs no TensorFlow."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from kdant_cli.main import main

from kdant_tf.version import __version__

VERBS = (
    *("build-records", "inspect", "extract-features", "train-teacher", "distill", "evaluate"),
    *("visualize", "report", "export", "predict", "benchmark", "runs", "presets", "reproduce", "demo"),
)


@pytest.mark.parametrize(
    "verb", ["", *VERBS, "reproduce table3", "reproduce sweep", "reproduce drift", "reproduce losses"]
)
def test_help_imports_no_tensorflow(verb: str) -> None:
    script = (
        "import sys\n"
        "from kdant_cli.main import main\n"
        f"try: main({[*verb.split(), '--help']!r}, prog_name='kdant')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'av', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: kdant" in done.stdout


def test_version() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).stdout


@pytest.mark.parametrize(
    "args",
    [("nonsense",), ("distill", "--records", "x"), ("evaluate",), ("build-records", "--source", "mpii")],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(args: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == 2
    assert result.stdout == ""
