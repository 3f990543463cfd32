"""Files are whole or absent, and a folder in use is not taken."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_records.errors import KdantError
from tf_records.files import (
    atomic_path,
    check_apart,
    claim_folder,
    json_text,
    parse_json_text,
    write_text_atomically,
)
from tf_records.remote_path import record_path


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    claim_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    claim_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(KdantError, match=r"is not empty\. Choose another, or add --resume .* or --overwrite"):
        claim_folder(tmp_path)
    with pytest.raises(KdantError, match=r"is not empty\. Choose another, or add --overwrite"):
        claim_folder(tmp_path, resumable=False)
    claim_folder(tmp_path, resume=True)
    claim_folder(tmp_path, overwrite=True)
    assert (tmp_path / "mine").read_text() == "kept"


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(KdantError, match="both --resume and --overwrite"):
        claim_folder(tmp_path / "new", resume=True, overwrite=True)
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KdantError, match="cannot be made: "):
        claim_folder(tmp_path / "file")
    with pytest.raises(KdantError, match="cannot be made: "):
        claim_folder(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(KdantError, match="cannot be written: permission denied"):
        claim_folder(tmp_path)
    tmp_path.chmod(0o700)


def test_a_written_file_replaces_the_old_one_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text_atomically(path, "old")
    write_text_atomically(path, "neu: ä")
    assert path.read_text(encoding="utf-8") == "neu: ä"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")

    def fail_halfway() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_lies_beside_the_final_one_with_its_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "clip.mp4") as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".mp4")
        assert temporary.name != "clip.mp4"
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "clip.mp4").exists()
    assert (tmp_path / "clip.mp4").read_bytes() == b"whole"


def test_an_output_that_is_contains_or_lies_in_an_input_is_refused(tmp_path: Path) -> None:
    teacher = tmp_path / "runs" / "teacher"
    teacher.mkdir(parents=True)
    (tmp_path / "link").symlink_to(teacher)
    outs = (
        teacher,
        teacher / "new",
        tmp_path / "runs",
        tmp_path / "link",
        tmp_path / "link" / ".." / "teacher",
    )
    for out in outs:
        with pytest.raises(KdantError, match="should lie apart"):
            check_apart(out, tmp_path / "records", teacher)
    check_apart(teacher / "new", teacher, may_lie_in=True)
    with pytest.raises(KdantError, match="should lie apart"):
        check_apart(teacher, teacher, may_lie_in=True)
    check_apart(tmp_path / "runs" / "teacher2", teacher, record_path("gs://bucket/records"))
    check_apart(record_path("gs://bucket/records2"), teacher, record_path("gs://bucket/records"))
    with pytest.raises(KdantError, match="should lie apart"):
        check_apart(record_path("gs://bucket/records/a"), record_path("gs://bucket/records"))


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
        ),
    )
)
def test_json_is_read_back_by_strict_parsers_and_finite_values_are_unchanged(value):
    def refuse(name):
        raise AssertionError(name)

    read = json.loads(json_text(value), parse_constant=refuse)
    if "not_finite" not in read:
        assert read == value


def test_json_says_what_a_number_was_that_is_not_finite():
    value = {"loss": float("nan"), "rows": ({"a": float("inf")}, {"a": 1.0})}
    assert json.loads(json_text(value, indent=1)) == {
        "loss": None,
        "rows": [{"a": None}, {"a": 1.0}],
        "not_finite": {"loss": "nan", "rows.0.a": "inf"},
    }


def test_json_has_no_control_characters_as_they_are() -> None:
    value = {"label": "a\x1b[2Jb\x7fc\x9b31md\u00e9"}
    text = json_text(value)
    assert not [character for character in text if ord(character) < 32 or 127 <= ord(character) < 160]
    assert json.loads(text) == value


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    ).filter(lambda value: "not_finite" not in value)
)
def test_what_is_read_back_is_what_was_written_infinities_and_nan_too(value: dict[str, object]) -> None:
    assert repr(parse_json_text(json_text(value))) == repr(value)


def test_numbers_of_numpy_are_written_as_floats() -> None:
    assert json_text({"loss": np.float32(0.5), "best": np.float32("inf")}) == (
        '{"loss": 0.5, "best": null, "not_finite": {"best": "inf"}}'
    )
    with pytest.raises(TypeError):
        json_text({"path": Path("x")})


def test_what_is_no_object_is_refused() -> None:
    for text in ("[1]", "1", "null"):
        with pytest.raises(ValueError, match="no JSON object"):
            parse_json_text(text)


def test_the_error_of_a_full_disk_names_the_file(
    tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    with pytest.raises(OSError, match=r"File too large: '.*/note\.json'"), full_disk():
        write_text_atomically(tmp_path / "note.json", "half of it")
    assert list(tmp_path.iterdir()) == []
