"""Where records may lie: a local path, or a URL such as s3://bucket/records, read by TensorFlow's gfile.

TensorFlow is imported when a URL is first used, never for a local path.
"""

import ctypes
import dataclasses
import fnmatch
import functools
import os
import posixpath
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tf_records.errors import RecordError
from tf_records.start_tensorflow import start_tensorflow

# Those of TensorFlow itself, and those that tensorflow-io adds.
_OWN_SCHEMES = ("gs",)
_ADDED_SCHEMES = ("s3", "hdfs", "az")
_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "gs": "Log in with `gcloud auth application-default login`",
}


class FileStatus(NamedTuple):
    """What a store tells of a file, named as in os.stat_result."""

    st_size: int


@dataclasses.dataclass(frozen=True, slots=True)
class RemotePath(os.PathLike[str]):
    """A URL with the part of pathlib.Path's interface that record folders need.

    An object store has no folders: one is there as soon as a file in it is.

    Args:
        url: SCHEME://BUCKET/NAME.
    Raises:
        RecordError: from any method that asks the store, where it does not answer as it should.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))
        known = (*_OWN_SCHEMES, *_ADDED_SCHEMES)
        if self.scheme not in known:
            names = ", ".join(f"{scheme}://" for scheme in known)
            raise RecordError(f"{self.url!r} has a scheme that kdant does not know. Choose from: {names}.")
        if not all(self.url.removeprefix(f"{self.scheme}://").partition("/")[::2]):
            raise RecordError(
                f"{self.url!r} should name a bucket and a folder in it: {self.scheme}://BUCKET/FOLDER."
            )

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(posixpath.join(self.url, name))

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        return posixpath.basename(self.url)

    def check_store(self) -> None:
        """Raises RecordError where the bucket is missing, closed to us, or out of reach."""
        root = self.url[: self.url.index("/", len(self.scheme) + 3) + 1]
        with _gfile(root) as gfile:
            gfile.stat(root)

    def exists(self) -> bool:
        with _gfile(self.url) as gfile:
            return bool(gfile.exists(self.url))

    def is_dir(self) -> bool:
        with _gfile(self.url) as gfile:
            return bool(gfile.isdir(self.url))

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes the folder, with those above it, where it is not there yet and the store has folders."""
        with _gfile(self.url) as gfile:
            gfile.makedirs(self.url)

    def iterdir(self) -> Iterator["RemotePath"]:
        with _gfile(self.url) as gfile:
            names = gfile.listdir(self.url) if gfile.isdir(self.url) else []
        yield from (self / name for name in sorted(name.rstrip("/") for name in names) if name)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Children whose names match `pattern`, which names no folder."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def stat(self) -> FileStatus:
        with _gfile(self.url) as gfile:
            return FileStatus(st_size=int(gfile.stat(self.url).length))

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[Any]:
        with _gfile(self.url) as gfile, gfile.GFile(self.url, mode) as file:
            yield file

    def read_bytes(self) -> bytes:
        with self.open() as file:
            content: bytes = file.read()
        return content

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def upload(self, source: Path) -> None:
        """Puts a local file here; readers see all of it or nothing."""
        with _gfile(self.url) as gfile:
            gfile.copy(str(source), self.url, overwrite=True)

    def unlink(self, missing_ok: bool = False) -> None:
        with _gfile(self.url) as gfile:
            if not missing_ok or gfile.exists(self.url):
                gfile.remove(self.url)

    def rmtree(self) -> None:
        """Removes all that lies below, if anything does."""
        with _gfile(self.url) as gfile:
            if gfile.isdir(self.url):
                gfile.rmtree(self.url)


RecordPath = Path | RemotePath


def record_path(path: str | os.PathLike[str]) -> RecordPath:
    """A RemotePath where `path` is a URL, else a Path.

    Raises:
        RecordError: a URL of an unknown scheme, or without a bucket and a folder.
    """
    text = os.fspath(path)
    return RemotePath(text) if "://" in text else Path(path)


@contextmanager
def _gfile(url: str) -> Iterator[Any]:
    """tf.io.gfile; what it raises within becomes a RecordError."""
    scheme = url.partition("://")[0]
    tf = _load_file_system(scheme)
    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise RecordError(f"{url} does not exist. Correct the URL, or make the bucket.") from error
    except (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as error:
        advice = _CREDENTIALS.get(scheme, "Check your credentials")
        raise RecordError(f"Access to {url} was denied. {advice}.") from error
    except tf.errors.OpError as error:
        reason = next((line for line in error.message.splitlines() if line.strip(": ")), type(error).__name__)
        raise RecordError(
            f"{url} cannot be used: {reason.strip(': .')}. Check the URL, the network and the credentials."
        ) from error


@functools.cache
def _load_file_system(scheme: str) -> Any:
    """TensorFlow, with `scheme` registered.

    Raises:
        RecordError: tensorflow-io is missing, or does not load in this TensorFlow.
    """
    if "tensorflow" not in sys.modules:
        start_tensorflow()
    import tensorflow as tf

    if scheme in tf.io.gfile.get_registered_schemes():
        return tf
    found = "is not installed"
    with warnings.catch_warnings():
        # Where its libraries do not fit this TensorFlow, it only warns, and adds nothing.
        warnings.simplefilter("ignore")
        try:
            import tensorflow_io

            found = f"{tensorflow_io.__version__} does not load"
        except ImportError:
            pass
    if scheme not in tf.io.gfile.get_registered_schemes():
        raise RecordError(
            f"{scheme}:// needs tensorflow-io, which {found} beside TensorFlow {tf.__version__}. Install "
            f"kdant's extra `io` in an environment of its own: it brings tensorflow-io>=0.37.1 with "
            f"tensorflow>=2.16,<2.18, the versions that it loads in."
        )
    _skip_destructors()
    return tf


def _skip_destructors() -> None:
    """Ends the process, once all of Python is done, before its C++ objects are destroyed.

    tensorflow-io 0.37.1 aborts while it destroys its S3 client, which would turn exit code 0 into 134
    (its pull request 2120 mends that, after the last release).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)
