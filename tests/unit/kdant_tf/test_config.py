"""Where settings come from, and which are refused."""

import dataclasses
import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.config import (
    STUDENT,
    TEACHER,
    ConfigError,
    Execution,
    TrainConfig,
    config_from_dict,
    preset_names,
    resolve_config,
)
from kdant_tf.losses import FEATURE_LOSS_NAMES
from tf_records.errors import KdantError


@pytest.fixture
def toml(tmp_path):
    """Writes a configuration file and returns its path."""

    def write(text: str):
        path = tmp_path / "settings.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_without_sources_the_defaults_hold():
    assert resolve_config(TEACHER) == TrainConfig()


def test_each_source_overrides_the_one_before(toml):
    # demo-tiny sets width 0.0625, crop 32, epochs 2; its dropout is left to the others below.
    file = toml("epochs = 7\nbatch_size = 4\n")
    inherited = {"width": 0.5, "crop": 64, "alpha": 0.3}
    config = resolve_config(
        STUDENT, inherited=inherited, preset="demo-tiny", file=file, options={"batch_size": 2, "seed": None}
    )
    assert config.momentum == TrainConfig().momentum  # default
    assert config.alpha == 0.3  # inherited over default
    assert (config.width, config.crop) == (0.0625, 32)  # preset over inherited
    assert config.epochs == 7  # file over preset
    assert config.batch_size == 2  # option over file
    assert config.seed == TrainConfig().seed  # an option of None was not given


