"""What all pictures share: colours that colour-blind people can distinguish, markers, names, and saving."""

import contextlib
import itertools
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_records.files import atomic_path

# Okabe and Ito, Color Universal Design, 2008; yellow, too pale on white, stands last.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DASHES = ("-", "--", "-.", ":")
GREY = "#666666"
DPI = 110
CORRECT, WRONG = "✓", "✗"


def mark_of(number: int) -> tuple[str, str]:
    """Colour and marker of the number-th class or network, counted from 0; as pairs they repeat after 40."""
    return OKABE_ITO[number % len(OKABE_ITO)], MARKERS[number % len(MARKERS)]


def text_on(color: str) -> str:
    """Black or white, whichever has the higher contrast to `#rrggbb`."""
    return max(
        ("black", "white"), key=lambda name: contrast(color, {"black": "#000000"}.get(name, "#ffffff"))
    )


def contrast(first: str, second: str) -> float:
    """WCAG 2's contrast ratio of two colours `#rrggbb`, from 1 to 21; 3 is asked of graphics."""

    def luminance(color: str) -> float:
        values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def fit_note(text: str, inches: float) -> str:
    """Small print broken into lines of at most so many inches, at 8 points."""
    return wrap(text, max(20, int(16.5 * inches)))


def describe_prediction(classes: Sequence[str], probabilities: np.ndarray, label: int) -> str:
    """A tick or a cross, the most probable class, and its probability: "✓ golf 0.93"."""
    first = int(np.argmax(probabilities))
    mark = CORRECT if first == label else WRONG
    return f"{mark} {shorten(classes[first])} {probabilities[first]:.2f}"


def shorten(name: str, width: int = 22) -> str:
    """A name cut to `width` characters, with an ellipsis where it was longer."""
    return name if len(name) <= width else f"{name[: width - 1]}…"


def wrap(text: str, width: int) -> str:
    """Text in lines of at most `width` characters; what has no spaces is broken."""
    return "\n".join(textwrap.wrap(text, width)) or text


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG that is the same for the same figure, whole or not at all.

    Returns:
        `path`.
    """
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary, _letters_may_be_missing():
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    return path


@contextlib.contextmanager
def _letters_may_be_missing() -> Iterator[None]:
    """A box stands for a letter that the font lacks, such as of a Chinese class name; nobody is warned."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


def unique_names(paths: Sequence[Path]) -> Mapping[Path, str]:
    """Names of runs that tell them apart: `run`, or `a/run` and `b/run`.

    What several names begin with, up to a hyphen, is left out: of a study's `rgb-split1-seed0-none` and
    `rgb-split1-seed0-direct` it is `none` and `direct`.
    """
    names = {path: path.name for path in paths}
    depth = 1
    while len(set(names.values())) < len(names) and depth < max(len(path.parts) for path in paths):
        depth += 1
        names = {path: "/".join(path.parts[-depth:]) for path in paths}
    parts = {path: name.split("-") for path, name in names.items()}
    shared = len([*itertools.takewhile(lambda each: len(set(each)) == 1, zip(*parts.values(), strict=False))])
    short = {path: "-".join(each[shared:]) for path, each in parts.items()}
    return short if all(short.values()) else names
