"""A run as one file, and how it comes from disk, https or the Hugging Face Hub. No TensorFlow here.

An archive is a zip of plain files beside archive.json, which has the size and sha256 of each. It holds no
pickles, and no name that could leave the folder it is unpacked into. `local_run` turns an address into a run
folder; what is unpacked lies in the cache folder under the archive's sha256, so that it is fetched once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from kdant_tf.version import __version__, unreadable_advice
from tf_records.errors import KdantError, RunError, first_line
from tf_records.files import atomic_path, hash_file

# As a format of `kdant export`.
RUN_ARCHIVE = "run-archive"
SUFFIX = ".zip"
CONTENTS_NAME = "archive.json"
# All that an archive may hold.
NAMES = (
    *("config.json", "model.keras", "projection.keras", "metrics.csv", "curves.png"),
    *("evaluation.json", "predictions.npz", "labels.txt", "model_card.md"),
)
_FORMAT = 1
_DIGEST = "#sha256="
_SCHEMES = ("https://", "http://", "hf://")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20
_TIMEOUT_S = 60
_MAX_BYTES = 8 << 30
_MAX_CONTENTS_BYTES = 1 << 20
# What reading a damaged or encrypted zip raises.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def write_archive(path: Path, files: Mapping[str, bytes | Path]) -> str:
    """Writes the same bytes for the same files, whole or not at all.

    Args:
        path: to write; NAME.zip.
        files: name, of NAMES → its bytes, or a file with them.

    Returns:
        The archive's sha256.

    Raises:
        KdantError: `path` is there already, or has another suffix.
    """
    if path.suffix != SUFFIX:
        raise KdantError(f"A run archive should be called NAME{SUFFIX}. Received: {path}.")
    if path.exists():
        raise KdantError(f"{path} exists already. Choose another --out, or remove it.")
    bodies = {name: body if isinstance(body, bytes) else body.read_bytes() for name, body in files.items()}
    listed = {name: {"bytes": len(body), "sha256": _sha256(body)} for name, body in sorted(bodies.items())}
    contents = {"format": _FORMAT, "kdant": __version__, "files": listed}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, body in ((CONTENTS_NAME, json.dumps(contents, indent=1).encode()), *sorted(bodies.items())):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, body, zipfile.ZIP_DEFLATED)
    return hash_file(path)


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether `text` names an archive, here or elsewhere, and no run folder."""
    name = os.fspath(text).partition(_DIGEST)[0]
    return name.startswith(_SCHEMES) or (Path(name).suffix == SUFFIX and not Path(name).is_dir())


def local_run(address: str | os.PathLike[str], report: Callable[[str], None] = lambda line: None) -> Path:
    """The run folder that `address` stands for: itself, or where its archive is unpacked.

    Args:
        address: a run folder; a run archive; https://HOST/NAME.zip; or hf://OWNER/NAME, which is a repository
            of the Hugging Face Hub with one archive, also hf://OWNER/NAME@REVISION/NAME.zip. What is fetched
            may end in #sha256=DIGEST, and is refused where it is another file.
        report: called with a line about what was fetched.

    Raises:
        RunError: it cannot be fetched, is not the file asked for, or is no whole run archive.

    Example:
        local_run("https://example.org/student.zip#sha256=9f86…")
    """
    if not is_address(address):
        return Path(address)
    name, _, digest = os.fspath(address).partition(_DIGEST)
    digest = digest.lower()
    if digest and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        raise RunError(f"#sha256= should have 64 hexadecimal digits. Received: {digest}.")
    path = urllib.parse.urlsplit(name).path if "://" in name else name
    title = re.sub(r"[^\w.-]|^\.+", "_", Path(path).stem) or "run"
    if digest and (known := _unpacked(digest, title)) is not None:
        return known
    if "://" not in name:
        return _unpack(Path(name), title, digest, name)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=_cache()) as folder:
        fetch = _fetch_from_hub if name.startswith("hf://") else _fetch
        fetched = fetch(name, Path(folder))
        run = _unpack(fetched, title, digest, name)
        report(f"Fetched {name} ({fetched.stat().st_size / 1e6:.1f} MB) into {run}.")
        if not digest:
            report(f"To hold to this file, write {name}#sha256={hash_file(fetched)}")
    return run


