"""Prints the Python of README.md, for the suite and CI to run as it stands there."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def readme_python() -> str:
    """The code block of the section "From Python"."""
    section = README.read_text(encoding="utf-8").split("\n## From Python\n")[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


if __name__ == "__main__":
    print(readme_python())
