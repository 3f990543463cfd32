"""The contact sheet: which records it chooses, and that it shows their frames."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from kdant_cli.main import main
from PIL import Image

from tf_records.contact_sheet import draw_contact_sheet, pick_records
from tf_records.errors import KdantError, RecordError
from tf_records.manifest import Manifest, load_manifest
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec, FeatureInfo
from tf_records.sources.synthetic import OFFSET_FRAMES, read_synthetic
from tf_records.writer import build_records


@pytest.fixture(scope="module")
def folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 training records, 4 of them unlabelled, and 8 test records of four classes in five shards."""
    out = tmp_path_factory.mktemp("sheet") / "records"
    clip = ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES)
    build_records(read_synthetic(videos), out, BuildOptions(clip=clip, short_side=120, shards=5))
    return out


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return load_manifest(folder)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_five_rows_show_every_class_and_one_record_without_label(manifest: Manifest, seed: int) -> None:
    chosen = pick_records(manifest, 5, seed)
    assert sorted(pick.label or "" for pick in chosen) == ["", *sorted(manifest.classes)]
    assert chosen == pick_records(manifest, 5, seed)


def test_other_seeds_choose_other_records_and_splits_mix(manifest: Manifest) -> None:
    assert len({tuple(pick_records(manifest, 5, seed)) for seed in range(5)}) == 5
    assert {pick.split for seed in range(5) for pick in pick_records(manifest, 5, seed)} == {
        "train",
        "test",
    }


def test_more_rows_than_records_show_each_once(manifest: Manifest) -> None:
    chosen = pick_records(manifest, 99, 0)
    assert len(chosen) == len(set(chosen)) == 28
    assert sum(pick.label is None for pick in chosen) == 4


def test_a_cell_shows_the_frame_of_the_chosen_record(
    folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    draw_contact_sheet(folder, manifest, tmp_path / "sheet.png", samples=1, seed=3)
    (pick,) = pick_records(manifest, 1, 3)
    assert pick.label is None
    own = [
        example
        for data in tf.data.TFRecordDataset(str(folder / pick.shard)).as_numpy_iterator()
        for example in [tf.train.SequenceExample.FromString(data)]
        if example.context.feature["clip/label/index"].int64_list.value[0] == -1
    ]
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    lists = own[pick.place].feature_lists.feature_list
    for view, left in (("observed", 12), ("future", 12 + 3 * 169 - 4 + 24)):
        frames = [feature.bytes_list.value[0] for feature in lists[f"{view}/image/encoded"].feature]
        shown = [frames[0], frames[round((len(frames) - 1) / 2)], frames[-1]]
        for column, jpeg in enumerate(shown):
            cell = sheet[72 : 72 + 120, left + column * 169 : left + column * 169 + 165]
            np.testing.assert_array_equal(cell, np.asarray(Image.open(io.BytesIO(jpeg))))


def test_flow_is_shown_in_colour_below_the_frames(videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    from tf_records.flow import describe_flow

    options = BuildOptions(
        clip=ClipSpec(clip_frames=2, offset_frames=2),
        short_side=48,
        modality="rgb,flow",
        flow=describe_flow("farneback"),
    )
    out = tmp_path / "flow"
    build_records(read_synthetic(videos), out, options)
    draw_contact_sheet(out, load_manifest(out), tmp_path / "sheet.png", samples=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    cell = sheet[72 + 124 : 72 + 244, 12 : 12 + 160]
    assert np.ptp(cell, axis=-1).max() > 60


def test_features_are_refused(folder: Path, tmp_path: Path, edit_manifest: Callable[..., None]) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit_manifest(copy, features=FeatureInfo(shape=(2,), source="made"))
    with pytest.raises(RecordError, match="holds features, which are no pictures"):
        draw_contact_sheet(copy, load_manifest(copy), tmp_path / "sheet.png")


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for path in copy.glob("*.tfrecord"):
        content = bytearray(path.read_bytes())
        content[3000] ^= 1
        path.write_bytes(content)
    with pytest.raises(RecordError, match=r"Record 0 of shard .*tfrecord is damaged: its checksum is wrong"):
        draw_contact_sheet(copy, load_manifest(copy), tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("name", ["sheet.jpg", "no/sheet.png"])
def test_other_pictures_and_folders_that_do_not_exist_are_refused(
    folder: Path, manifest: Manifest, tmp_path: Path, name: str
) -> None:
    with pytest.raises(KdantError, match=r"should be a \.png file in a folder that exists"):
        draw_contact_sheet(folder, manifest, tmp_path / name)


def test_the_command_draws_and_still_prints_its_result(folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    args = ["inspect", str(folder), "--json", "--contact-sheet", str(sheet), "--samples", "3"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["splits"]["train"]["samples"] == 20
    assert f"Drew {sheet}" in result.stderr
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert picture.height == 48 + 3 * (24 + 124 + 18 + 12)
