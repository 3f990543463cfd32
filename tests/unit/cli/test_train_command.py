"""kdant train-teacher and kdant distill: from options to the call that trains. Nothing is trained here."""

import json
import sys
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from kdant_cli import output
from kdant_cli import train as train_command
from kdant_cli.main import main

from kdant_tf import runs
from kdant_tf.config import STUDENT, TEACHER, Execution, TrainConfig
from kdant_tf.settings import SettingInfo, in_groups, settings_of

INHERITED = {"crop": 64, "width": 0.5, "model": "i3d"}
RESULT = {
    "run": "out", "epochs": 3, "final_loss": 0.5, "clips_per_second": 7.25, "best_epoch": None, "worker": 0,
}  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the training was called with, in place of training."""
    received: list[dict[str, Any]] = []
    run = types.SimpleNamespace(folder=Path("out"))
    facts = {**RESULT, "run": run, "validation_accuracy": None, "to_dict": lambda: RESULT}
    result = types.SimpleNamespace(**facts)

    def train(records: Any, out: Path, config: TrainConfig, **rest: Any) -> Any:
        received.append({"records": records, "out": out, "config": config, **rest})
        return result

    progress = types.SimpleNamespace(TrainingProgress=lambda epochs, name: nullcontext(f"{name}, {epochs}"))
    monkeypatch.setitem(sys.modules, "kdant_tf.training.train", types.SimpleNamespace(train=train))
    monkeypatch.setitem(sys.modules, "kdant_cli.progress", progress)
    monkeypatch.setattr(train_command, "start_tensorflow", lambda: None)
    monkeypatch.setattr(runs, "load_run", lambda folder: f"run of {folder}")
    monkeypatch.setattr(runs, "inherited_settings", lambda run: INHERITED)
    return received


def kdant(role: str, *args: Any) -> Result:
    verb = ("train-teacher",) if role == TEACHER else ("distill", "--teacher", "teacher")
    words = (*verb, "--records", "records", "--out", "out", *args)
    return CliRunner().invoke(main, [str(word) for word in words])


def value_for(info: SettingInfo) -> Any:
    """Another value than the default."""
    if info.kind is bool:
        return True
    if info.kind is str:
        names = {"model": "tsn", "init": "random", "devices": "cpu:2"}
        return next((each for each in info.choices if each != info.default), names.get(info.name, "val"))
    if info.kind is tuple:
        return (3, 5)
    numbers = [info.kind(number) for number in (0.25, 0.5, 2, 4, 64)]
    return next(number for number in numbers if number != info.default and not info.check(number)[1])


@pytest.mark.parametrize(
    ("role", "info"),
    [
        pytest.param(role, info, id=f"{role}-{info.name}")
        for role in (TEACHER, STUDENT)
        for info in in_groups(TrainConfig, Execution)
        if info.role in (None, role)
    ],
)
def test_each_option_reaches_the_training(role: str, info: SettingInfo, calls: list[dict[str, Any]]) -> None:
    value = value_for(info)
    words = (info.option,) if info.kind is bool else (info.option, *_words(value))
    # Only weights from somewhere can be frozen, or have a rate of their own.
    more = ("--init", "kinetics") if info.name in ("freeze_batch_norm", "pretrained_learning_rate") else ()
    result = kdant(role, *words, *more)
    assert result.exit_code == 0, result.stderr
    (call,) = calls
    holder = call["config"] if info.name in settings_of(TrainConfig) else call["execution"]
    assert getattr(holder, info.name) == value


def _words(value: Any) -> tuple[str]:
    return (",".join(map(str, value)) if isinstance(value, tuple) else str(value),)


def test_an_option_of_the_other_role_is_unknown(calls: list[dict[str, Any]]) -> None:
    for role, option in ((TEACHER, "--alpha"), (TEACHER, "--cache-teacher"), (STUDENT, "--teacher-view")):
        refused = kdant(role, option, "future")
        assert refused.exit_code == 2
        assert option in refused.stderr
    assert calls == []


def test_nothing_given_leaves_the_defaults_and_what_the_teacher_has(calls: list[dict[str, Any]]) -> None:
    assert kdant(TEACHER).exit_code == kdant(STUDENT).exit_code == 0
    teacher, student = calls
    assert (teacher["config"], teacher["teacher"]) == (TrainConfig(), None)
    assert (student["config"], student["teacher"]) == (TrainConfig(**INHERITED), "run of teacher")
    assert teacher["execution"] == student["execution"] == Execution()
    assert not any(teacher[name] for name in ("resume", "overwrite", "skip_damaged"))
    assert teacher["callbacks"] == ["teacher, 80"]
    assert student["callbacks"] == ["student (bidirectional), 80"]


def test_options_stand_above_file_preset_and_teacher(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("projection = true\nepochs = 7\ndecay_epochs = [4]\n[student]\nbatch_size = 4\n")
    sources = ("--preset", "demo-tiny", "--config", file)
    assert kdant(STUDENT, *sources).exit_code == 0
    assert kdant(STUDENT, *sources, "--no-projection", "--epochs", 9, "--decay-epochs", "").exit_code == 0
    first, second = (call["config"] for call in calls)
    assert (first.projection, first.epochs, first.batch_size, first.decay_epochs) == (True, 7, 4, (4,))
    assert (first.crop, first.width) == (32, 0.0625)  # the preset's, not the teacher's
    assert (second.projection, second.epochs, second.batch_size, second.decay_epochs) == (False, 9, 4, ())


def test_the_older_name_of_an_option_holds(calls: list[dict[str, Any]]) -> None:
    assert kdant(TEACHER, "--model", "tsn", "--tsn-backbone", "ResNet101").exit_code == 0
    assert calls[0]["config"].backbone == "ResNet101"


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (("--epochs", 0), 1, "Error: Setting `epochs` should be at least 1. Received: 0."),
        (("--precision", "float64"), 1, "Setting `precision` should be one of float32, mixed_bfloat16"),
        (
            ("--checkpoint-minutes", -1),
            1,
            "Error: `--checkpoint-minutes` should be 0 or more. Received: -1.0.",
        ),
        (("--decay-epochs", "-1"), 1, "Setting `decay_epochs` should be 0 or more. Received: (-1,)."),
        (("--epochs", "many"), 2, "'many' is not a valid integer"),
        (("--decay-epochs", "1.5"), 2, "should be whole numbers, such as 20,40. Received: '1.5'."),
        (("--modality", "sound"), 2, "'sound' is not one of 'rgb', 'flow'"),
        (("--preset", "nothing"), 1, "There is no preset 'nothing'"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    args: tuple[Any, ...], code: int, sentence: str, calls: list[dict[str, Any]]
) -> None:
    refused = kdant(TEACHER, *args)
    assert (refused.exit_code, refused.stdout, calls) == (code, "", [])
    assert sentence in refused.stderr


def test_the_result_is_a_table_or_one_json_object(calls: list[dict[str, Any]]) -> None:
    assert json.loads(kdant(STUDENT, "--json").stdout) == RESULT
    table = kdant(TEACHER).stdout
    for words in ("Trained out", "final loss", "0.5000", "7.2", "kdant distill --records records"):
        assert words in table


@pytest.mark.parametrize("role", [TEACHER, STUDENT])
def test_help_shows_every_default_with_its_values(role: str) -> None:
    command = main.commands["train-teacher" if role == TEACHER else "distill"]
    records = {param.name: param.get_help_record(click.Context(command)) for param in command.params}
    for info in in_groups(TrainConfig, Execution):
        if info.role not in (None, role):
            assert info.name not in records
            continue
        inherited = info.inherited and role == STUDENT
        words = "(the teacher's)" if inherited else f"({info.unset})" if info.unset else info.default_words
        extra = "" if info.range is None else f"; {info.range.words}"
        assert records[info.name][1] == f"{info.description}  [default: {words}{extra}]"


def test_a_teacher_whose_network_is_another_is_told(calls: list[dict[str, Any]], monkeypatch: Any) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(output, "warn_of_other_network", seen.append)
    assert kdant(STUDENT).exit_code == kdant(TEACHER).exit_code == 0
    assert seen == [Path("teacher"), None]
