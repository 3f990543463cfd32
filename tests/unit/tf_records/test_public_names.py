"""`import tf_records`: which names it gives, and that they cost nothing before they are used."""

import doctest
import subprocess
import sys

import pytest

import tf_records


@pytest.mark.parametrize("name", tf_records.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(tf_records, name).__doc__
    assert name in dir(tf_records)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Record'"):
        tf_records.Record  # noqa: B018


def test_the_example_of_the_package_is_true() -> None:
    assert doctest.testmod(tf_records).failed == 0


def test_names_that_need_no_tensorflow_import_none() -> None:
    code = (
        "import sys, tf_records; assert 'numpy' not in sys.modules; "
        "tf_records.build_records, tf_records.load_manifest, tf_records.open_video; "
        "print('tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
