"""The run folder: what is written can be read, and what cannot is refused in one sentence."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import zipfile

import pytest

from kdant_tf.config import TrainConfig
from kdant_tf.run_list import list_runs
from kdant_tf.runs import (
    METRICS,
    Run,
    best_epoch,
    inherited_settings,
    load_run,
    manifest_sha256,
    read_evaluation,
    read_metrics,
    record_evaluation,
    result_name,
    stale_results,
    weights_sha256,
)
from tf_records.errors import RunError
from tf_records.manifest import Manifest
from tf_records.schema import ClipSpec, FlowInfo


@pytest.fixture
def run(tmp_path) -> Run:
    """A finished run, as far as its files tell."""
    run = Run(
        folder=tmp_path / "run",
        role="student",
        config=TrainConfig(width=0.5, crop=64, decay_epochs=(3, 5)),
        classes=("clap", "größer"),
        clip=ClipSpec(clip_frames=8, offset_frames=16),
        modality="rgb",
        short_side=64,
        records_sha256="0" * 64,
        teacher="runs/teacher",
    )
    run.folder.mkdir()
    run.save()
    run.model_path.write_bytes(b"model")
    return run


def manifest(**changes) -> Manifest:
    fields = {
        "dataset": "synthetic",
        "clip": ClipSpec(clip_frames=8, offset_frames=16),
        "classes": ("clap", "größer"),
        "splits": {},
        "options": {},
        "fps": None,
        "short_side": 64,
        "jpeg_quality": 95,
        "plan_sha256": "0" * 64,
    }
    return Manifest(**{**fields, **changes})


def test_a_saved_run_is_loaded_as_it_was(run):
    assert load_run(run.folder) == run
    assert load_run(str(run.folder)) == run


def test_a_run_of_a_newer_kdant_is_not_to_be_trained_again(run):
    fields = json.loads((run.folder / "config.json").read_text("utf-8"))
    fields["versions"]["kdant"] = "99.0.dev1"
    (run.folder / "config.json").write_text(json.dumps({**fields, "later": 1}))
    with pytest.raises(
        RunError,
        match=r"cannot be read\. It was written by kdant 99\.0\.dev1, this is .*: update kdant\.$",
    ):
        load_run(run.folder)
    fields["versions"]["kdant"] = "0.0.1"
    (run.folder / "config.json").write_text(json.dumps({**fields, "later": 1}))
    with pytest.raises(RunError, match=r"later'\. Train the run again\.$"):
        load_run(run.folder)


def test_config_json_names_the_versions(run):
    fields = json.loads((run.folder / "config.json").read_text("utf-8"))
    assert {"kdant", "python", "tensorflow", "keras", "numpy", "av"} <= set(fields["versions"])
    assert "folder" not in fields


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"Run folder .*absent does not exist\. Train one"):
        load_run(tmp_path / "absent")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"has no config\.json, so it is no run folder"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"role": "student"}', "[]", "null", "3", '"text"', "\x00"],
)
def test_a_damaged_config_is_refused(run, text):
    (run.folder / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json cannot be read: .*Train the run again"):
        load_run(run.folder)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"epochs": -1}},
        {"config": {"unknown": 1}},
        {"config": []},
        {"config": None},
        {"clip": {"clip_frames": 0}},
        {"clip": 8},
        {"classes": None},
        {"surplus": 1},
    ],
)
def test_a_config_with_impossible_fields_is_refused(run, change):
    path = run.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}))
    with pytest.raises(RunError, match=r"config\.json cannot be read"):
        load_run(run.folder)


def test_a_run_without_model_is_refused_unless_that_is_expected(run):
    run.model_path.unlink()
    with pytest.raises(RunError, match=r"no model\.keras: its training has not finished.*--resume"):
        load_run(run.folder)
    assert load_run(run.folder, finished=False) == run


def test_a_student_inherits_the_network_but_not_its_first_weights(run):
    settings = {"model": "tsn", "backbone": "ResNet101", "segments": 5, "init": "imagenet"}
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, **settings))
    config = run.config
    assert inherited_settings(run) == {
        "model": "tsn",
        "backbone": "ResNet101",
        "segments": 5,
        "width": 0.5,
        "crop": 64,
        "batch_norm_momentum": config.batch_norm_momentum,
        "windows": config.windows,
        "endpoint": config.endpoint,
        "modality": "rgb",
    }


def test_records_that_fit_are_accepted(run):
    run.check_records(manifest(clip=ClipSpec(clip_frames=8, offset_frames=30)), run.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("größer", "clap")}, r"other classes.*clap, größer\. Received: größer, clap"),
        ({"clip": ClipSpec(clip_frames=16)}, r"wants clips of 8 frames, records .* have clips of 16 frames"),
        ({"modality": "flow"}, r"wants modality rgb, records .* have modality flow"),
        ({"short_side": 128}, r"short side of 64 pixels, records .* short side of 128 pixels"),
    ],
)
def test_records_that_do_not_fit_are_refused(run, change, message):
    with pytest.raises(RunError, match=message):
        run.check_records(manifest(**change), run.folder)


def test_flow_of_another_bound_or_algorithm_is_refused_but_not_of_another_opencv(run):
    flow = FlowInfo(algorithm="dis", parameters={"preset": "MEDIUM"}, bound=5.0, opencv="4.10.0")
    run = dataclasses.replace(run, modality="flow", flow=flow)

    def check(**changes) -> None:
        given = manifest(modality="rgb,flow", flow=dataclasses.replace(flow, **changes))
        run.check_records(given, run.folder)

    check(opencv="4.11.0")
    with pytest.raises(RunError, match=r"trained on flow of dis .*±5 pixels, .*; records .* have dis .*±20 "):
        check(bound=20.0)
    with pytest.raises(RunError, match=r"have farneback \(levels 5\).*--flow-algorithm and --flow-bound"):
        check(algorithm="farneback", parameters={"levels": 5})


def test_the_hash_is_of_the_manifests_bytes(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest_sha256(tmp_path) == expected


def test_evaluations_of_both_views_are_kept(run):
    record_evaluation(run, "future", {"top1": 0.5})
    record_evaluation(run, "observed", {"top1": 0.25})
    record_evaluation(run, "future", {"top1": 0.75})
    results = json.loads((run.folder / "evaluation.json").read_text("utf-8"))
    network = hashlib.sha256(b"model").hexdigest()
    assert results == {
        "future": {"top1": 0.75, "weights_sha256": network},
        "observed": {"top1": 0.25, "weights_sha256": network},
    }


def test_a_network_is_known_by_its_weights_however_often_it_is_saved(run, tmp_path):
    for name, date, weights in (("a", "1", "w"), ("b", "2", "w"), ("c", "1", "v")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("metadata.json", date)
            archive.writestr("model.weights.h5", weights)
    first, again, other = (weights_sha256(tmp_path / name) for name in "abc")
    assert first == again == hashlib.sha256(b"w").hexdigest()
    assert other != first


def test_results_are_named_by_what_is_unusual_of_them(run):
    other = "1234567890"
    assert result_name(run, "observed", "test", run.records_sha256) == "observed"
    assert result_name(run, "observed, fused", "val", run.records_sha256) == "observed, fused, val"
    assert result_name(run, "share", "test", other) == "share, records 12345678"
    assert result_name(run, "tau", "val", other) == "tau, val, records 12345678"


def test_evaluations_at_once_lose_none(run):
    names = [f"share {number}" for number in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: record_evaluation(run, name, {"top1": 0.5}), names))
    assert set(read_evaluation(run.folder)) == set(names)
    assert {path.name for path in run.folder.iterdir()} == {"config.json", "evaluation.json", "model.keras"}


def test_results_of_an_earlier_network_are_stale(run):
    record_evaluation(run, "future", {"top1": 0.5})
    assert stale_results(run.folder) == ()
    run.model_path.write_bytes(b"trained further")
    record_evaluation(run, "observed", {"top1": 0.25})
    assert stale_results(run.folder) == ("future",)
    (listed,), _ = list_runs(run.folder)
    assert (list(listed.evaluation), listed.stale) == (["observed"], ("future",))


@pytest.mark.parametrize(("network_s", "stale"), [(5, ()), (20, ("future",))])
def test_results_that_name_no_network_are_of_that_before_them(run, network_s, stale):
    path = run.folder / "evaluation.json"
    path.write_text('{"future": {"top1": 0.5}}')
    os.utime(path, (10, 10))
    os.utime(run.model_path, (network_s, network_s))
    assert stale_results(run.folder) == stale


@pytest.mark.parametrize("text", ["{", "[]", '{"future": 0.5}'])
def test_a_damaged_evaluation_is_refused_and_stays(run, text):
    path = run.folder / "evaluation.json"
    path.write_text(text)
    for use in (lambda: read_evaluation(run.folder), lambda: record_evaluation(run, "future", {"top1": 0.5})):
        with pytest.raises(
            RunError, match=r"evaluation\.json cannot be read: .*Delete it and evaluate again"
        ):
            use()
    assert path.read_text() == text


def test_a_run_that_was_not_evaluated_has_no_results(run):
    assert read_evaluation(str(run.folder)) == {}


def test_the_best_epoch_is_the_most_accurate_then_the_one_of_lower_loss_then_the_earlier():
    rows = [
        {"epoch": float(epoch), "validation_accuracy": accuracy, "validation_loss": loss}
        for epoch, accuracy, loss in ((1, 0.5, 1.0), (2, 0.75, 2.0), (3, 0.75, 1.5), (4, 0.75, 1.5))
    ]
    assert best_epoch(rows) == 3
    assert best_epoch([{"epoch": 1.0, "loss": 1.0}]) is None
    assert best_epoch([]) is None


def test_metrics_are_numbers_and_without_a_file_none(tmp_path):
    assert read_metrics(tmp_path / "metrics.csv") == []
    (tmp_path / "metrics.csv").write_text(f"epoch,{','.join(METRICS)}\n1,0.1,2,1.5,0.5,0.25\n")
    assert read_metrics(str(tmp_path / "metrics.csv")) == [
        {"epoch": 1, **dict(zip(METRICS, (0.1, 2.0, 1.5, 0.5, 0.25), strict=True))}
    ]


def test_epochs_of_an_earlier_version_lack_what_was_not_measured(tmp_path):
    columns = ",".join((*METRICS, "pooling_entropy", "map_variation"))
    path = tmp_path / "metrics.csv"
    path.write_text(f"epoch,{columns}\n1,0.1,2,1.5,0.5,0.25,,\n2,0.1,2,1.5,0.5,0.25,0.75,0.5\n")
    first, second = read_metrics(path)
    assert set(first) == {"epoch", *METRICS}
    assert (second["pooling_entropy"], second["map_variation"]) == (0.75, 0.5)
    path.write_text(f"epoch,{columns}\n1,0.1,2,,0.5,0.25,,\n")
    with pytest.raises(RunError, match="could not convert string to float"):
        read_metrics(path)


def test_runs_cannot_be_changed(run):
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.role = "teacher"
