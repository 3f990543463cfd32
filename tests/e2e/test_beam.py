"""Building records on Apache Beam's DirectRunner, typed; skipped where Beam is not installed."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from kdant_cli.main import main

INSTALLED = importlib.util.find_spec("apache_beam") is not None
with_beam = pytest.mark.skipif(not INSTALLED, reason="Apache Beam is not installed: make test-beam")
KDANT = "from kdant_cli.main import main; main(prog_name='kdant')"
OPTIONS = ("--clip-frames", "8", "--offset-frames", "16", "--short-side", "64", "--shards", "2")
TWO_WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


def build(videos: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    source = ("--source", "csv", "--input", str(videos / "annotations.csv"), "--out", str(out))
    command = [sys.executable, "-c", KDANT, "build-records", *source, *OPTIONS, "--json", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def local_records(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "records"
    done = build(videos, out)
    assert done.returncode == 0, done.stderr
    return out


@with_beam
def test_two_workers_of_beam_write_what_one_local_process_writes(
    videos: Path, local_records: Path, tmp_path: Path
) -> None:
    done = build(videos, tmp_path / "records", "--runner", "beam", "--", *TWO_WORKERS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["test"]["shards"] == 2
    assert content(tmp_path / "records") == content(local_records)


@with_beam
def test_a_failed_pipeline_is_one_sentence_and_resumes(
    videos: Path, local_records: Path, tmp_path: Path
) -> None:
    out = tmp_path / "records"
    in_the_way = out / "test-00001-of-00002.tfrecord"
    in_the_way.mkdir(parents=True)
    arguments = ("--resume", "--runner", "beam", "--", *TWO_WORKERS)
    done = build(videos, out, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    # Beam's own workers may have printed more before it.
    sentence = r"Error: Apache Beam could not write the records: .*Is a directory.*--resume\."
    assert re.fullmatch(sentence, done.stderr.splitlines()[-1])
    in_the_way.rmdir()
    done = build(videos, out, *arguments)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(local_records)


@with_beam
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--direct_num_wokers=2", "Apache Beam does not know --direct_num_wokers. Give its options after"),
        (
            "--direct_num_workers=two",
            "Apache Beam refuses its options: argument --direct_num_workers:",
        ),
        ("--runner=Nonsense", "Apache Beam could not write the records: "),
    ],
)
def test_options_that_beam_does_not_take_are_one_sentence(
    option: str, sentence: str, videos: Path, tmp_path: Path
) -> None:
    done = build(videos, tmp_path / "records", "--runner", "beam", "--", option)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"Error: {sentence}")


@pytest.mark.skipif(INSTALLED, reason="Apache Beam is installed")
def test_without_the_extra_it_is_named(videos: Path, tmp_path: Path) -> None:
    done = build(videos, tmp_path / "records", "--runner", "beam")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: `--runner beam` needs Apache Beam, which is not installed. Install kdant's extra `beam`.\n"
    )
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--", "--direct_num_workers=2"), "Apache Beam's options need --runner beam."),
        (("extra",), "Apache Beam's options need --runner beam. Received: extra."),
        (("--runner", "beam", "--workers", "2"), "--workers is for --runner local"),
        (("--runner", "beam", "--features", "random"), "--features is for --runner local"),
    ],
)
def test_options_that_exclude_each_other_are_wrong_usage(more: tuple[str, ...], sentence: str) -> None:
    command = ["build-records", "--source", "csv", "--input", "x.csv", "--out", "records", *more]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert sentence in " ".join(done.stderr.split())
