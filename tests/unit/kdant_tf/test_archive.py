"""A run as one file: unpacked as it was packed, from disk, a server or a hub; refused where it is odd."""

import functools
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdant_tf.archive import CONTENTS_NAME, is_address, local_run, write_archive
from tf_records.errors import KdantError, RunError

FILES = {"config.json": b"{}", "model.keras": b"weights" * 1000, "labels.txt": b"golf\nwalk\n"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDANT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "served" / "student.zip"
    write_archive(path, FILES)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != CONTENTS_NAME}


def test_what_was_packed_is_unpacked_once_under_its_name(archive: Path, cache: Path) -> None:
    folder = local_run(archive)
    assert content(folder) == FILES
    assert (folder.name, folder.parents[2]) == ("student", cache)
    written = (folder / "model.keras").stat().st_mtime_ns
    # What evaluate adds stays.
    (folder / "evaluation.json").write_text("{}")
    assert local_run(str(archive)) == folder
    assert (folder / "model.keras").stat().st_mtime_ns == written
    assert (folder / "evaluation.json").exists()
    assert not list((cache / "runs").glob(".tmp-*"))


def test_equal_files_are_equal_archives(archive: Path, tmp_path: Path) -> None:
    digest = write_archive(tmp_path / "again.zip", dict(reversed(FILES.items())))
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert digest == hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(KdantError, match=r"again\.zip exists already"):
        write_archive(tmp_path / "again.zip", FILES)
    with pytest.raises(KdantError, match=r"should be called NAME\.zip\. Received: .*run\.tar"):
        write_archive(tmp_path / "run.tar", FILES)


def test_a_damaged_copy_in_the_cache_is_unpacked_anew(archive: Path) -> None:
    folder = local_run(archive)
    (folder / "model.keras").write_bytes(b"other weights")
    assert content(local_run(archive)) == FILES
    (folder / "config.json").unlink()
    assert content(local_run(archive)) == FILES


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("run.zip", True),
        ("hf://owner/name", True),
        ("https://host/run", True),
        ("run", False),
        ("model.keras", False),
        ("s3://bucket/run", False),
    ],
)
def test_an_address_is_told_from_a_folder(text: str, is_one: bool, tmp_path: Path) -> None:
    assert is_address(text) == is_one
    if not is_one:
        assert local_run(text) == Path(text)
    (tmp_path / "folder.zip").mkdir()
    assert not is_address(tmp_path / "folder.zip")


def rewrite(path: Path, change: Callable[[dict[str, bytes], dict[str, Any]], Any]) -> None:
    """The archive with its files and its contents changed by `change`."""
    with zipfile.ZipFile(path) as archive:
        bodies = {name: archive.read(name) for name in archive.namelist()}
    contents = json.loads(bodies.pop(CONTENTS_NAME))
    change(bodies, contents)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(CONTENTS_NAME, json.dumps(contents))
        for name, body in bodies.items():
            archive.writestr(name, body)


def add_both(name: str, body: bytes = b"x") -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    def add(bodies: dict[str, bytes], contents: dict[str, Any]) -> None:
        bodies[name] = body
        contents["files"][name] = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}

    return add


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_both("../config.json"), r"holds '\.\./config\.json', which is no file of a run"),
        (add_both("/etc/passwd"), "which is no file of a run"),
        (add_both("code.pkl"), r"holds 'code\.pkl', which is no file of a run"),
        (lambda bodies, _: bodies.update({"labels.txt": b"golf\nwall\n"}), "labels.txt in .* is not what"),
        (lambda bodies, _: bodies.update({"labels.txt": b"0" * 10**7}), "labels.txt in .* is not what"),
        (lambda bodies, _: bodies.pop("labels.txt"), "holds other files than its archive.json says"),
        (
            lambda bodies, _: bodies.update({"curves.png": b"x"}),
            "holds other files than its archive.json says",
        ),
        (lambda _, contents: contents.update(format=2, kdant="99.0"), "written by kdant 99.0.*update kdant"),
        (lambda _, contents: contents.pop("files"), "has a damaged archive.json"),
        (
            lambda bodies, contents: (bodies.pop("model.keras"), contents["files"].pop("model.keras")),
            "holds no whole run",
        ),
        (
            lambda _, contents: contents["files"]["model.keras"].update(bytes=10**12),
            "would take more than 8 GB",
        ),
    ],
)
def test_a_strange_archive_is_refused_in_a_sentence(
    change: Any, reason: str, archive: Path, cache: Path
) -> None:
    rewrite(archive, change)
    with pytest.raises(RunError, match=reason):
        local_run(archive)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_what_is_no_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.zip does not exist"):
        local_run(tmp_path / "none.zip")
    other = tmp_path / "other.zip"
    other.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(RunError, match="is no run archive, or a damaged one"):
        local_run(other)
    other.write_bytes(archive.read_bytes().replace(b"weights" * 2, b"WEIGHTS" * 2))
    with zipfile.ZipFile(other, "w") as empty:
        empty.writestr("a.txt", "a")
    with pytest.raises(RunError, match=r"has no archive\.json.*--format run-archive"):
        local_run(other)


