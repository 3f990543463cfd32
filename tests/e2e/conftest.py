"""An exported model, and the same behind a local server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from model_server import ServedModel

from kdant_tf.runs import load_run
from kdant_tf.serving.export import export_run


@pytest.fixture(scope="session")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder of the untrained teacher."""
    return export_run(load_run(finished_run), tmp_path_factory.mktemp("exported") / "served").folder


@pytest.fixture(scope="session")
def _loaded(exported: Path) -> ServedModel:
    return ServedModel(exported)


@pytest.fixture
def served(_loaded: ServedModel) -> Iterator[ServedModel]:
    """The exported model as a server has it, with nothing going wrong yet."""
    yield _loaded
    _loaded.faults.clear()
    _loaded.asked.clear()
    _loaded.gate.set()
