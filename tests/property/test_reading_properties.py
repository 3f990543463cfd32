"""Manifests, settings and folders of frames: whatever lies there is read or refused in one sentence."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.config import TEACHER, resolve_config
from tf_records.errors import AnnotationError, KdantError, RecordError, VideoError
from tf_records.files import is_sealed, seal
from tf_records.manifest import load_manifest
from tf_records.sources.jhmdb import read_jhmdb
from tf_records.video import count_frames, holds_frames, open_video

BYTES = st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reading")


@given(content=BYTES, sealed=st.booleans())
def test_any_bytes_as_a_manifest_are_refused_by_name(folder: Path, content: bytes, sealed: bool) -> None:
    if sealed:
        content = seal(content.decode(errors="replace")).encode()
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"manifest\.json cannot be read"):
        load_manifest(folder)


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=80))
def test_a_seal_holds_for_any_text_and_for_no_other(text: str) -> None:
    sealed = seal(text).encode()
    assert is_sealed(sealed)
    assert not is_sealed(sealed + b"\n")
    assert not is_sealed(sealed[:-1])
    assert not is_sealed(sealed[1:])


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["epochs = 3", "epochs = -1", "width = 1e400", "model = 3", "[a]", "crop = true", "x ="]
        ),
        st.text(max_size=30),
    ),
    max_size=4,
).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))


@given(content=st.one_of(BYTES, LINES))
def test_any_bytes_as_settings_are_read_or_refused_by_name(folder: Path, content: bytes) -> None:
    path = folder / "settings.toml"
    path.write_bytes(content)
    message = "settings.toml"
    try:
        resolve_config(TEACHER, file=path)
    except KdantError as error:
        message = str(error)
    assert "settings.toml" in message or "etting" in message


SPLIT_LINES = st.lists(
    st.one_of(
        st.sampled_from(["v.avi 1", "v.avi 2", "w.avi 0", "v.avi  1", "", "v.avi 3"]), st.text(max_size=20)
    ),
    max_size=4,
).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))


@given(content=st.one_of(BYTES, SPLIT_LINES))
def test_any_split_file_of_jhmdb_is_read_or_refused(folder: Path, content: bytes) -> None:
    for name in ("splits", "wave"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "wave" / "v.avi").touch()
    (folder / "splits" / "wave_test_split1.txt").write_bytes(content)
    message = str(folder)
    try:
        assert read_jhmdb(folder).samples
    except AnnotationError as error:
        message = str(error)
    assert str(folder) in message


NAMES = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "frame_", "img-", "a.b"]),
        st.one_of(st.integers(0, 12), st.integers(0, 10**25), st.sampled_from(["00", "0001", "٣", "²"])),
        st.sampled_from([".jpg", ".JPEG", ".png", ".txt", ".jpg.jpg", ""]),
    ),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=20),
)


@given(names=st.sets(NAMES.filter(lambda name: name not in (".", "..")), max_size=6))
def test_any_names_in_a_folder_of_frames_are_counted_or_refused(folder: Path, names: set[str]) -> None:
    """The pictures are empty files, so that none can be read."""
    frames = folder / "frames"
    shutil.rmtree(frames, ignore_errors=True)
    frames.mkdir()
    for name in names:
        (frames / name).touch()
    assert isinstance(holds_frames(frames), bool)
    message = str(frames)
    try:
        assert 0 < count_frames(frames) <= len(names)
    except VideoError as error:
        message = str(error)
    assert str(frames) in message
    with pytest.raises(VideoError), open_video(frames) as video:
        list(video.stored())
