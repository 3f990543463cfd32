"""An exported model, and the same behind a local server.

Imports are in the fixtures: `make test-beam` has neither gRPC's messages nor a use for them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder of the untrained teacher."""
    from kdant_tf.runs import load_run
    from kdant_tf.serving.export import export_run

    return export_run(load_run(finished_run), tmp_path_factory.mktemp("exported") / "served").folder


@pytest.fixture(scope="session")
def _loaded(exported: Path) -> Any:
    from model_server import ServedModel

    return ServedModel(exported)


@pytest.fixture
def served(_loaded: Any) -> Iterator[Any]:
    """The exported model as a server has it, with nothing going wrong yet: a `ServedModel`."""
    yield _loaded
    _loaded.faults.clear()
    _loaded.asked.clear()
    _loaded.gate.set()
