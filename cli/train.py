"""kdant train-teacher and kdant distill"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from kdant_tf.config import STUDENT, TEACHER, Execution, TrainConfig
from kdant_tf.settings import SettingInfo, in_groups, settings_of
from tf_records.start_tensorflow import start_tensorflow

from .command import (
    FOLDER,
    RUN,
    CommaList,
    Decorator,
    GroupedOption,
    KdantCommand,
    add_options,
    command_line,
    folder_options,
    json_option,
    records_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from kdant_tf.training.train import TrainResult
    from tf_records.remote_path import RecordPath

# Names that options had before their settings had others.
# Characters of `a|b|c` beside an option.
_LONGEST_CHOICES = 60
_ALIASES = {"backbone": ("--tsn-backbone",)}


def setting_options(role: str) -> Decorator:
    """An option for each setting that means something to a "teacher" or a "student"."""
    settings = in_groups(TrainConfig, Execution)
    return add_options(*(_setting_option(info, role) for info in settings if info.role in (None, role)))


def _setting_option(info: SettingInfo, role: str) -> Decorator:
    flag = info.kind is bool
    return click.option(
        f"{info.option}/{info.opposite}" if info.opposite else info.option,
        *_ALIASES.get(info.name, ()),
        info.name,
        cls=GroupedOption,
        type=None if flag else _type_of(info),
        is_flag=flag or None,
        default=None,
        metavar=_metavar(info),
        help=info.description,
        group=info.group,
        shown_default=_default_of(info, role),
        shown_range="" if info.choices else info.values_words,
    )


def _default_of(info: SettingInfo, role: str) -> str:
    """In brackets what is no value."""
    if info.inherited and role == STUDENT:
        return "(the teacher's)"
    return f"({info.unset})" if info.default is None else info.default_words


def _metavar(info: SettingInfo) -> str | None:
    if _fits(info.choices):
        return f"[{'|'.join(info.choices)}]"
    if info.choices:
        return "NAME"  # Its help names them.
    return info.unit.upper() if info.unit and info.kind in (int, float) else None


def _fits(choices: Sequence[str]) -> bool:
    """Whether choices, if any, fit a line of the help beside an option's name."""
    return 0 < len("|".join(choices)) <= _LONGEST_CHOICES


def _type_of(info: SettingInfo) -> click.ParamType[Any] | type:
    if info.kind is tuple:
        return CommaList(int, "whole numbers, such as 20,40", lambda numbers: True, name=info.unit)
    # Another precision is refused as it is in a file, with exit code 1.
    if info.choices and info.name != "precision":
        return click.Choice(info.choices)
    return info.kind


training_options = add_options(
    click.option("--out", required=True, type=FOLDER, help="Run folder to make."),
    click.option("--preset", help="Settings that ship with kdant, such as jhmdb-small; see kdant presets."),
    click.option("--config", "config_file", type=FOLDER, help="TOML file with settings, above the preset's."),
    click.option(
        "--skip-damaged", is_flag=True, help="Train without the shards whose bytes have changed, and say so."
    ),
    folder_options,
    json_option,
)


@click.command("train-teacher", cls=KdantCommand, short_help="Train the network that sees the action.")
@records_option
@training_options
@setting_options(TEACHER)
def train_teacher(**options: Any) -> None:
    """Train the recognition network R on the clips in which the actions happen.

    Defaults hold where neither --preset nor --config has another value.
    """
    run_training(**options)


@click.command("distill", cls=KdantCommand, short_help="Train the network that anticipates, with a teacher.")
@records_option
@click.option("--teacher", required=True, type=RUN, help="Run folder of train-teacher, or an archive of it.")
@training_options
@setting_options(STUDENT)
def distill(**options: Any) -> None:
    """Train the anticipation network A on the earlier clips, with R as its teacher.

    Defaults, and what is the teacher's, hold where neither --preset nor --config has another value.
    """
    run_training(**options)


def run_training(
    *,
    records: RecordPath,
    out: Path,
    preset: str | None,
    config_file: Path | None,
    resume: bool,
    overwrite: bool,
    skip_damaged: bool,
    as_json: bool,
    teacher: Path | None = None,
    **options: Any,
) -> None:
    """Trains a teacher, or with `teacher` a student, and prints the result.

    `options` are fields of TrainConfig and Execution; None counts as not given.
    """
    from kdant_tf.config import resolve_config
    from kdant_tf.runs import inherited_settings, load_run

    run = None if teacher is None else load_run(teacher)
    config = resolve_config(
        TEACHER if run is None else STUDENT,
        inherited={} if run is None else inherited_settings(run),
        preset=preset,
        file=config_file,
        options=_given(options, settings_of(TrainConfig)),
    )
    execution = Execution(**_given(options, settings_of(Execution)))
    from .output import warn_of_other_network

    warn_of_other_network(teacher)
    start_tensorflow()
    from kdant_tf.training.train import train

    from .progress import TrainingProgress

    name = "teacher" if run is None else f"student ({config.feature_loss})"
    with TrainingProgress(config.epochs, name) as progress:
        result = train(
            records,
            out,
            config,
            teacher=run,
            execution=execution,
            resume=resume,
            overwrite=overwrite,
            skip_damaged=skip_damaged,
            callbacks=[progress],
            report=lambda line: click.echo(line, err=True),
        )
    if result.worker > 0:
        click.echo(f"Worker {result.worker} has finished; worker 0 wrote {out}.", err=True)
    elif run is None:
        following = command_line("distill", "--records", records, "--teacher", out, "--out", "student")
        _print_result(result, as_json, following)
    else:
        _print_result(result, as_json, command_line("evaluate", out, "--records", records))


def _given(options: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of these names that were given."""
    return {name: options[name] for name in names if options.get(name) is not None}


def _print_result(result: TrainResult, as_json: bool, next_command: str) -> None:
    from .output import percent, print_fields, print_json

    if as_json:
        print_json(result.to_dict())
        return
    fields = {"epochs": str(result.epochs), "final loss": f"{result.final_loss:.4f}"}
    if result.best_epoch is not None and result.validation_accuracy is not None:
        fields["best epoch"] = f"{result.best_epoch}, kept as model.keras"
        several = any(head.several for head in result.run.heads)
        measure = "mean average precision" if several else "accuracy"
        fields[f"its validation {measure}"] = percent(result.validation_accuracy)
    fields |= {"clips per second": f"{result.clips_per_second:.1f}", "next": next_command}
    print_fields(f"Trained {result.run.folder}", fields)
