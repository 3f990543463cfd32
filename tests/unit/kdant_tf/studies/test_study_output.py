"""A study's table from prediction files made by hand: arithmetic, CSV, JSON, LaTeX."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from kdant_tf.evaluation.predictions import Predictions, save_predictions
from kdant_tf.studies.results import ResultTable, caption, escape_tex, summarize, to_csv, to_tex, write_table
from kdant_tf.studies.study_plan import Place, Study, TableColumn, TableRow, run_folder, run_name
from tf_records.errors import RunError

LABELS = np.array([0, 0, 1, 1])
PLACES = (Place("1", 0), Place("1", 1))


def save(
    folder: Path, stream: str, place: Place, network: str, first: list[float], ids: str = "abcd"
) -> None:
    """Predictions of two classes; `first` has the probability of class 0."""
    probabilities = np.stack([first, 1 - np.array(first)], axis=1)
    predictions = Predictions(
        probabilities=probabilities, labels=LABELS, ids=np.array(list(ids)), videos=np.array(list(ids))
    )
    run = run_folder(folder, run_name(stream, place, network))
    run.mkdir(parents=True, exist_ok=True)
    save_predictions(run / "predictions.npz", "observed/test", predictions)


@pytest.fixture
def study() -> Study:
    return Study(
        name="table1",
        title="Made up & <small>",
        scale="tiny (crop 32)",
        source="nobody, Table 0",
        places=PLACES,
        runs=(),
        rows=(
            TableRow(name="old", title="old_method 20 %", published={"RGB": 0.05}),
            TableRow(name="none", title="student none", network="none"),
            TableRow(
                name="new", title="student new", network="new", reference="none", published={"RGB": 0.702}
            ),
        ),
        columns=(
            TableColumn(name="RGB", streams=("rgb",)),
            TableColumn(name="Flow", streams=("flow",)),
            TableColumn(name="Both", streams=("rgb", "flow")),
        ),
    )


@pytest.fixture
def table(tmp_path: Path, study: Study) -> ResultTable:
    for place in PLACES:
        save(tmp_path, "rgb", place, "none", [0.9, 0.4, 0.6, 0.2])  # right, wrong, wrong, right
        save(tmp_path, "flow", place, "none", [0.9, 0.8, 0.6, 0.2])
    save(tmp_path, "rgb", PLACES[0], "new", [0.9, 0.6, 0.6, 0.2])
    save(tmp_path, "rgb", PLACES[1], "new", [0.9, 0.6, 0.1, 0.2])
    save(tmp_path, "flow", PLACES[0], "new", [0.1, 0.1, 0.1, 0.1])
    return summarize(study, tmp_path)


def test_accuracies_are_averaged_and_compared_sample_by_sample(table: ResultTable) -> None:
    none, new = table.cells["none", "RGB"], table.cells["new", "RGB"]
    assert none.ours is not None
    assert (none.ours.mean, none.ours.sd, none.difference) == (0.5, 0.0, None)
    assert new.ours is not None
    assert new.ours.mean == pytest.approx((0.75 + 1) / 2)
    assert new.ours.sd == pytest.approx(np.std([0.75, 1], ddof=1))
    assert new.difference is not None
    assert new.difference.value == pytest.approx(0.375)
    assert new.difference_average is not None
    assert new.difference_average.sd == pytest.approx(np.std([0.25, 0.5], ddof=1))
    assert new.published == 0.702


def test_streams_are_added(table: ResultTable) -> None:
    both = table.cells["none", "Both"].ours
    # Sample 2: 0.4 · 0.8 against 0.6 · 0.2; sample 3: 0.6² against 0.4².
    assert both is not None
    assert both.mean == 0.75


def test_what_is_missing_is_named_and_the_rest_is_there(table: ResultTable) -> None:
    assert table.missing == ("flow-split1-seed1-new",)
    flow, both = table.cells["new", "Flow"].ours, table.cells["new", "Both"].ours
    assert flow is not None
    assert both is not None
    assert (flow.places, both.places) == (1, 1)
    difference = table.cells["new", "Flow"].difference
    assert difference is not None
    assert difference.value == pytest.approx(0.5 - 0.75)  # at the one place that has both


def test_rows_of_the_literature_have_only_what_is_published(table: ResultTable) -> None:
    old = table.cells["old", "RGB"]
    assert (old.ours, old.difference, old.published) == (None, None, 0.05)


def test_other_samples_are_refused(tmp_path: Path, study: Study) -> None:
    save(tmp_path, "rgb", PLACES[0], "none", [0.9] * 4)
    save(tmp_path, "rgb", PLACES[0], "new", [0.9] * 4, ids="abce")
    with pytest.raises(RunError, match="same samples"):
        summarize(study, tmp_path)


def test_csv_and_json_agree(tmp_path: Path, table: ResultTable) -> None:
    paths = write_table(tmp_path, table, {"versions": {"kdant": "1"}})
    assert [path.name for path in paths] == ["table1.csv", "table1.json", "table1.tex"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert len(rows) == 9
    assert {row["scale"] for row in rows} == {"tiny (crop 32)"}
    kept = json.loads(paths[1].read_text())
    assert (kept["scale"], kept["versions"]) == ("tiny (crop 32)", {"kdant": "1"})
    new = kept["rows"][2]["columns"]["RGB"]
    (line,) = (row for row in rows if (row["row"], row["column"]) == ("new", "RGB"))
    assert float(line["mean"]) == new["ours"]["mean"]
    assert float(line["difference_low"]) == new["difference"]["low"]
    assert [at["seed"] for at in new["values"]] == [0, 1]
    assert rows[0]["mean"] == ""
    assert to_csv(table) == paths[0].read_text()


def test_latex_is_escaped_and_says_the_scale(table: ResultTable) -> None:
    text = re.sub(" +", " ", to_tex(table))
    assert r"\caption{Made up \& \textless{}small\textgreater{}. Scale tiny (crop 32)." in text
    assert r"old\_method 20 \% & RGB & & & 5.0 \\" in text
    assert r"student none & Both & 75.0 $\pm$ 0.0 & & \\" in text
    assert r"student new & RGB & 87.5 $\pm$ 17.7 & +37.5 [" in text
    assert text.count(r"\\") == 10
    assert "±" not in text


def test_every_special_character_is_escaped() -> None:
    assert escape_tex(r"a_b&c%$#{}~^\<>|±") == (
        r"a\_b\&c\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}\textbar{}$\pm$"
    )


def test_the_caption_says_over_what_it_spreads(table: ResultTable) -> None:
    assert "mean ± standard deviation over seeds; paper: nobody, Table 0." in caption(table)