def test_epochs_go_through_the_views_in_turn_or_draw_anew():
    assert [TrainConfig(views=3).draw_at(epoch) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [TrainConfig().draw_at(epoch) for epoch in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r"`views` should be 0 or more\. Received: -1"):
        TrainConfig(views=-1)


def test_an_option_of_zero_is_given():
    assert resolve_config(TEACHER, options={"weight_decay": 0.0}).weight_decay == 0.0


def test_a_roles_table_overrides_the_top_level(toml):
    file = toml("epochs = 5\nseed = 1\n[teacher]\nepochs = 6\n[student]\nepochs = 7\n")
    assert resolve_config(TEACHER, file=file).epochs == 6
    assert resolve_config(STUDENT, file=file).epochs == 7
    assert resolve_config(STUDENT, file=file).seed == 1


def test_an_unknown_setting_names_the_closest_and_the_file(toml):
    file = toml("learning_rat = 0.1\n")
    with pytest.raises(ConfigError, match=r"unknown setting `learning_rat`.*`learning_rate`") as error:
        resolve_config(TEACHER, file=file)
    assert str(file) in str(error.value)


def test_an_unknown_setting_in_a_table_is_refused(toml):
    with pytest.raises(ConfigError, match=r"unknown setting `epoch`.*`epochs`"):
        resolve_config(STUDENT, file=toml("[student]\nepoch = 3\n"))


@pytest.mark.parametrize("role", [TEACHER, STUDENT])
def test_a_table_that_is_none_is_refused(toml, role):
    with pytest.raises(ConfigError, match=role):
        resolve_config(role, file=toml(f'{role} = "runs/{role}"\n'))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('epochs = "many"', r"`epochs` should be int\. Received: 'many'"),
        ("epochs = 3.0", r"`epochs` should be int\. Received: 3\.0"),
        ("epochs = true", r"`epochs` should be int\. Received: True"),
        ('width = "half"', r"`width` should be float"),
        ("width = true", r"`width` should be float"),
        ('alpha = "default"', r"`alpha` should be float"),
        ("clip_frames = 8.0", r"`clip_frames` should be int"),
        ("feature_loss = 3", r"`feature_loss` should be str"),
        ("model = 3", r"`model` should be str\. Received: 3"),
        ("init = false", r"`init` should be str"),
        ("backbone = []", r"`backbone` should be str"),
        ("segments = 3.0", r"`segments` should be int"),
        ("projection = 1", r"`projection` should be bool\. Received: 1"),
        ("decay_epochs = 3", r"`decay_epochs` should be a list of whole numbers"),
        ("decay_epochs = [3, 4.5]", r"`decay_epochs` should be a list of whole numbers"),
    ],
)
def test_wrong_types_are_refused(toml, line, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config(TEACHER, file=toml(line))


@pytest.mark.parametrize("name", ["width", "alpha", "feature_weight"])
def test_whole_numbers_pass_for_floats(toml, name):
    value = getattr(resolve_config(TEACHER, file=toml(f"{name} = 1")), name)
    assert value == 1.0
    assert type(value) is float


def test_a_list_becomes_a_tuple(toml):
    assert resolve_config(TEACHER, file=toml("decay_epochs = [3, 5]")).decay_epochs == (3, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("windows", 0),
        ("crop", 31),
        ("clip_frames", 0),
        ("width", 0.0),
        ("width", float("nan")),
        ("width", float("inf")),
        ("learning_rate", float("inf")),
        ("feature_weight", float("nan")),
        ("learning_rate", -0.1),
        ("decay_factor", 0.0),
        ("huber_delta", 0.0),
        ("alpha", -0.1),
        ("weight_decay", -1e-5),
        ("feature_weight", -1.0),
        ("seed", -1),
        ("label_seed", -1),
        ("label_fraction", -0.01),
        ("label_fraction", 1.01),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("momentum", 1.0),
        ("batch_norm_momentum", 0.0),
        ("batch_norm_momentum", 1.0),
        ("feature_loss", "both"),
        ("teacher_view", "past"),
        ("penalty", "l1"),
        ("reduction", "max"),
        ("segments", 0),
        ("model", "resnet"),
        ("model", "I3D"),
        ("model", ""),
        ("model", "module:"),
        ("model", ":function"),
        ("model", "module:a.b"),
        ("model", "my-module:build"),
        ("init", "imagenet"),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"Setting `{name}` should be .* Received: {value!r}\."):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 1, "batch_size": 1, "windows": 1, "crop": 32, "clip_frames": 1},
        {"dropout": 0.0, "momentum": 0.0, "weight_decay": 0.0, "feature_weight": 0.0},
        {"label_fraction": 0.0},
        {"label_fraction": 1.0, "alpha": None, "decay_epochs": ()},
        {"model": "tsn", "init": "imagenet", "backbone": "MobileNetV2", "segments": 1},
        {"model": "frame-mlp", "init": None, "projection": True},
        {"model": "my_package.my_module:build_2"},
    ],
)
def test_the_ends_of_the_ranges_are_accepted(settings):
    config = TrainConfig(**settings)
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("model", "inits"),
    [
        ("i3d", {"random", "kinetics"}),
        ("tsn", {"random", "imagenet"}),
        ("frame-mlp", {"random", "imagenet"}),
        ("module:function", {"random", "kinetics", "imagenet"}),
    ],
)
def test_weights_by_name_are_for_the_models_that_they_fit(model, inits):
    for init in (None, "some/path", "run.keras"):
        assert TrainConfig(model=model, init=init).init == init
    for init in ("random", "kinetics", "imagenet"):
        if init in inits:
            assert TrainConfig(model=model, init=init).init == init
        else:
            with pytest.raises(ConfigError, match=rf"`init` should be .* for {model}\. Received: '{init}'"):
                TrainConfig(model=model, init=init)


def test_a_student_takes_over_the_teachers_model_unless_told_otherwise(toml):
    inherited = {"model": "tsn", "backbone": "ResNet101", "segments": 5}
    config = resolve_config(STUDENT, inherited=inherited)
    assert (config.model, config.backbone, config.segments, config.init) == ("tsn", "ResNet101", 5, None)
    file = toml('segments = 2\n[student]\nmodel = "frame-mlp"\n[teacher]\nmodel = "i3d"\n')
    config = resolve_config(STUDENT, inherited=inherited, file=file, options={"backbone": "MobileNetV2"})
    assert (config.model, config.backbone, config.segments) == ("frame-mlp", "MobileNetV2", 2)
    config = resolve_config(STUDENT, inherited=inherited, file=file, options={"model": "i3d", "init": "x"})
    assert (config.model, config.init) == ("i3d", "x")


def test_a_projection_that_the_file_asks_for_stays_where_no_option_is_given(toml):
    file = toml("projection = true\n")
    assert resolve_config(STUDENT, file=file, options={"projection": None}).projection is True
    assert resolve_config(STUDENT).projection is False


