"""From records of frames to records of the stem's maps, and what is refused before any is computed."""

import pytest

from kdant_tf.models.i3d_stem import ENDPOINT
from kdant_tf.runs import manifest_sha256
from kdant_tf.training.feature_extraction import extract_features
from tf_records.errors import KdantError, RecordError
from tf_records.records import Records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def features(record_folder, finished_run, tmp_path_factory):
    """The folder of features of all records, and the counts that were reported."""
    out, counts = tmp_path_factory.mktemp("features") / "features", []
    extract_features(
        str(record_folder), str(out), str(finished_run), crop=32, devices="cpu", on_record=counts.append
    )
    return out, counts


def test_every_record_becomes_the_maps_of_its_clips(record_folder, features):
    out, counts = features
    records, frames = Records.open(out), Records.open(record_folder)
    info = records.manifest.features
    assert (info.endpoint, info.crop, info.windows, info.width) == (ENDPOINT, 32, 1, 0.0625)
    assert info.records_sha256 == manifest_sha256(record_folder)
    assert {name: split.records for name, split in records.manifest.splits.items()} == {
        name: split.records for name, split in frames.manifest.splits.items()
    }
    assert sum(counts) == 28
    batch = next(iter(records.dataset(view="future", batch_size=4, crop=32)))[0]
    assert tuple(batch.shape) == (4, 2, 2, 2, 30)


def test_features_of_features_are_refused(features, finished_run, tmp_path):
    with pytest.raises(RecordError, match=r"has features already. Give the records of frames"):
        extract_features(features[0], tmp_path, str(finished_run))


def test_features_do_not_replace_the_frames_they_are_made_of(record_folder, finished_run):
    for out in (record_folder, record_folder.parent):
        with pytest.raises(KdantError, match=r"should lie apart, so that nothing of it is overwritten"):
            extract_features(record_folder, str(out), str(finished_run), overwrite=True)
    assert (record_folder / "manifest.json").is_file()


def test_devices_that_are_not_there_are_refused(record_folder, finished_run, tmp_path):
    with pytest.raises(KdantError, match=r"`--devices` should be"):
        extract_features(record_folder, tmp_path / "out", str(finished_run), devices="tpu")
    assert not (tmp_path / "out").exists()
