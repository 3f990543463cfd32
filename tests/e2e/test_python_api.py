"""README's Python runs as it stands there, and `import kdant_tf` offers its names without TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from readme_python import readme_python

import kdant_tf


@pytest.mark.timeout(900)
def test_the_python_of_the_readme_runs(record_folder: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "records").symlink_to(record_folder, target_is_directory=True)
    (tmp_path / "video.mp4").symlink_to(min(videos.glob("*.mp4")))
    done = subprocess.run(
        [sys.executable, "-c", readme_python()], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    accuracy, *answers, loss, history = done.stdout.splitlines()
    assert float(loss.removeprefix("bidirectional loss ")) > 0
    assert accuracy.startswith("top-1 ")
    assert answers
    assert all("probably" in answer for answer in answers)
    assert {"loss", "accuracy", "classification_loss", "feature_loss"} <= set(ast.literal_eval(history))
    assert (tmp_path / "served" / "1" / "saved_model.pb").is_file()


def test_every_public_name_is_there_and_the_list_is_whole() -> None:
    assert set(kdant_tf.__all__) == set(kdant_tf._DEFINED) | {"__version__"}
    without = [name for name in kdant_tf._DEFINED if "Example:" not in getattr(kdant_tf, name).__doc__]
    assert without == []
    assert set(kdant_tf.__all__) <= set(dir(kdant_tf))
    with pytest.raises(AttributeError, match="no attribute 'build_i4d'"):
        _ = kdant_tf.build_i4d


def test_errors_are_the_sentences_of_the_command_line(record_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(kdant_tf.KdantError, match=r"unknown setting `epoch`. Did you mean `epochs`\?"):
        kdant_tf.train(record_folder, tmp_path / "run", epoch=2)
    with pytest.raises(kdant_tf.KdantError, match="There is no preset 'jhmdb-smal'"):
        kdant_tf.train(str(record_folder), str(tmp_path / "run"), preset="jhmdb-smal")
    with pytest.raises(kdant_tf.KdantError, match=r"Run folder .*nowhere does not exist"):
        kdant_tf.distill(record_folder, tmp_path / "run", teacher=tmp_path / "nowhere")
    with pytest.raises(kdant_tf.KdantError, match=r"Run folder .*nowhere does not exist"):
        kdant_tf.evaluate(tmp_path / "nowhere", record_folder)
    assert not (tmp_path / "run").exists()


def test_a_loaded_run_has_its_network(tiny_run: Path) -> None:
    run = kdant_tf.load_run(str(tiny_run))
    assert run.model is run.model
    assert run.model.output["logits"].shape == (None, len(run.classes))