def test_a_file_that_cannot_be_read_is_named(tmp_path, toml):
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read: No such file"):
        resolve_config(TEACHER, file=tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve_config(TEACHER, file=tmp_path)
    with pytest.raises(ConfigError, match=r"settings\.toml is not valid TOML"):
        resolve_config(TEACHER, file=toml("epochs = \n"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        resolve_config(TEACHER, file=binary)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    marked = tmp_path / "marked.toml"
    marked.write_bytes(b"\xef\xbb\xbfepochs = 3\n")
    assert resolve_config(TEACHER, file=marked).epochs == 3


def resolve_or_refuse(path) -> TrainConfig | str:
    """The settings in `path`, or the message that refuses them."""
    try:
        return resolve_config(STUDENT, file=path)
    except ConfigError as error:
        return str(error)


@given(text=st.text(max_size=60))
def test_any_text_gives_the_defaults_or_an_error_that_names_the_file(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "junk.toml"
    path.write_text(text, encoding="utf-8", newline="")
    result = resolve_or_refuse(path)
    assert result == TrainConfig() or str(path) in result


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_mixed_pairs_have_no_class_of_their_own_to_balance(mixing):
    with pytest.raises(ConfigError, match="`class_balance` should be none beside mixup and cutmix"):
        TrainConfig(class_balance="focal", **{mixing: 0.4})


@given(
    name=st.sampled_from([*TrainConfig.__dataclass_fields__, "unknown", "student", "teacher"]),
    value=st.sampled_from(
        ["3", "-1", "0.5", "nan", "inf", "true", '"x"', "[]", "[1]", "[[1]]", "{}", "{a = 1}", "1979-05-27"]
    ),
)
def test_any_value_is_accepted_or_refused_by_name(tmp_path_factory, name, value):
    path = tmp_path_factory.getbasetemp() / "value.toml"
    path.write_text(f"{name} = {value}\n", encoding="utf-8")
    result = resolve_or_refuse(path)
    assert isinstance(result, TrainConfig) or name in result or "`a`" in result


def test_an_unknown_preset_names_the_closest():
    with pytest.raises(ConfigError, match=r"no preset 'jhmdb-smal'.*Did you mean `jhmdb-small`"):
        resolve_config(TEACHER, preset="jhmdb-smal")


@pytest.mark.parametrize("preset", ["../config", "", "demo-tiny.toml"])
def test_a_preset_is_a_name_and_no_path(preset):
    with pytest.raises(ConfigError, match="There is no preset"):
        resolve_config(TEACHER, preset=preset)


@pytest.mark.parametrize("role", [TEACHER, STUDENT])
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_resolves(preset, role):
    config = resolve_config(role, preset=preset)
    assert config != TrainConfig()


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_opens_with_its_command(preset):
    text = resources.files("kdant_tf").joinpath("presets", f"{preset}.toml").read_text("utf-8")
    assert any(line.startswith("#   kdant ") for line in text.splitlines())


def test_the_papers_preset_has_the_papers_numbers():
    config = resolve_config(STUDENT, preset="jhmdb-rgb")
    assert (config.clip_frames, config.crop, config.endpoint) == (8, 224, "Mixed_4f")
    assert (config.epochs, config.learning_rate, config.decay_epochs) == (80, 0.01, (20,))
    assert (config.momentum, config.weight_decay) == (0.9, 1e-5)
    assert (config.penalty, config.huber_delta, config.alpha) == ("huber", 1.0, None)


def test_learning_rate_falls_at_each_decay_epoch():
    config = TrainConfig(learning_rate=0.08, decay_epochs=(2, 4), decay_factor=0.5)
    assert [config.learning_rate_at(epoch) for epoch in range(6)] == [0.08, 0.08, 0.04, 0.04, 0.02, 0.02]


def test_learning_rate_stays_without_decay_epochs():
    assert TrainConfig(decay_epochs=()).learning_rate_at(1000) == TrainConfig().learning_rate


@given(
    settings=st.fixed_dictionaries(
        {},
        optional={
            "width": st.floats(0.01, 4),
            "clip_frames": st.none() | st.integers(1, 64),
            "alpha": st.none() | st.floats(1e-3, 10),
            "decay_epochs": st.lists(st.integers(0, 99), max_size=3).map(tuple),
            "feature_loss": st.sampled_from(FEATURE_LOSS_NAMES),
            "label_fraction": st.floats(0, 1),
            "model": st.sampled_from(["i3d", "a.b:c"]),
            "init": st.none() | st.just("path/to/run"),
            "backbone": st.none() | st.just("MobileNetV2"),
            "projection": st.booleans(),
        },
    )
)
def test_settings_survive_json(settings):
    config = TrainConfig(**settings)
    assert config_from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_an_unknown_setting_in_json_is_refused():
    with pytest.raises(ConfigError, match=r"config\.json has an unknown setting `widht`.*`width`"):
        config_from_dict({"widht": 1.0})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("epochs", value, "int") for value in ("2", 2.0, True, None)),
        *(("learning_rate", value, "float") for value in ("0.1", False)),
        *(("projection", value, "bool") for value in (1, "yes")),
        ("model", None, "str"),
        ("decay_epochs", 20, "a list of whole numbers"),
        ("decay_epochs", (-1,), "0 or more"),
    ],
)
def test_another_type_is_refused_from_python_too(name, value, expected):
    with pytest.raises(ConfigError, match=rf"`{name}` should be {expected}\. Received"):
        TrainConfig(**{name: value})


def test_numbers_of_other_types_become_pythons():
    config = TrainConfig(epochs=np.int64(3), width=1, learning_rate=np.float32(0.5), decay_epochs=[1, 2])
    assert (config.epochs, config.width, config.learning_rate, config.decay_epochs) == (3, 1.0, 0.5, (1, 2))
    assert [type(value) for value in (config.epochs, config.width, config.learning_rate)] == [
        int,
        float,
        float,
    ]


def test_an_unknown_argument_names_the_closest():
    with pytest.raises(ConfigError, match=r"The call has an unknown setting `epoch`.*`epochs`"):
        resolve_config(TEACHER, options={"epoch": 3})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("checkpoint_minutes", -1, "`--checkpoint-minutes` should be 0 or more"),
        ("checkpoint_minutes", float("nan"), "`--checkpoint-minutes` should be 0 or more and finite"),
        ("strategy", "many", "`--strategy` should be one of auto, one, mirrored, multiworker"),
        ("deterministic", "yes", "`--deterministic` should be bool"),
    ],
)
def test_how_a_training_runs_is_checked(name, value, expected):
    with pytest.raises(KdantError, match=rf"{expected}\. Received: "):
        Execution(**{name: value})


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3


