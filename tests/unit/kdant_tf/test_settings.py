"""What settings tell of themselves, and the page that is made of it."""

import dataclasses
from pathlib import Path

import pytest

from kdant_tf.config import FEATURE_LOSS_NAMES, Execution, TrainConfig
from kdant_tf.settings import GROUPS, in_groups, settings_of, settings_reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"
ALL = in_groups(TrainConfig, Execution)


def test_every_field_is_a_setting_in_its_order() -> None:
    for config in (TrainConfig, Execution):
        assert list(settings_of(config)) == [field.name for field in dataclasses.fields(config)]
    assert {info.group for info in ALL} == set(GROUPS)
    assert [GROUPS.index(info.group) for info in ALL] == sorted(GROUPS.index(info.group) for info in ALL)


@pytest.mark.parametrize("info", ALL, ids=lambda info: info.name)
def test_a_setting_is_told_in_sentences_and_has_a_default_and_values(info) -> None:
    assert info.help.endswith(".")
    assert info.default_words
    assert info.values_words or info.kind in (str, bool)
    assert info.check(info.default) == (info.default, "")
    if info.choices:
        assert all(info.check(choice) == (choice, "") for choice in info.choices)
        assert info.check("other")[1].startswith("one of ")


def test_what_is_known_of_a_setting() -> None:
    loss, decay, projection = (
        settings_of(TrainConfig)[name] for name in ("feature_loss", "decay_epochs", "projection")
    )
    assert (loss.option, loss.opposite, loss.role) == ("--feature-loss", "", "student")
    assert loss.choices == FEATURE_LOSS_NAMES
    assert (decay.kind, decay.default_words, decay.values_words) == (tuple, "20", "0 or more")
    assert dataclasses.replace(decay, default=()).default_words == "none"
    assert (projection.option, projection.opposite) == ("--projection", "--no-projection")
    assert settings_of(Execution)["deterministic"].opposite == ""


def test_a_student_takes_over_what_its_teacher_computes_with() -> None:
    assert {info.name for info in ALL if info.inherited} == {
        *("model", "backbone", "segments", "width", "endpoint", "modality"),
        *("crop", "batch_norm_momentum", "windows"),
    }


def test_the_reference_page_holds_what_the_fields_tell() -> None:
    _, tables = PAGE.read_text(encoding="utf-8").split("-->\n\n")
    assert tables == settings_reference(TrainConfig, Execution), f"{PAGE} is not of these settings"
