"""The version, alone in its file so that reading it imports little, and what a newer one means for a file."""

import re

__version__ = "0.1.0"


def unreadable_advice(written_by: object, otherwise: str) -> str:
    """What to do about a file that this kdant cannot read: update, where a newer one wrote it.

    Args:
        written_by: version of the kdant that wrote it, as the file has it.
        otherwise: what to do else.
    """
    if _numbers(written_by) <= _numbers(__version__):
        return otherwise
    return f"It was written by kdant {written_by}, this is {__version__}: update kdant."


def _numbers(version: object) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(version))]
