"""From records and networks to runs: names, order, and where settings come from."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from kdant_tf.config import TrainConfig, config_from_dict, resolve_config
from kdant_tf.losses import FEATURE_LOSS_NAMES
from kdant_tf.studies.loss_study import LOSS_PRESETS, WAYS, plan_losses
from kdant_tf.studies.paper_tables import (
    TABLE1_PRESETS,
    TABLE3_PRESETS,
    plan_figure4,
    plan_table1,
    plan_table2,
    plan_table3,
)
from kdant_tf.studies.study_folder import to_toml
from kdant_tf.studies.study_plan import (
    Network,
    Place,
    RecordSource,
    StudySettings,
    places_of,
    plan_runs,
    read_sources,
)
from tf_records.errors import KdantError
from tf_records.schema import FeatureInfo

TEACHER = Network(name="teacher", role="teacher", views=("future",))
STUDENT = Network(name="direct", role="student", settings={"feature_loss": "direct"}, teacher="teacher")


def test_runs_go_seed_by_seed_and_teachers_first(record_folder: Path) -> None:
    sources = [
        RecordSource(split="1", records={"rgb": record_folder}, seeds=(0, 5)),
        RecordSource(split="2", records={"rgb": record_folder}, seeds=(3,)),
    ]
    assert places_of(sources) == (Place("1", 0), Place("2", 3), Place("1", 5))
    runs = plan_runs([TEACHER, STUDENT], sources, StudySettings())
    assert [spec.name for spec in runs] == [
        *("rgb-split1-seed0-teacher", "rgb-split1-seed0-direct"),
        *("rgb-split2-seed3-teacher", "rgb-split2-seed3-direct"),
        *("rgb-split1-seed5-teacher", "rgb-split1-seed5-direct"),
    ]
    assert runs[3].teacher == runs[2].name
    assert (runs[3].config.seed, runs[3].config.label_seed, runs[3].config.modality) == (3, 3, "rgb")


def test_settings_are_preset_then_scale_then_file_then_the_networks_own(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("epochs = 7\nfeature_loss = 'none'\n[teacher]\nlearning_rate = 0.5\n")
    settings = StudySettings(presets={"flow": "jhmdb-flow"}, scale="small", file=file, label_fraction=0.5)
    student = settings.resolve(STUDENT, "flow", 2, features=False)
    assert (student.crop, student.width, student.init) == (112, 0.25, "random")
    assert (student.epochs, student.decay_epochs, student.feature_loss) == (7, (30,), "direct")
    assert (student.modality, student.label_fraction, student.weight_decay) == ("flow", 0.5, 1e-5)
    assert settings.resolve(TEACHER, "flow", 2, features=False).learning_rate == 0.5
    plain = StudySettings(presets=TABLE1_PRESETS).resolve(TEACHER, "rgb", 0, features=False)
    assert (plain.init, plain.crop, plain.width, plain.epochs) == ("kinetics", 224, 1.0, 80)
    demo = StudySettings(preset="demo-tiny", presets=TABLE1_PRESETS).resolve(
        TEACHER, "rgb", 0, features=False
    )
    assert (demo.crop, demo.feature_weight) == (32, 3.0)


def test_features_keep_their_stems_size() -> None:
    config = StudySettings(preset="epic55", scale="small").resolve(TEACHER, "rgb", 0, features=True)
    assert (config.crop, config.width, config.init, config.epochs) == (224, 1.0, "kinetics", 40)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(modality="flow", decay_epochs=(), alpha=0.5, projection=True, init='a "path" ü'),
        TrainConfig(epochs=3, decay_epochs=(1, 2), learning_rate=1e-12, width=1 / 3, validation_split="val"),
    ],
)
def test_settings_survive_their_file(config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(config, "a comment\nof two lines"))
    assert resolve_config("student", file=path) == config
    assert config_from_dict(tomllib.loads(path.read_text())) == config


def test_table1_and_table2_share_their_runs(record_folder: Path) -> None:
    source = RecordSource(split="1", records={"rgb": record_folder, "flow": record_folder}, seeds=(0,))
    first, second = (plan([source], StudySettings(scale="small")) for plan in (plan_table1, plan_table2))
    assert len(first.runs) == 2 * 5
    assert set(map(str, second.runs)) < set(map(str, first.runs))
    assert [column.name for column in first.columns] == ["RGB", "Flow", "Both"]
    assert second.columns[0].streams == ("rgb", "flow")
    assert (second.rows[-1].published, len(second.rows)) == ({"top-1": 0.759}, 9)
    assert second.rows[0].title == "DP-SVM (Soomro et al. 2019), as published"
    assert first.scale == "small (crop 112, width 0.25, 40 epochs)"


def test_the_loss_study_has_every_loss_and_no_two_students_alike(record_folder: Path) -> None:
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(0, 1))
    settings = StudySettings(presets=LOSS_PRESETS, label_fraction=0.25)
    study = plan_losses([source], settings, ("none", "bidirectional-l2"))
    assert [spec.name for spec in study.runs if spec.config.seed == 1] == [
        "rgb-split1-seed1-teacher",
        "rgb-split1-seed1-none",
        "rgb-split1-seed1-bidirectional-l2",
    ]
    config = study.runs[-1].config
    assert (config.feature_loss, config.feature_normalization) == ("bidirectional", "l2")
    assert (config.model, config.label_fraction, config.label_seed) == ("features3d", 0.25, 1)
    assert {row.name: row.reference for row in study.rows} == {"none": None, "bidirectional-l2": "none"}
    from_labels = plan_losses([source], settings, ("teacher", "labels", "none"), reference="labels")
    references = {row.name: row.reference for row in from_labels.rows}
    assert references == {"teacher": "labels", "labels": None, "none": "labels"}
    whole = plan_losses([source], settings)
    assert {own["feature_loss"] for own in WAYS.values()} == set(FEATURE_LOSS_NAMES)
    assert len({repr(sorted(own.items())) for own in WAYS.values()}) == len(WAYS)
    assert len(whole.runs) == 2 * (2 + len(WAYS))
    assert "25 % of the labels" in whole.scale


def test_the_scale_names_what_it_changed(record_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("epochs = 5")
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(0,))
    settings = StudySettings(preset="jhmdb-small", file=file, label_fraction=0.5)
    assert plan_table1([source], settings).scale == (
        "preset jhmdb-small, with own.toml, 50 % of the labels (crop 112, width 0.25, 5 epochs)"
    )


def test_sizes_that_runs_do_not_share_are_all_named(record_folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[student]\nepochs = 5\n")
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(0,))
    scale = plan_table1([source], StudySettings(scale="tiny", file=own)).scale
    assert scale == "tiny, with own.toml (crop 32, width 0.0625, 1 or 5 epochs)"


def test_a_row_of_the_literature_alone_still_trains_ours(record_folder: Path) -> None:
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(0,))
    study = plan_table1([source], StudySettings(), ["recognition"])
    assert [spec.name for spec in study.runs] == ["rgb-split1-seed0-teacher"]
    assert [column.name for column in study.columns] == ["RGB"]


def test_table3_learns_from_labels_alone_with_a_students_settings(record_folder: Path) -> None:
    source = RecordSource(split="1", records={"rgb": record_folder, "flow": record_folder}, seeds=(0,))
    study = plan_table3(
        [source],
        StudySettings(presets=TABLE3_PRESETS),
    )
    teacher, tsn, i3d, distilled = study.runs
    assert (teacher.role, teacher.views, teacher.config.learning_rate) == ("teacher", ("future",), 0.1)
    assert (i3d.role, i3d.views, i3d.config.teacher_view) == ("teacher", ("observed",), "observed")
    assert {run.config.learning_rate for run in (tsn, i3d, distilled)} == {0.001}
    assert (tsn.config.model, tsn.config.init, i3d.config.init) == ("tsn", "imagenet", "kinetics")
    assert (distilled.teacher, distilled.config.feature_loss) == (teacher.name, "bidirectional")
    assert [column.k for column in study.columns] == [1, 5]
    assert study.rows[-1].published == {"top-1": 0.318, "top-5": 0.744}
    only = plan_table3([source], StudySettings(presets=TABLE3_PRESETS), ["i3d", "distilled"])
    assert [spec.name.rsplit("-", 1)[-1] for spec in only.runs] == ["teacher", "i3d", "distilled"]


def test_tsn_sees_frames_where_the_others_see_features(
    record_folder: Path, tmp_path: Path, edit_manifest: Callable[..., None]
) -> None:
    features = tmp_path / "features"
    features.mkdir()
    (features / "manifest.json").write_bytes((record_folder / "manifest.json").read_bytes())
    info = FeatureInfo(
        shape=(1, None, None, 480), source="kinetics", per="clip", endpoint="MaxPool3d_4a_3x3", width=1.0
    )
    edit_manifest(features, features=info)
    source = RecordSource(split="1", records={"rgb": features}, seeds=(0,))
    with pytest.raises(KdantError, match="TSN-RGB sees frames"):
        plan_table3([source], StudySettings(presets=TABLE3_PRESETS))
    study = plan_table3([source], StudySettings(presets=TABLE3_PRESETS), frame_records=[record_folder])
    folders = {spec.name.rsplit("-", 1)[-1]: spec.records for spec in study.runs}
    assert folders == dict.fromkeys(("teacher", "i3d", "distilled"), features) | {"tsn": record_folder}


def test_figure4_has_half_of_the_labels_but_where_it_has_all(record_folder: Path) -> None:
    source = RecordSource(split="1", records={"rgb": record_folder}, seeds=(3,))
    study = plan_figure4([source], StudySettings())
    configs = {spec.name.partition("seed3-")[2]: spec.config for spec in study.runs}
    assert list(configs) == [
        *("resnet-half", "resnet-teacher", "resnet-distilled", "resnet-all"),
        *("i3d-half", "i3d-teacher", "i3d-distilled", "i3d-all"),
    ]
    assert {name for name, config in configs.items() if config.label_fraction == 1} == {
        *("resnet-all", "i3d-all")
    }
    assert {config.label_seed for config in configs.values()} == {3}
    assert configs["resnet-distilled"].model == "frame-mlp"
    assert configs["i3d-half"].teacher_view == configs["i3d-all"].teacher_view == "observed"
    assert configs["i3d-teacher"].teacher_view == "future"
    by_name = {row.name: row for row in study.rows}
    assert by_name["i3d-all"].published_difference == {"top-1": 0.014}
    assert by_name["resnet-distilled"].reference == "resnet-half"
    with pytest.raises(KdantError, match="sets the share of the labels itself"):
        plan_figure4([source], StudySettings(label_fraction=0.5))


@pytest.fixture
def of_split(tmp_path: Path, record_folder: Path, edit_manifest: Callable[..., None]) -> Callable[..., Path]:
    """Makes a record folder, without shards, of a split of JHMDB."""

    def make(split: int, modality: str = "rgb") -> Path:
        folder = tmp_path / f"{modality.replace(',', '-')}-{split}"
        folder.mkdir()
        (folder / "manifest.json").write_bytes((record_folder / "manifest.json").read_bytes())
        edit_manifest(folder, options={"split": split}, modality=modality)
        return folder

    return make


def test_folders_are_sorted_by_split_and_stream(of_split: Callable[..., Path]) -> None:
    rgb = [of_split(1), of_split(3)]
    flow = [of_split(3, "flow"), of_split(1, "flow")]
    sources = read_sources(rgb, flow, seeds=[(0, 1), (2,)])
    assert [(source.split, source.seeds) for source in sources] == [("1", (0, 1)), ("3", (2,))]
    assert sources[0].records == {"rgb": rgb[0], "flow": flow[1]}
    (only,) = read_sources(rgb, seeds=[(0,)], splits=["3"])
    assert only.split == "3"
    both = of_split(2, "rgb,flow")
    (source,) = read_sources([both], seeds=[(0,)])
    assert source.records == {"rgb": both, "flow": both}
    (source,) = read_sources([both], seeds=[(0,)], streams=["flow"])
    assert source.records == {"flow": both}


def test_folders_that_do_not_fit_are_refused(of_split: Callable[..., Path]) -> None:
    one, two, flow = of_split(1), of_split(2), of_split(2, "flow")
    with pytest.raises(KdantError, match=r"Every split should have the same streams\. Received: 1: rgb; 2:"):
        read_sources([one, two], [flow], seeds=[(0,)])
    with pytest.raises(KdantError, match="of which there is no --records"):
        read_sources([one], [flow], seeds=[(0,)])
    with pytest.raises(KdantError, match="1: nothing"):
        read_sources([one], seeds=[(0,)], streams=["flow"])
