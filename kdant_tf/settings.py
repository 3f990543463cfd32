"""What the fields of TrainConfig and Execution tell of themselves. No TensorFlow here.

Each field is made by `setting`. From what it is given come the checks of values and of TOML files, the
options of `kdant train-teacher` and `kdant distill` with their help, and docs/reference/settings.md.
"""

import dataclasses
import functools
import itertools
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Any

# Headings of the options' help and of the reference page, in their order.
GROUPS = ("Data", "Network", "Optimisation", "Distillation", "Validation", "Execution")


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Numbers that a setting may have.

    Args:
        words: complete the sentence "should be …".
        holds: whether a finite number is one of them.
    """

    words: str
    holds: Callable[[float], bool]


AT_LEAST_0 = Range("0 or more", lambda value: value >= 0)
AT_LEAST_1 = Range("at least 1", lambda value: value >= 1)
POSITIVE = Range("positive", lambda value: value > 0)
SHARE = Range("from 0 to 1", lambda value: 0 <= value <= 1)
SHARE_BELOW_1 = Range("from 0 to below 1", lambda value: 0 <= value < 1)
BETWEEN_0_AND_1 = Range("between 0 and 1", lambda value: 0 < value < 1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SettingInfo:
    """All that is known of one setting.

    Args:
        name, default: of the field.
        kind: type of the field: str, int, float, bool, or tuple for whole numbers.
        optional: whether it may be None.
        help: what it is, in a sentence.
        group: one of GROUPS.
        unit: of a number.
        range: of a number, or of each of several.
        choices: all values of a text; empty where it may be any.
        symbol: the paper's, and where.
        unset: what None stands for.
        inherited: whether a student takes it over from its teacher.
        role: "teacher" or "student" where it means nothing to the other.
    """

    name: str = ""
    default: Any = None
    kind: type = str
    optional: bool = False
    help: str
    group: str
    unit: str = ""
    range: Range | None = None
    choices: tuple[str, ...] = ()
    symbol: str = ""
    unset: str = ""
    inherited: bool = False
    role: str | None = None

    @property
    def option(self) -> str:
        """ "--batch-size"."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def opposite(self) -> str:
        """ "--no-projection" of what a preset, a file or the teacher may have turned on; else empty."""
        return f"--no-{self.option[2:]}" if self.kind is bool and self.group != GROUPS[-1] else ""

    @property
    def description(self) -> str:
        """What it is, and what the paper calls it."""
        return self.help + (f" The paper's {self.symbol}." if self.symbol else "")

    @property
    def default_words(self) -> str:
        """What holds where nobody says anything."""
        if self.default is None:
            return self.unset
        if self.kind is bool:
            return "on" if self.default else "off"
        if self.kind is tuple:
            return ",".join(map(str, self.default)) or "none"
        return f"{self.default:g}" if self.kind is float else str(self.default)

    @property
    def values_words(self) -> str:
        """Which values there are: "positive", "huber, squared"; empty where any will do."""
        return self.range.words if self.range is not None else ", ".join(self.choices)

    def check(self, value: Any) -> tuple[Any, str]:
        """The value in the setting's type, and what it should be, which is empty where it will do."""
        value, expected = self.check_type(value)
        return value, expected or self._check_range(value)

    def check_type(self, value: Any) -> tuple[Any, str]:
        """As `check`, for the type alone: a whole number passes for float, a list for a tuple."""
        if value is None and self.optional:
            return value, ""
        if self.kind is tuple:
            is_list = isinstance(value, (list, tuple)) and all(map(_is_whole, value))
            return (tuple(map(int, value)), "") if is_list else (value, "a list of whole numbers")
        fits = {int: _is_whole, float: _is_number}.get(self.kind, lambda value: isinstance(value, self.kind))
        return (self.kind(value), "") if fits(value) else (value, self.kind.__name__)

    def _check_range(self, value: Any) -> str:
        if value is None:
            return ""
        if self.choices and value not in self.choices:
            return f"one of {', '.join(self.choices)}"
        for number in value if self.kind is tuple else (value,):
            if self.kind is float and not math.isfinite(number):
                return "finite" if self.range is None else f"{self.range.words} and finite"
            if self.range is not None and not self.range.holds(number):
                return self.range.words
        return ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def setting(default: Any, group: str, help: str, **facts: Any) -> Any:
    """A field of a dataclass, with what else SettingInfo says of it."""
    metadata = {"setting": SettingInfo(default=default, group=group, help=help, **facts)}
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def settings_of(config: type) -> dict[str, SettingInfo]:
    """The settings that are the fields of `config`, by name, in their order."""
    hints = typing.get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):
        kinds = typing.get_args(hints[field.name])
        optional = types.NoneType in kinds
        kind = kinds[0] if optional else typing.get_origin(hints[field.name]) or hints[field.name]
        found[field.name] = dataclasses.replace(
            field.metadata["setting"], name=field.name, kind=kind, optional=optional
        )
    return found


def in_groups(*configs: type) -> list[SettingInfo]:
    """The settings of several classes, in the order of GROUPS."""
    settings = [info for config in configs for info in settings_of(config).values()]
    return sorted(settings, key=lambda info: GROUPS.index(info.group))


def settings_reference(*configs: type) -> str:
    """The settings of several classes in Markdown: a heading and a table for each group."""
    head = ("| Option | Default | Values | What it is |", "| --- | --- | --- | --- |")
    lines: list[str] = []
    for group, settings in itertools.groupby(in_groups(*configs), lambda info: info.group):
        lines += [f"## {group}", "", *head, *map(_reference_row, settings), ""]
    return "\n".join(lines)


def _reference_row(info: SettingInfo) -> str:
    options = ", ".join(f"`{option}`" for option in (info.option, info.opposite) if option)
    default = f"{info.default_words} †" if info.inherited else info.default_words
    unit = "" if info.unit in info.values_words else info.unit
    values = ", ".join(part for part in (unit, info.values_words) if part)
    role = f" For {info.role}s." if info.role else ""
    return f"| {options} | {default} | {values} | {info.description}{role} |"