def test_the_papers_numbers_for_epic_kitchens():
    """§4.3.1 and §4.3.2: features of 32 frames, squares of 14 x 14."""
    teacher, student = (resolve_config(role, preset="epic55") for role in (TEACHER, STUDENT))
    for config in (teacher, student):
        assert (config.init, config.clip_frames, config.crop // 16) == ("kinetics", 32, 14)
        assert (config.epochs, config.batch_size, config.momentum, config.weight_decay) == (30, 32, 0.9, 1e-5)
    assert [teacher.learning_rate_at(epoch) for epoch in (0, 4, 5, 29)] == pytest.approx(
        [0.1, 0.1, 0.01, 1e-6]
    )
    assert [student.learning_rate_at(epoch) for epoch in (0, 19, 20)] == pytest.approx([0.001, 0.001, 0.0001])


@pytest.mark.parametrize("preset", ["jhmdb-rgb", "jhmdb-flow"])
def test_the_papers_numbers_for_jhmdb(preset):
    """§4.2: pairs of 8 frames, squares of 224 pixels, Mixed_4f, Huber with delta 1."""
    for role in (TEACHER, STUDENT):
        config = resolve_config(role, preset=preset)
        assert (config.init, config.clip_frames, config.crop) == ("kinetics", 8, 224)
        assert (config.endpoint, config.penalty, config.huber_delta) == ("Mixed_4f", "huber", 1.0)
        assert config.alpha is None  # 1/sqrt(d)
        assert (config.epochs, config.momentum, config.weight_decay) == (80, 0.9, 1e-5)
        rates = [config.learning_rate_at(epoch) for epoch in (0, 19, 20, 79)]
        assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    ("preset", "network"), [("thumos14-i3d", ("i3d", None)), ("thumos14-frames", ("frame-mlp", "ResNet152"))]
)
def test_the_papers_numbers_for_thumos14(preset, network):
    """§4.4: clips of 16 frames, squares of 224 pixels, the centre crop."""
    config = resolve_config(STUDENT, preset=preset)
    assert (config.model, config.backbone) == network
    assert (config.clip_frames, config.crop, config.windows) == (16, 224, 1)