def cache_folder() -> Path:
    """Where archives are unpacked: $KDANT_CACHE, or kdant in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("KDANT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdant"


def _cache() -> Path:
    folder = cache_folder() / "runs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"Cache folder {folder} cannot be made: {error.strerror}. Set KDANT_CACHE to a folder that can."
        ) from error
    return folder


def _place(digest: str, title: str) -> Path:
    return cache_folder() / "runs" / digest[:16] / title


def _unpacked(digest: str, title: str) -> Path | None:
    """What was unpacked earlier of the archive with this sha256, if it is whole."""
    folder = _place(digest, title)
    try:
        contents = json.loads((folder / CONTENTS_NAME).read_text(encoding="utf-8"))
        whole = contents["archive_sha256"] == digest and all(
            (folder / name).is_file() for name in contents["files"]
        )
        same = whole and hash_file(folder / "model.keras") == contents["files"]["model.keras"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if same else None


def _unpack(path: Path, title: str, expected: str, address: str) -> Path:
    """Unpacks an archive into the cache, if it is not there yet."""
    if not path.is_file():
        raise RunError(f"Run archive {path} does not exist. Give a run folder, or what kdant export wrote.")
    digest = hash_file(path)
    if expected and digest != expected:
        raise RunError(
            f"{address} is another file than the one asked for: its sha256 is {digest}. Ask for that one if "
            f"you trust it."
        )
    if (known := _unpacked(digest, title)) is not None:
        return known
    folder = _place(digest, title)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=_cache()) as name:
        temporary = Path(name) / "run"
        temporary.mkdir()
        try:
            with zipfile.ZipFile(path) as archive:
                contents = _read_contents(archive, address)
                for member, stated in contents["files"].items():
                    _extract(archive, member, stated, temporary / member, address)
        except _DAMAGE as error:
            raise RunError(
                f"{address} is no run archive, or a damaged one: {first_line(error)}. Write or fetch it anew."
            ) from error
        noted = json.dumps({**contents, "archive_sha256": digest}, indent=1)
        (temporary / CONTENTS_NAME).write_text(noted, encoding="utf-8")
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():  # of before, and not whole
            shutil.rmtree(folder)
        temporary.rename(folder)
    return folder


def _read_contents(archive: zipfile.ZipFile, address: str) -> dict[str, Any]:
    """archive.json, if it names exactly what the zip holds, and nothing that a run does not have."""
    names = archive.namelist()
    if CONTENTS_NAME not in names or archive.getinfo(CONTENTS_NAME).file_size > _MAX_CONTENTS_BYTES:
        raise RunError(
            f"{address} is no run archive: it has no {CONTENTS_NAME}. Write one with `kdant export RUN "
            f"--format run-archive`."
        )
    try:
        contents: dict[str, Any] = json.loads(archive.read(CONTENTS_NAME))
        listed = {name: (int(each["bytes"]), str(each["sha256"])) for name, each in contents["files"].items()}
        version, written_by = int(contents["format"]), contents.get("kdant")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{address} has a damaged {CONTENTS_NAME}. Write or fetch it anew.") from error
    if version != _FORMAT:
        raise RunError(f"{address} cannot be read. {unreadable_advice(written_by, 'Write it anew.')}")
    if sorted(names) != sorted((CONTENTS_NAME, *listed)):
        raise RunError(f"{address} holds other files than its {CONTENTS_NAME} says. Do not use it.")
    strange = sorted(set(listed) - set(NAMES))
    if strange:
        raise RunError(f"{address} holds {strange[0]!r}, which is no file of a run. Do not use it.")
    if not {"config.json", "model.keras"} <= set(listed):
        raise RunError(f"{address} holds no whole run: config.json or model.keras is missing.")
    if sum(size for size, _ in listed.values()) > _MAX_BYTES:
        raise RunError(f"{address} would take more than {_MAX_BYTES >> 30} GB. Do not use it.")
    return contents


def _extract(
    archive: zipfile.ZipFile, name: str, stated: Mapping[str, Any], path: Path, address: str
) -> None:
    digest, size = hashlib.sha256(), 0
    with archive.open(name) as source, path.open("wb") as target:
        while size <= stated["bytes"] and (block := source.read(_BLOCK)):
            size += len(block)
            digest.update(block)
            target.write(block)
    if size != stated["bytes"] or digest.hexdigest() != stated["sha256"]:
        raise RunError(f"{name} in {address} is not what its {CONTENTS_NAME} says. Write or fetch it anew.")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from https to anything else."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise RunError(f"Run archives come by https. Received: {url}.")
    if not parts.hostname:
        raise RunError(f"{url!r} names no host. Give https://HOST/NAME{SUFFIX}.")


def _fetch(url: str, folder: Path) -> Path:
    _check_url(url)
    path = folder / "archive.zip"
    opener = urllib.request.build_opener(_SafeRedirects)
    request = urllib.request.Request(url, headers={"User-Agent": f"kdant/{__version__}"})
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:
            promised = answer.headers.get("Content-Length")
            size = 0
            while block := answer.read(_BLOCK):
                size += len(block)
                if size > _MAX_BYTES:
                    raise RunError(f"{url} has more than {_MAX_BYTES >> 30} GB, which no run has.")
                file.write(block)
    except urllib.error.HTTPError as error:
        raise RunError(f"{url} cannot be fetched: the server answers {error.code} {error.reason}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(f"{url} cannot be fetched: {reason}. Try again, or fetch it by hand.") from error
    if promised is not None and size != int(promised):
        raise RunError(f"{url} came cut short: {size} of {promised} bytes. Try again.")
    return path


def _fetch_from_hub(address: str, folder: Path) -> Path:
    """hf://OWNER/NAME[@REVISION][/FILE]."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise RunError(
            f'{address} needs the Hugging Face Hub\'s client: pip install "kdant-tf[hub]".'
        ) from error
    owner, _, rest = address.removeprefix("hf://").partition("/")
    place, _, file = rest.partition("/")
    name, _, revision = place.partition("@")
    if not owner or not name:
        raise RunError(f"{address} should be hf://OWNER/NAME, also with @REVISION and /FILE{SUFFIX}.")
    chosen: dict[str, Any] = {"repo_id": f"{owner}/{name}", "revision": revision or None}
    try:
        if not file:
            archives = [each for each in huggingface_hub.list_repo_files(**chosen) if each.endswith(SUFFIX)]
            if len(archives) != 1:
                found = ", ".join(sorted(archives)[:5]) or "none"
                raise RunError(
                    f"{address} should have one run archive, or the address name it: hf://{owner}/{place}/"
                    f"FILE{SUFFIX}. Found: {found}."
                )
            (file,) = archives
        return Path(huggingface_hub.hf_hub_download(**chosen, filename=file, local_dir=folder))
    except RunError:
        raise
    except Exception as error:  # Also those of its HTTP client, which changes from version to version.
        raise RunError(f"{address} cannot be fetched: {first_line(error)}.") from error


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
