"""kdant extract-features, as far as it needs no TensorFlow: usage, and what is said and printed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from kdant_cli import extract_features as module

from tf_records.manifest import Manifest, ShardInfo, SplitInfo
from tf_records.schema import PER_CLIP, ClipSpec, FeatureInfo


def manifest() -> Manifest:
    """Of two records of features."""
    shard = ShardInfo(
        file="train-00000-of-00001.tfrecord",
        records=2,
        bytes=3_000_000,
        sha256="0" * 64,
        classes={"wave": 2},
        seconds=2.0,
    )
    return Manifest(
        dataset="csv",
        clip=ClipSpec(clip_frames=8, offset_frames=15),
        classes=("wave",),
        splits={"train": SplitInfo.of([shard])},
        options={},
        fps=25.0,
        short_side=64,
        jpeg_quality=95,
        plan_sha256="0" * 64,
        features=FeatureInfo(
            shape=(1, 8, None, 30),
            source="random",
            per=PER_CLIP,
            endpoint="MaxPool3d_4a_3x3",
            width=0.0625,
            windows=1,
        ),
    )


def test_the_table_says_size_and_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    module._print(manifest(), Path("features"), False)
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "float16 1x8x?x30, at most 1 a segment" in words
    assert "2, 3.0 MB, 1.50 MB each" in words
    assert "kdant train-teacher --records features --out teacher" in words


def test_json_is_the_manifests_summary(capsys: pytest.CaptureFixture[str]) -> None:
    module._print(manifest(), Path("features"), True)
    assert json.loads(capsys.readouterr().out)["features"]["per"] == PER_CLIP


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "Missing option '--init'"),
        (("--init", "random"), "Missing option '--out'"),
        (("--init", "random", "--out", "f", "--windows", "0"), "0 is not in the range x>=1"),
        (("--init", "random", "--out", "f", "--crop", "31"), "31 is not in the range x>=32"),
    ],
    ids=str,
)
def test_wrong_usage_exits_with_2(args: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(module.extract_features, ["records", *args])
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_random_weights_are_said_to_be_for_trying_out(capsys: pytest.CaptureFixture[str]) -> None:
    module.say_if_random("kinetics")
    assert capsys.readouterr().err == ""
    module.say_if_random("random")
    assert "for trying out" in capsys.readouterr().err
