"""The Python of the guides is typed as it stands there."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import keras
import pytest

import kdant_tf as kdant
from tf_records.errors import AnnotationError
from tf_records.manifest import load_manifest

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


def python_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (GUIDES / f"{page}.md").read_text("utf-8"), re.M | re.S)


def run(code: str, name: str = "__main__") -> None:
    exec(compile(code, "<guide>", "exec"), {"__name__": name})


def test_your_own_source(videos, tmp_path, monkeypatch, capsys):
    source, build = python_of("your-own-source")
    shutil.copytree(videos, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "annotations.csv").open() as file:
        rows = list(csv.DictReader(file))
    actions = [
        {
            "video": row["video"],
            "split": row["split"],
            "actions": [{"name": row["label"] or None, "from": float(row["start_s"]), "to": 2.0}],
        }
        for row in rows
    ]
    (tmp_path / "actions.json").write_text(json.dumps(actions))
    (tmp_path / "json_source.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run(build)
    assert capsys.readouterr().out == "fall, grow, rise, shrink {'train': 16, 'test': 8}\n"
    assert load_manifest(tmp_path / "records").splits["train"].unlabeled == 4
    (tmp_path / "actions.json").write_text(json.dumps([{**actions[0], "video": "gone.mp4"}]))
    with pytest.raises(AnnotationError, match=r"video 1: 'gone.mp4' does not exist"):
        run(build)
    sys.modules.pop("json_source")


def test_your_own_network_and_your_own_loss(record_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "records").symlink_to(record_folder, target_is_directory=True)
    (tmp_path / "mynet.py").write_text(python_of("your-own-network")[0])
    monkeypatch.chdir(tmp_path)
    kdant.train("records", "teacher", model="mynet:build", crop=40, epochs=1, batch_size=4)
    kdant.distill("records", "student", teacher="teacher", epochs=1, batch_size=4)
    capsys.readouterr()
    in_keras, own_loop, with_distiller, own_in_distiller = python_of("your-own-loss")
    run(in_keras)
    first, last = json.loads(capsys.readouterr().out)
    assert 0 < last < first
    run(own_loop)
    *epochs, top1 = capsys.readouterr().out.splitlines()
    pattern = r"epoch \d: classification \d\.\d{3}, features \d\.\d{3}"
    assert all(re.fullmatch(pattern, line) for line in epochs)
    assert len(epochs) == 2
    assert re.fullmatch(r"top-1 \d+\.\d%", top1)
    assert "logits" in keras.models.load_model("student-cosine.keras").output
    run(with_distiller)
    assert "'feature_loss': [" in capsys.readouterr().out
    run(own_in_distiller)
    assert 0 < json.loads(capsys.readouterr().out)[0] < 2  # of one minus a cosine
