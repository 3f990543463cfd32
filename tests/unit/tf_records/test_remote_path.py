"""Record folders behind URLs, on the in-memory file system that TensorFlow's gfile has."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner
from kdant_cli.main import main

from tf_records import remote_path
from tf_records.errors import KdantError, RecordError
from tf_records.files import atomic_path, claim_folder, hash_file, lock_folder, write_text_atomically
from tf_records.plan import BuildOptions
from tf_records.records import Records
from tf_records.remote_path import RemotePath, record_path
from tf_records.schema import ClipSpec
from tf_records.sources.synthetic import OFFSET_FRAMES, read_synthetic
from tf_records.verify import find_damage
from tf_records.writer import build_records

without_tensorflow_io = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_io") is not None, reason="tensorflow-io is installed"
)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemotePath]:
    """An empty folder in a bucket of TensorFlow's ram:// file system."""
    monkeypatch.setattr(remote_path, "_OWN_SCHEMES", ("gs", "ram"))
    tf.io.gfile.makedirs("ram://bucket")
    folder = RemotePath("ram://bucket/records")
    yield folder
    folder.rmtree()


def test_only_urls_become_remote_paths(tmp_path: Path) -> None:
    assert record_path(tmp_path) == tmp_path
    assert record_path("s3:/typo") == Path("s3:/typo")
    assert record_path("s3://bucket/a/b/") == RemotePath("s3://bucket/a/b")
    path = RemotePath("s3://bucket/a") / "b.json"
    assert (str(path), os.fspath(path), path.name) == (
        "s3://bucket/a/b.json",
        "s3://bucket/a/b.json",
        "b.json",
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "ftp://host/records",
            "a scheme that kdant does not know. Choose from: gs://, s3://, hdfs://, az://",
        ),
        ("s3://bucket", "should name a bucket and a folder in it: s3://BUCKET/FOLDER"),
        ("s3://", "does not know|should name a bucket"),
        ("gs:///records", "should name a bucket"),
    ],
)
def test_urls_that_name_no_folder_are_refused(url: str, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        record_path(url)


def test_a_remote_folder_is_read_and_written_like_a_local_one(store: RemotePath) -> None:
    assert list(store.iterdir()) == []
    store.mkdir()
    write_text_atomically(store / "note.json", "neu: ä")
    (store / "below").mkdir()
    write_text_atomically(store / "below" / "a", "a")
    assert (store / "note.json").read_text() == "neu: ä"
    assert (store / "note.json").stat().st_size == len("neu: ä".encode())
    assert hash_file(store / "note.json") == hashlib.sha256("neu: ä".encode()).hexdigest()
    assert [path.name for path in store.glob("*.json")] == ["note.json"]
    assert (store.is_dir(), store.is_file(), (store / "note.json").is_file()) == (True, False, True)
    (store / "below").rmtree()
    (store / "below").rmtree()
    (store / "note.json").unlink()
    (store / "note.json").unlink(missing_ok=True)
    assert not (store / "below" / "a").exists()
    assert list(store.glob("*.json")) == []


def test_an_interrupted_upload_leaves_nothing(store: RemotePath) -> None:
    def fail_halfway() -> None:
        with atomic_path(store / "shard") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert not (store / "shard").exists()


def test_a_bucket_that_is_missing_is_named(store: RemotePath) -> None:
    elsewhere = RemotePath("ram://nowhere/records")
    sentence = r"ram://nowhere/ does not exist\. Correct the URL, or make the bucket\."
    with pytest.raises(RecordError, match=sentence):
        claim_folder(elsewhere)
    with pytest.raises(RecordError, match=sentence):
        Records.open(elsewhere)


def test_an_occupied_remote_folder_is_refused(store: RemotePath) -> None:
    claim_folder(store)
    with lock_folder(store):
        write_text_atomically(store / "mine", "kept")
    with pytest.raises(KdantError, match=r"ram://bucket/records is not empty"):
        claim_folder(store)
    claim_folder(store, resume=True)


def test_records_are_the_same_in_a_store(store: RemotePath, videos: Path, record_folder: Path) -> None:
    options = BuildOptions(clip=ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES), short_side=64)
    manifest = build_records(read_synthetic(videos), store, options)
    opened = Records.open(store)
    assert list(find_damage(store, manifest.shards, manifest)) == []
    assert opened.manifest == manifest == Records.open(record_folder).manifest
    assert (
        opened.labels_and_videos("train")[0].tolist()
        == Records.open(record_folder).labels_and_videos("train")[0].tolist()
    )
    # Other tests may have left features beside the records of `record_folder`.
    names = ["manifest.json", *sorted(shard.file for shard in manifest.shards)]
    assert [path.name for path in store.iterdir()] == names
    assert all((store / name).read_bytes() == (record_folder / name).read_bytes() for name in names)
    assert build_records(read_synthetic(videos), store, options, resume=True) == manifest


@without_tensorflow_io
@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--verify"]])
def test_s3_without_the_extra_is_one_sentence(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "s3://bucket/records"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "Error: s3:// needs tensorflow-io, which is not installed beside TensorFlow "
    )
    assert "kdant's extra `io`" in done.stderr
    assert "tensorflow>=2.16,<2.18" in done.stderr


def test_run_folders_stay_local() -> None:
    done = CliRunner().invoke(
        main, ["train-teacher", "--records", "s3://bucket/records", "--out", "s3://bucket/run"]
    )
    assert done.exit_code == 2
    assert "'s3://bucket/run' is no local path; only record folders may lie elsewhere." in done.stderr


def test_a_wrong_url_is_wrong_usage() -> None:
    done = CliRunner().invoke(main, ["inspect", "ftp://host/records"])
    assert done.exit_code == 2
    assert "a scheme that kdant does not know" in done.stderr