def test_any_flipped_byte_is_refused_or_harmless(archive: Path, tmp_path: Path) -> None:
    """Bytes that no reader looks at, such as dates, may change; what is unpacked never does."""
    whole = archive.read_bytes()
    for place in range(0, len(whole), 7):
        other = tmp_path / "flipped.zip"
        other.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            folder = local_run(other)
        except RunError:
            continue
        assert content(folder) == FILES


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; some names misbehave."""

    def do_GET(self) -> None:
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved/"))
            self.end_headers()
        elif self.path == "/short.zip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"PK")
        else:
            super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(archive: Path) -> Iterator[str]:
    handler = functools.partial(_Server, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as own:
        threading.Thread(target=own.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{own.server_port}"
        own.shutdown()


def test_an_archive_is_fetched_and_held_to_its_digest(archive: Path, server: str) -> None:
    said: list[str] = []
    folder = local_run(f"{server}/student.zip", report=said.append)
    assert (folder.name, content(folder)) == ("student", FILES)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert said[1].endswith(f"{server}/student.zip#sha256={digest}")
    # Known by its digest, it is not fetched again.
    archive.unlink()
    assert local_run(f"{server}/student.zip#sha256={digest.upper()}") == folder
    write_archive(archive, {**FILES, "labels.txt": b"other"})
    with pytest.raises(RunError, match="is another file than the one asked for: its sha256 is"):
        local_run(f"{server}/student.zip#sha256={'0' * 64}")
    with pytest.raises(RunError, match=r"should have 64 hexadecimal digits\. Received: abc"):
        local_run(f"{server}/student.zip#sha256=abc")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("{server}/none.zip", "cannot be fetched: the server answers 404"),
        ("{server}/short.zip", "came cut short: 2 of 1000 bytes"),
        ("{server}/moved/http://example.org/run.zip", "come by https. Received: http://example.org/run.zip"),
        ("{server}/moved/file:///etc/passwd", "cannot be fetched|come by https"),
        ("http://example.org/run.zip", "come by https. Received: http://example.org"),
        ("http://127.0.0.1:9/run.zip", "cannot be fetched: .*refused"),
        ("https:///run.zip", "names no host"),
    ],
)
def test_what_cannot_be_fetched_safely_is_one_sentence(address: str, reason: str, server: str) -> None:
    with pytest.raises(RunError, match=reason):
        local_run(address.format(server=server))


def test_a_redirect_on_the_same_host_is_followed(server: str) -> None:
    assert content(local_run(f"{server}/moved/{server}/student.zip")) == FILES


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as answers for one repository at one commit."""

    files: dict[str, bytes]
    commit = "a" * 40

    def do_GET(self) -> None:
        place = self.path.partition("?")[0]
        if place.startswith("/api/models/owner/name"):
            known = {"_id": "1", "id": "owner/name", "sha": self.commit, "tags": [], "private": False}
            listed = [
                {"type": "file", "path": name, "size": len(body), "oid": "b" * 40}
                for name, body in self.files.items()
            ]
            # Clients of before 2.0 read the names from what is known of the repository.
            siblings = [{"rfilename": name} for name in self.files]
            self._answer(listed if "/tree/" in place else {**known, "siblings": siblings})
        elif (name := place.rpartition("/")[2]) in self.files and place.startswith("/owner/name/resolve/"):
            self._answer(self.files[name], ETag=f'"{hashlib.sha256(self.files[name]).hexdigest()}"')
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def _answer(self, body: Any, **headers: str) -> None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        own = {"Content-Length": str(len(sent)), "Content-Type": kind, "X-Repo-Commit": self.commit}
        for name, value in {**own, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(sent)

    def log_message(self, *args: Any) -> None:
        pass


class _ConnectError(Exception):
    """As of the Hub's HTTP client: no OSError."""


def test_an_archive_comes_from_the_hub(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    _Hub.files = {"student.zip": archive.read_bytes(), "README.md": b"# A student"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(
            hub,
            "list_repo_files",
            functools.partial(hub.HfApi(endpoint=endpoint).list_repo_files, token=False),
        )
        monkeypatch.setattr(
            hub, "hf_hub_download", functools.partial(hub.hf_hub_download, endpoint=endpoint, token=False)
        )
        assert content(local_run("hf://owner/name")) == FILES
        assert content(local_run("hf://owner/name@main/student.zip")) == FILES
        with pytest.raises(RunError, match="hf://owner/other cannot be fetched"):
            local_run("hf://owner/other")
        _Hub.files |= {"b.zip": b"b"}
        with pytest.raises(RunError, match=r"should have one run archive.*Found: b\.zip, student\.zip"):
            local_run("hf://owner/name")
        server.shutdown()

    def fail(**chosen: object) -> list[str]:
        raise _ConnectError("Name or service not known")

    monkeypatch.setattr(hub, "list_repo_files", fail)
    with pytest.raises(RunError, match="hf://owner/again cannot be fetched: Name or service not known"):
        local_run("hf://owner/again")
    with pytest.raises(RunError, match="should be hf://OWNER/NAME"):
        local_run("hf://owner")
