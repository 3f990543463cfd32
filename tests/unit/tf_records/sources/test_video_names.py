"""One file under several names is one video, and names are found however their characters are composed."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from tf_records.errors import AnnotationError
from tf_records.schema import ClipSpec
from tf_records.sources.csv_manifest import read_csv
from tf_records.sources.guards import FileFinder, first_names
from tf_records.sources.jhmdb import read_jhmdb
from tf_records.sources.mining import mine_pairs
from tf_records.sources.read import PROTOCOLS, SourceOptions, read_annotations
from tf_records.sources.thumos14 import read_thumos14

HEADER = "video,start_s,end_s,label,split\n"
NAMES = ("./a.mp4", "sub/../a.mp4", "symlink.mp4", "hardlink.mp4", "linked/a.mp4", "copy.mp4")


@pytest.fixture
def folder(tmp_path: Path, videos: Path) -> Path:
    """a.mp4, of 2 s, under all of NAMES."""
    shutil.copy(videos / "00000.mp4", tmp_path / "a.mp4")
    shutil.copy(videos / "00000.mp4", tmp_path / "copy.mp4")
    (tmp_path / "sub").mkdir()
    (tmp_path / "symlink.mp4").symlink_to("a.mp4")
    (tmp_path / "linked").symlink_to(".")
    os.link(tmp_path / "a.mp4", tmp_path / "hardlink.mp4")
    return tmp_path


def write(folder: Path, *rows: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_the_first_name_of_a_file_is_its_name(folder: Path) -> None:
    other = bytearray((folder / "a.mp4").read_bytes())
    other[-1] ^= 1
    (folder / "other.mp4").write_bytes(other)
    names = ("sub/../a.mp4", "a.mp4", "symlink.mp4", "hardlink.mp4", "copy.mp4")
    others = ("other.mp4", "none.mp4", "nul\0.mp4")
    found = first_names({name: folder / name for name in (*names, *others)})
    assert found == {**dict.fromkeys(names, "sub/../a.mp4"), **{name: name for name in others}}


@pytest.mark.parametrize("other", NAMES)
def test_another_name_of_a_tested_video_gives_no_unlabelled_pairs(folder: Path, other: str) -> None:
    path = write(folder, "a.mp4,0.8,1,wave,train", f"{other},1.4,1.6,wave,test")
    annotations = read_csv(path)
    assert {sample.video for sample in annotations.samples} == {"a.mp4"}
    assert f"One video under several names: a.mp4 is also {other}." in annotations.notes
    clip = ClipSpec(clip_frames=2, offset_frames=2)
    mined = mine_pairs(annotations, clip, None, per_label=5)
    assert mined.options["unlabeled_mining"]["drawn"] == 0
    apart = read_csv(write(folder, "a.mp4,0.8,1,wave,train"))
    assert mine_pairs(apart, clip, None, per_label=5).options["unlabeled_mining"]["drawn"] == 5


@pytest.mark.parametrize("other", NAMES)
def test_another_name_does_not_hide_a_stretch_in_two_splits(folder: Path, other: str) -> None:
    path = write(folder, "a.mp4,0.5,1,wave,train", f"{other},0.7,1.2,wave,test")
    annotations = read_annotations(SourceOptions(source="csv", path=path), PROTOCOLS["csv"])
    assert annotations.overlaps == ("a.mp4 0.7 to 1.2 s is in train and in test",)


@pytest.mark.parametrize("other", NAMES)
def test_another_name_does_not_hide_a_repeated_row(folder: Path, other: str) -> None:
    with pytest.raises(AnnotationError, match=r"mine\.csv:3 repeats .*mine\.csv:2"):
        read_csv(write(folder, "a.mp4,0.5,1,wave,train", f"{other},0.50,1.0,wave,train"))


def test_a_pattern_that_fits_a_file_twice_stands_for_it_once(folder: Path) -> None:
    annotations = read_csv(write(folder, "*.mp4,0,1,wave,train"))
    assert [sample.video for sample in annotations.samples] == ["a.mp4"]


def test_jhmdb_links_between_splits_are_one_video(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "wave").mkdir()
    shutil.copy(videos / "00000.mp4", tmp_path / "wave" / "a.avi")
    (tmp_path / "wave" / "b.avi").symlink_to("a.avi")
    (tmp_path / "splits" / "wave_test_split1.txt").write_text("a.avi 1\nb.avi 2\n")
    annotations = read_annotations(SourceOptions(source="jhmdb", path=tmp_path), PROTOCOLS["jhmdb"])
    assert [sample.id for sample in annotations.samples] == ["wave/a", "wave/b"]
    assert annotations.overlaps == ("wave/a.avi is in train and in test",)


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café.mp4") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("stored", "named"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_name_is_found_however_its_characters_are_composed(folder: Path, stored: str, named: str) -> None:
    (folder / f"d{stored}").mkdir()
    shutil.copy(folder / "a.mp4", folder / f"d{stored}" / stored)
    find = FileFinder().find
    assert find(folder, f"d{named}/{named}") == f"d{stored}/{stored}"
    assert find(folder, str(folder / f"d{named}" / named)) == str(folder / f"d{stored}" / stored)
    assert find(folder, f"{named}/x") is None
    assert find(folder, f"nö/{named}") is None
    rows = (f"d{named}/{named},0,1,wave,train", f"d{stored}/{stored},1,2,clap,train")
    annotations = read_csv(write(folder, *rows))
    assert {sample.video for sample in annotations.samples} == {f"d{stored}/{stored}"}
    assert annotations.skipped == ()


def test_a_file_of_exactly_the_name_goes_first(folder: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        shutil.copy(folder / "a.mp4", folder / name)
    assert FileFinder().find(folder, COMPOSED) == COMPOSED
    assert FileFinder().find(folder, DECOMPOSED) == DECOMPOSED


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_pattern_and_jhmdbs_lists_are_matched_in_either_form_too(folder: Path, form: str) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    (folder / DECOMPOSED).mkdir()
    shutil.copy(folder / "a.mp4", folder / DECOMPOSED / COMPOSED)
    pattern = f"{unicodedata.normalize(form, DECOMPOSED)}/*.mp4"
    assert [s.video for s in read_csv(write(folder, f"{pattern},0,1,wave,train")).samples] == [
        f"{DECOMPOSED}/{COMPOSED}"
    ]
    (folder / "splits").mkdir()
    listed = unicodedata.normalize(other, DECOMPOSED)
    video = unicodedata.normalize(form, COMPOSED)
    (folder / "splits" / f"{listed}_test_split1.txt").write_text(f"{video} 1\n", encoding="utf-8")
    (sample,) = read_jhmdb(folder).samples
    assert (sample.path, sample.label) == (str(folder / DECOMPOSED / COMPOSED), listed)


def test_thumos_actions_past_the_end_are_counted_and_named(tmp_path: Path, videos: Path) -> None:
    name = "video_validation_0000001"
    shutil.copy(videos / "00000.mp4", tmp_path / f"{name}.mp4")
    lines = ("0.5 1.5", "1.5 2.05", "1.5 2.5", "1.8 9")
    (tmp_path / "Diving_val.txt").write_text("".join(f"{name} {line}\n" for line in lines))
    annotations = read_thumos14(tmp_path, lead_s=0.5)
    assert len(annotations.samples) == 4
    assert annotations.options["past_the_end"] == {"train": 2}
    (note,) = annotations.notes
    assert note.startswith("2 actions end after their video")
    assert f"{name} 1.5 to 2.5 of 2.00 s; {name} 1.8 to 9 of 2.00 s" in note
    assert annotations.footage[name].duration_s == 2.0
