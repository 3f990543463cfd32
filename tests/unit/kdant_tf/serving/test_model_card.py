"""The model card tells a stranger what the model is, whatever is known of it."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdant_tf.runs import Run, load_run, weights_sha256
from kdant_tf.serving.model_card import write_card
from tf_records.errors import RunError
from tf_records.schema import FlowInfo

FLOW = FlowInfo(algorithm="dis", parameters={"preset": 1}, bound=20.0, opencv="4.10")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    """A run of its own folder, that may get an evaluation."""
    (tmp_path / "student").mkdir()
    for name in ("config.json", "model.keras"):
        (tmp_path / "student" / name).write_bytes((tiny_run / name).read_bytes())
    return load_run(tmp_path / "student")


def stream(run: Run, *, weight: float = 1.0, crop: int | None = 32) -> Any:
    return SimpleNamespace(run=run, weight=weight, crop=crop)


def config_of(run: Run, **changes: Any) -> dict[str, Any]:
    tensor = {"clips": {"dtype": "uint8", "shape": [None, 8, None, None, 3]}}
    return {
        "kdant": "0",
        "classes": list(run.classes),
        "clip": {**dataclasses.asdict(run.clip), "fps": run.fps},
        "offset_s": 0.8,
        "anticipates": True,
        "modality": "rgb",
        "flow": None,
        "short_side": 64,
        "role": "student",
        "signatures": {"serving_default": {"inputs": tensor, "outputs": {}}},
        **changes,
    }


def test_a_student_that_was_not_evaluated(run: Run) -> None:
    card = write_card([stream(run)], config_of(run))
    for text in (
        "# Anticipates 4 actions in video",
        "clips of 8 frames at 20 frames per second",
        "expected 0.8 s after the clip's first frame",
        "| `serving_default` | `clips` uint8 (?, 8, ?, ?, 3) |",
        "fall, grow, rise, shrink",
        f"None was made. `kdant evaluate {run.folder.name} ",
        "the square in the middle",
        "## Settings of student",
        "| width | 0.0625 |",
    ):
        assert text in card


def test_a_teacher_names_what_it_sees(run: Run) -> None:
    card = write_card([stream(run, crop=None)], config_of(run, anticipates=False, role="teacher"))
    assert "# Recognizes 4 actions in video" in card
    assert "It names the action that the clip shows." in card
    assert "the square in the middle" not in card


def test_a_run_that_knows_no_frame_rate_says_so(run: Run) -> None:
    clip = {"clip_frames": 8, "offset_frames": 16, "anticipation_s": None, "fps": None}
    card = write_card([stream(run)], config_of(run, clip=clip, offset_s=None))
    assert "an unknown number of frames per second" in card
    assert "expected 16 frames after the clip's first frame" in card
    assert "which its run does not know" in card
    later = {**clip, "offset_frames": None, "anticipation_s": 1.5}
    card = write_card([stream(run)], config_of(run, clip=later, offset_s=None))
    assert "expected 1.5 s after the clip's last frame" in card


def test_a_pair_tells_weights_and_how_flow_is_computed(run: Run) -> None:
    flow = dataclasses.replace(run, modality="flow", flow=FLOW)
    changes = {"modality": "rgb,flow", "flow": dataclasses.asdict(FLOW)}
    card = write_card([stream(run), stream(flow, weight=1.5)], config_of(run, **changes))
    assert "i3d on RGB and i3d on optical flow" in card
    assert "Their logits are added with weights 1, 1.5." in card
    assert "by dis (preset 1), ±20 pixels, OpenCV 4.10" in card


def test_what_was_evaluated_is_a_table_and_cells_keep_their_bars(run: Run) -> None:
    result = {"top1": 0.625, "top1_interval": [0.5, 0.75], "top5": 1.0, "mean_class_accuracy": 0.5}
    kept = {"observed": {**result, "samples": 8, "split": "test", "windows": 5}}
    (run.folder / "evaluation.json").write_text(json.dumps(kept))
    row = "| student | observed | test | 8 | 5 | 62.5 % (50.0 to 75.0) | 100.0 % | 50.0 % |"
    assert row in write_card([stream(run)], config_of(run))
    named = dataclasses.replace(run, dataset="a|b")
    assert "a\\|b" in write_card([stream(named)], config_of(run))
    (run.folder / "evaluation.json").write_text("{")
    with pytest.raises(RunError, match=r"evaluation\.json cannot be read"):
        write_card([stream(run)], config_of(run))


def test_results_of_an_earlier_network_are_named_and_not_shown(run: Run) -> None:
    """As after a training that went on."""
    current = {"top1": 0.5, "samples": 8, "split": "test", "weights_sha256": weights_sha256(run.model_path)}
    earlier = {**current, "top1": 0.125, "weights_sha256": "0" * 64}
    (run.folder / "evaluation.json").write_text(json.dumps({"observed": current, "future": earlier}))
    card = write_card([stream(run)], config_of(run))
    assert "50.0 %" in card
    assert "12.5 %" not in card
    assert "Left out, being of an earlier network: student, future." in card
    (run.folder / "evaluation.json").write_text(json.dumps({"observed": earlier}))
    card = write_card([stream(run)], config_of(run))
    assert f"Only of an earlier network (student, observed). `kdant evaluate {run.folder.name} " in card
    assert "12.5 %" not in card


def test_a_network_put_into_its_run_is_said(run: Run) -> None:
    words = "Not of the network exported, which was put into its run later: student."
    for digest, said in ((None, False), (weights_sha256(run.model_path), False), ("0" * 64, True)):
        named = dataclasses.replace(run, network_sha256=digest)
        assert (words in write_card([stream(named)], config_of(run))) is said


def test_what_to_type_can_be_pasted(run: Run) -> None:
    """Where the folder's name has spaces, too."""
    named = run.folder.rename(run.folder.parent / "my student")
    card = write_card([stream(load_run(named))], config_of(run))
    assert f"`kdant evaluate '{named.name}' --records …`" in card


def test_records_that_were_insisted_on_are_said(run: Run) -> None:
    differences = ["their clips have offset 20, the run's offset 5"]
    result = {"split": "test", "samples": 8, "top1": 0.5, "differences": differences}
    (run.folder / "evaluation.json").write_text(json.dumps({"observed": result}))
    card = write_card([stream(run)], config_of(run))
    assert "student, observed clip: not evaluated as it was trained: their clips" in card
