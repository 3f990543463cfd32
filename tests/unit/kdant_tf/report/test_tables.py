"""Tables of results, settings and studies, from run folders made by hand."""

import json

import pytest
from run_folders import evaluated

from kdant_tf.evaluation.metrics import CurvePoint, Interval
from kdant_tf.report.page import Picture, Table
from kdant_tf.report.tables import (
    about_tables,
    class_table,
    curve_table,
    difference_table,
    result_table,
    setting_tables,
    study_blocks,
)
from tf_records.errors import RunError


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


@pytest.fixture
def networks(tmp_path):
    """A student without a feature loss with half of four samples correct, and one with it, and all."""
    return [
        evaluated(tmp_path / "none", [0, 1, 0, 0], feature_loss="none"),
        evaluated(tmp_path / "both", [0, 1, 2, 3], feature_loss="bidirectional"),
    ]


def test_results_have_a_row_for_each_network_and_sort_by_number(networks):
    table = result_table(networks)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["network"].text == "none"
    assert row["top-1"].text.startswith("50.0 % (")
    assert row["top-1"].key == 0.5
    assert (row["samples"].text, row["videos"].text, row["chance"].text) == ("4", "4", "25.0 %")
    assert [table.is_numeric(number) for number in range(4)] == [False, False, False, True]


def test_a_result_of_an_earlier_release_has_empty_cells(networks):
    for name in ("top5_interval", "mean_top5_recall", "negative_log_likelihood", "videos"):
        del networks[0].result[name]
    table = result_table(networks)
    row = dict(zip(table.columns, texts(table)[0], strict=True))
    assert row["top-5"] == "100.0 %"
    assert row["mean top-5 recall"] == row["negative log likelihood"] == row["videos"] == ""


def test_differences_are_from_the_student_without_a_feature_loss(networks):
    table = difference_table(networks[::-1])
    assert table.caption == "Difference in top-1 accuracy from none, observed clip"
    ((name, points, p, only_this, only_other),) = texts(table)
    assert (name, p, only_this, only_other) == ("both, observed clip", "0.5", "2", "0")
    assert points.startswith("+50.0 (")
    assert difference_table(networks[:1]) is None
    assert difference_table([]) is None


def test_classes_have_the_accuracy_of_each_network(networks):
    table = class_table(networks)
    assert table.columns == ("class", "samples", "none, observed clip", "both, observed clip")
    assert texts(table)[2] == ["rise", "1", "0.0 %", "100.0 %"]
    for each in networks:
        del each.result["per_class"]
    assert class_table(networks) is None


def test_curves_have_a_row_for_each_place():
    points = [CurvePoint(x=x, top1=Interval(value=x / 2, low=0.1, high=0.9)) for x in (1.0, 0.2)]
    table = curve_table("share", {"R": points, "A": points[:1]})
    assert texts(table) == [
        ["0.2", "10.0 % (10.0 to 90.0)", ""],
        ["1", "50.0 % (10.0 to 90.0)", "50.0 % (10.0 to 90.0)"],
    ]


def test_settings_that_differ_stand_apart_from_those_that_are_shared(networks):
    runs = {each.name: each.run for each in networks}
    differing, shared = setting_tables(runs)
    # config.json has no folder, and both were made by the same command.
    assert differing.columns == ("run", "feature_loss")
    assert texts(differing) == [["none", "none"], ["both", "bidirectional"]]
    settings = dict(texts(shared))
    assert settings["classes"] == "4: fall, grow, rise, shrink"
    assert settings["execution: xla"] == "auto"
    assert settings["features"] == "none"
    (alone,) = setting_tables({"none": networks[0].run})
    assert dict(texts(alone))["feature_loss"] == "none"


def cell_of(values, published=None, difference=None):
    ours = {"mean": sum(values) / len(values), "sd": 0.125, "places": len(values)} if values else None
    return {
        "ours": ours,
        "values": [{"value": value} for value in values],
        "difference": difference,
        "published": published,
        "published_difference": None,
    }


def test_a_studys_table_has_ours_the_difference_and_the_papers_and_bars_above(tmp_path):
    gain = {"value": 0.01, "low": -0.02, "high": -1e-9}
    rows = [
        {"name": "none", "title": "None", "reference": None, "columns": {"RGB": cell_of([0.25, 0.75], 0.7)}},
        {"name": "x", "title": "X", "reference": "none", "columns": {"RGB": cell_of([0.5], None, gain)}},
    ]
    fields = {"title": "Table 1", "scale": "tiny", "published_source": "§4.2", "rows": rows, "missing": ["y"]}
    (tmp_path / "table1.json").write_text(json.dumps(fields))
    (tmp_path / "sweep.json").write_text(json.dumps({"title": "Sweep", "scale": "tiny"}))
    (tmp_path / "sweep.csv").write_text("scale,feature_loss,accuracy\ntiny,direct,0.123456\n")
    picture, table, plain = study_blocks(tmp_path, {"table1": {}, "absent": {}, "sweep": {}})
    assert isinstance(picture, Picture)
    assert picture.alt.startswith("Table 1: a bar for each method.")
    assert table.columns == ["method", "RGB", "RGB, runs", "RGB, difference", "RGB, paper"]
    assert texts(table) == [
        ["None", "50.0 ± 12.5", "2", "", "70.0"],
        ["X", "50.0 ± 12.5", "1", "+1.0 (-2.0 to +0.0)", ""],
    ]
    for part in ("Difference from None", "Paper: §4.2.", "1 runs are not finished"):
        assert part in table.note
    assert (plain.columns, texts(plain)) == (["feature loss", "accuracy"], [["direct", "0.1235"]])
    (tmp_path / "table1.json").write_text("{")
    with pytest.raises(RunError, match=r"table1.json cannot be read.*kdant reproduce table1"):
        study_blocks(tmp_path, {"table1": {}})


def test_how_a_table_was_made_is_listed():
    (table,) = about_tables({"table1": {"scale": "tiny", "hardware": {"cpus": 2}, "runs": [{"name": "a"}]}})
    assert table.caption == "How table1 was made"
    assert texts(table) == [["scale", "tiny"], ["hardware: cpus", "2"]]
