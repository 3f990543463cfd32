"""What a page is about: run folders or a study, and which networks are shown side by side."""

import dataclasses
import json

import pytest
from run_folders import evaluated, keep, make_predictions, make_run

from kdant_tf.report.group import Group, group_networks, load_reported_runs
from kdant_tf.runs import manifest_sha256
from tf_records.errors import RunError


def names(group: Group) -> list[str]:
    return [each.title for each in group.networks]


@pytest.fixture
def folder(tmp_path):
    """Three evaluated runs, the third on other samples."""
    for name in ("a", "b"):
        evaluated(tmp_path / name, [0, 1, 2, 0])
    keep(make_run(tmp_path / "c"), make_predictions([0, 1, 2, 3], [0, 1, 2, 3], names="other"))
    return tmp_path


def test_runs_are_read_with_what_they_were_evaluated_on(folder):
    reported = load_reported_runs([folder / "a", folder / "c"])
    assert reported.title == "2 runs"
    assert list(reported.runs) == [str(folder / "a"), str(folder / "c")]
    assert [each.result["top1"] for each in reported.networks] == [0.75, 1.0]
    assert load_reported_runs([folder / "a"]).title == f"Run {folder / 'a'}"


def test_networks_of_the_same_samples_stand_in_one_group(folder):
    (group,) = group_networks(load_reported_runs([folder / name for name in "abc"]), ())
    assert names(group) == [f"{folder / name}, observed clip" for name in "ab"]
    assert group.records is None
    assert group.split == "test"
    assert list(group.runs) == [str(folder / name) for name in "ab"]
    assert list(group.predictions) == names(group)


def test_samples_are_chosen_by_the_last_student_of_the_papers_loss(tmp_path):
    settings = {
        "teacher": {"role": "teacher"},
        "first": {"feature_loss": "bidirectional"},
        "second": {"feature_loss": "bidirectional"},
        "none": {"feature_loss": "none"},
    }
    runs = {name: evaluated(tmp_path / name, [0, 1, 2, 0], **own) for name, own in settings.items()}
    for present, expected in (
        (("teacher", "first", "second", "none"), "second"),
        (("teacher", "none"), "none"),
        (("teacher",), "teacher"),
    ):
        group = Group(networks=[runs[name] for name in present], records=None)
        assert group.main is runs[expected]


def test_records_have_to_be_those_of_the_predictions(folder, record_folder):
    reported = load_reported_runs([folder / "a"])
    with pytest.raises(RunError, match=r"other records than .*: 4 test samples there, 8 here"):
        group_networks(reported, [record_folder])
    run = make_run(folder / "fits", records_sha256=manifest_sha256(record_folder))
    keep(run, make_predictions([0, 1, 2, 3] * 2, [0] * 8))
    (group,) = group_networks(load_reported_runs([folder / "fits"]), [record_folder])
    assert group.records == record_folder
    (folder / "fits" / "predictions.npz").unlink()
    with pytest.raises(RunError, match=r"has kept no predictions. Evaluate it again: kdant evaluate"):
        group_networks(load_reported_runs([folder / "fits"]), [record_folder])


def test_predictions_of_records_with_another_manifest_are_refused(tmp_path, record_folder):
    """As many samples, but another offset, say."""
    run = make_run(tmp_path / "run")
    kept = make_predictions([0, 1, 2, 3] * 2, [0] * 8)
    keep(run, dataclasses.replace(kept, records_sha256="1" * 64))
    with pytest.raises(RunError, match=r"other records than .*: their manifest is another"):
        group_networks(load_reported_runs([run.folder]), [record_folder])
    keep(run, dataclasses.replace(kept, records_sha256=manifest_sha256(record_folder)))
    (group,) = group_networks(load_reported_runs([run.folder]), [record_folder])
    assert group.records == record_folder


def test_what_an_earlier_network_gave_is_not_shown(folder):
    (folder / "a" / "model.keras").write_bytes(b"trained further")
    with pytest.raises(RunError, match=r"has another network than when it was evaluated \(observed\)"):
        load_reported_runs([folder / "a", folder / "b"])


def test_what_is_no_evaluated_run_is_refused(folder):
    make_run(folder / "fresh")
    with pytest.raises(RunError, match=r"was not evaluated yet. Evaluate it first: kdant evaluate"):
        load_reported_runs([folder / "a", folder / "fresh"])
    with pytest.raises(RunError, match="should be given once"):
        load_reported_runs([folder / "a", folder / "." / "a"])
    (folder / "a" / "evaluation.json").write_text('{"observed": {"split": "test"}}')
    with pytest.raises(RunError, match=r"evaluation.json cannot be read"):
        load_reported_runs([folder / "a"])


def write_study(folder, runs):
    about = {"scale": "tiny", "runs": [{"name": name} for name in runs]}
    (folder / "study.json").write_text(json.dumps({"tables": {"table1": about}, "seconds": {}}))


def test_of_a_study_the_finished_runs_of_the_first_seed_are_compared(tmp_path):
    study = tmp_path / "study"
    for seed in (3, 1):
        for loss in ("none", "direct"):
            evaluated(study / "runs" / f"{loss}-seed{seed}", [0] * 4, seed=seed, feature_loss=loss)
    write_study(study, ["none-seed3", "direct-seed3", "none-seed1", "direct-seed1", "direct-seed2"])
    reported = load_reported_runs([study])
    assert (reported.title, reported.study, list(reported.tables)) == (f"Study {study}", study, ["table1"])
    assert list(reported.runs) == ["none-seed3", "direct-seed3", "none-seed1", "direct-seed1"]
    (group,) = group_networks(reported, ())
    assert [each.name for each in group.networks] == ["none-seed1", "direct-seed1"]
    with pytest.raises(RunError, match="Give it alone"):
        load_reported_runs([study, study / "runs" / "none-seed1"])


def test_a_study_without_finished_runs_is_refused(tmp_path):
    write_study(tmp_path, ["none-seed1"])
    with pytest.raises(RunError, match="has no finished run yet"):
        load_reported_runs([tmp_path])
    (tmp_path / "study.json").write_text(json.dumps({"tables": {"table1": {}}, "seconds": {}}))
    with pytest.raises(RunError, match=r"study.json cannot be read"):
        load_reported_runs([tmp_path])
