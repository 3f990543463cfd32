"""Flow from videos to a served network, as a user types it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from kdant_cli.main import main
from PIL import Image
from tiny_network import OPTION as TINY_NETWORK

from tf_records.manifest import load_manifest

SMALL = (*TINY_NETWORK, "--crop", "32", "--batch-size", "8", "--epochs", "1")


def kdant(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def succeed(*args: object) -> str:
    result = kdant(*args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refuse(*args: object) -> str:
    result = kdant(*args)
    assert (result.exit_code, result.stdout) == (1, ""), result.stderr
    return result.stderr.strip().splitlines()[-1]


def build(out: Path, videos: Path, *options: object) -> Path:
    source = ("--source", "synthetic", "--input", videos, "--short-side", 64, "--offset-frames", 16)
    succeed("build-records", *source, "--out", out, *options)
    return out


def modality_of(run: Path) -> str:
    return json.loads((run / "config.json").read_text())["modality"]


@pytest.fixture(scope="module")
def both(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flow") / "both"
    return build(out, videos, "--modality", "rgb,flow", "--flow-algorithm", "dis")


@pytest.fixture(scope="module")
def teacher(both: Path) -> Path:
    out = both.parent / "teacher"
    succeed("train-teacher", "--records", both, "--out", out, "--modality", "flow", *SMALL)
    return out


def test_a_student_takes_its_teachers_modality_and_both_are_evaluated_in_it(
    both: Path, teacher: Path
) -> None:
    student = both.parent / "student"
    succeed("distill", "--records", both, "--teacher", teacher, "--out", student, "--epochs", 1, *SMALL[4:6])
    for run in (teacher, student):
        assert modality_of(run) == "flow"
        printed = json.loads(succeed("evaluate", run, "--records", both, "--json"))
        assert printed["samples"] == 8


def test_an_exported_flow_network_takes_flow_in_the_8_bits_of_records(
    teacher: Path, both: Path, videos: Path, tmp_path: Path
) -> None:
    from kdant_tf.evaluation.evaluate import predict
    from kdant_tf.models.networks import load_network
    from kdant_tf.runs import load_run
    from tf_records.reader import evaluation_batches
    from tf_records.records import Records

    succeed("export", teacher, "--out", tmp_path / "served")
    serve = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures["serving_default"]
    record = next(iter(tf.data.TFRecordDataset([str(path) for path in sorted(both.glob("test-*"))])))
    lists = tf.train.SequenceExample.FromString(record.numpy()).feature_lists.feature_list
    ways = [
        [tf.io.decode_jpeg(f.bytes_list.value[0], dct_method="INTEGER_ACCURATE") for f in lists[key].feature]
        for key in ("observed/flow/u/encoded", "observed/flow/v/encoded")
    ]
    clips = tf.concat([tf.stack(pictures) for pictures in ways], axis=-1)[None]
    served = serve(clips=clips)["probabilities"].numpy()
    records = Records.open(both, modality="flow")
    batches = evaluation_batches(records, split="test", view="observed", batch_size=8, crop=32, windows=1)
    network = load_network(load_run(teacher))
    expected = predict(network, batches, 8).probabilities
    np.testing.assert_allclose(served[0], expected[0], rtol=1e-4)
    # Whoever predicts need not say how flow is computed: it goes from the records to the run and the export.
    assert "by dis (preset MEDIUM)" in (tmp_path / "served" / "1" / "model_card.md").read_text()
    video = min(videos.glob("*.mp4"))
    said = {
        succeed("predict", video, "--model", model, "--json-lines", *given)
        for model in (teacher, tmp_path / "served")
        for given in ((), ("--flow-algorithm", "dis"))
    }
    assert [len(lines.splitlines()) > 0 for lines in said] == [True]


def test_a_pair_is_exported_as_one_model_that_adds_logits(
    teacher: Path, both: Path, tiny_run: Path, tmp_path: Path
) -> None:
    from kdant_tf.evaluation.evaluate import predict_run
    from kdant_tf.evaluation.predictions import fuse
    from kdant_tf.models.inference import open_inference
    from kdant_tf.models.networks import load_network
    from kdant_tf.runs import load_run
    from tf_records.records import Records

    pair = ("--with", tiny_run, "--fusion-weights", "0.5,2", "--records", both)
    printed = json.loads(succeed("export", teacher, *pair, "--out", tmp_path / "served", "--json"))
    assert printed["modality"] == "rgb,flow"
    assert (printed["run"]["weight"], printed["with"]["weight"]) == (2, 0.5)
    serve = tf.saved_model.load(printed["folder"]).signatures["encoded"]
    record = next(iter(tf.data.TFRecordDataset([str(path) for path in sorted(both.glob("test-*"))])))
    lists = tf.train.SequenceExample.FromString(record.numpy()).feature_lists.feature_list
    images, u, v = (
        [feature.bytes_list.value[0] for feature in lists[f"observed/{name}/encoded"].feature]
        for name in ("image", "flow/u", "flow/v")
    )
    answer = serve(frames=tf.constant([images]), flow_frames=tf.constant([list(zip(u, v, strict=True))]))
    records, streams = Records.open(both), []
    for run in map(load_run, (teacher, tiny_run)):
        network = load_network(run)
        given = {"network": network, "inference": open_inference(network)}
        streams.append(predict_run(run, records, view="observed", split="test", **given))
    expected = fuse(streams, (0.5, 2)).probabilities[0]
    np.testing.assert_allclose(answer["probabilities"][0], expected, atol=1e-5)
    assert "Two streams should agree in `clip`" in refuse("export", teacher, *change_clip(tiny_run, tmp_path))


def change_clip(run: Path, folder: Path) -> tuple[object, ...]:
    """Options of an export with a run that was trained on clips with another offset."""
    other = Path(shutil.copytree(run, folder / "other"))
    config = json.loads((other / "config.json").read_text())
    config["clip"]["offset_frames"] += 1
    (other / "config.json").write_text(json.dumps(config))
    return "--with", other, "--out", folder / "never"


def test_a_flow_network_is_drawn_over_frames_where_the_records_have_them(
    teacher: Path, both: Path, tmp_path: Path
) -> None:
    succeed(
        "visualize", teacher, "--records", both, "--out", tmp_path / "out", "--pictures", "heat-maps,drift"
    )
    with Image.open(tmp_path / "out" / "heat_maps.png") as picture:
        assert picture.height > picture.width / 2
    assert len(list((tmp_path / "out").glob("drift_*.png"))) == 4


def test_a_run_is_not_resumed_in_another_modality(both: Path, teacher: Path) -> None:
    message = refuse(
        "train-teacher", "--records", both, "--out", teacher, "--resume", "--modality", "rgb", *SMALL
    )
    assert "modality 'flow' → 'rgb'" in message


def test_teacher_student_and_records_of_different_modalities_are_refused(
    both: Path, teacher: Path, record_folder: Path, tmp_path: Path
) -> None:
    distill = ("distill", "--teacher", teacher, "--out", tmp_path / "student")
    message = refuse(*distill, "--records", both, "--modality", "rgb")
    assert "sees flow, the student would see rgb. Leave `modality` out" in message
    assert "the run wants 'flow'" in refuse(*distill, "--records", record_folder)
    message = refuse("evaluate", teacher, "--records", record_folder)
    assert "wants modality flow, records" in message
    assert "have modality rgb" in message
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("model", ["tsn", "frame-mlp"])
def test_networks_for_rgb_are_refused_on_flow(both: Path, tmp_path: Path, model: str) -> None:
    run = tmp_path / "run"
    message = refuse("train-teacher", "--records", both, "--out", run, "--modality", "flow", "--model", model)
    assert f"tsn and frame-mlp see RGB. Received: '{model}'" in message
    assert not run.exists()


def test_kinetics_weights_are_those_of_the_flow_network(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdant_tf.models import weights
    from kdant_tf.models.weights import WeightsError

    def fetch(modality: str) -> str:
        raise WeightsError(f"wanted the {modality} checkpoint")

    monkeypatch.setattr(weights, "fetch_kinetics_checkpoint", fetch)
    monkeypatch.setattr(weights, "check_published_width", lambda network: None)
    options = ("--modality", "flow", "--init", "kinetics", "--width", "0.0625", *SMALL[2:])
    message = refuse("train-teacher", "--records", both, "--out", tmp_path / "run", *options)
    assert "wanted the flow checkpoint" in message


def test_inspect_shows_the_algorithm_with_its_parameters(both: Path, record_folder: Path) -> None:
    assert "dis (preset MEDIUM), ±5 pixels, OpenCV" in succeed("inspect", both)
    printed = json.loads(succeed("inspect", both, "--json"))
    assert printed["modality"] == "rgb,flow"
    assert printed["flow"]["algorithm"] == "dis"
    assert json.loads(succeed("inspect", record_folder, "--json"))["flow"] is None


def test_an_algorithm_without_flow_is_wrong_usage(videos: Path, tmp_path: Path) -> None:
    source = ("--source", "synthetic", "--input", videos, "--out", tmp_path / "out")
    for option in (("--flow-algorithm", "dis"), ("--flow-bound", "5")):
        result = kdant("build-records", *source, *option)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{option[0]} is for --modality flow" in result.stderr


def test_flow_is_clipped_to_a_share_of_the_frame_or_to_what_is_asked_for(
    both: Path, teacher: Path, videos: Path, tmp_path: Path
) -> None:
    assert load_manifest(both).flow.bound == 20 * 64 / 256
    options = ("--modality", "flow", "--flow-algorithm", "dis", "--flow-bound", "2.5")
    asked_for = build(tmp_path / "records", videos, *options)
    assert load_manifest(asked_for).flow.bound == 2.5
    message = refuse("evaluate", teacher, "--records", asked_for)
    assert "±5 pixels" in message
    assert "±2.5 pixels" in message


def test_flow_without_opencv_is_refused_before_anything_is_made(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    source = ("--source", "synthetic", "--input", videos, "--out", tmp_path / "out")
    message = refuse("build-records", *source, "--modality", "flow")
    assert message.endswith("Install it: pip install 'kdant-tf[flow]'.")
    assert not (tmp_path / "out").exists()
