"""What Apache Beam is told, and what is said where it is missing or told something that it does not know."""

import sys

import pytest

from tf_records.beam import parse_beam_options
from tf_records.errors import KdantError


def test_without_apache_beam_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(KdantError, match="needs Apache Beam, which is not installed"):
        parse_beam_options([])


@pytest.mark.parametrize("flags", [["--no_such_option=1"], ["stray"]])
def test_what_beam_does_not_know_is_refused(flags: list[str]) -> None:
    pytest.importorskip("apache_beam")
    with pytest.raises(KdantError, match=r"does not know|refuses its options"):
        parse_beam_options(flags)
