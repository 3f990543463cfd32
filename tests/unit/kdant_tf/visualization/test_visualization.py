"""Pictures show what they are given, on one scale, and the same input gives the same bytes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdant_tf.evaluation.metrics import CurvePoint, Interval
from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.visualization.confusion import (
    Bar,
    plot_confusion,
    plot_per_class,
    plot_reliability,
    plot_results,
)
from kdant_tf.visualization.correspondence import COLOURS, Drift, find_targets, plot_drift
from kdant_tf.visualization.curves import plot_accuracy_against
from kdant_tf.visualization.embeddings import plot_projection, project
from kdant_tf.visualization.heat_maps import Panel, plot_magnitudes, shared_scale
from kdant_tf.visualization.run_view import choose_samples
from kdant_tf.visualization.style import OKABE_ITO, contrast, mark_of, text_on, unique_names, verdict
from tf_records.errors import KdantError, RecordError

GREY_FRAME = np.full((8, 8, 3), 0.5)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def near(pixels: np.ndarray, color: str, tolerance: int = 12) -> np.ndarray:
    """Which pixels have a colour: bool `(H, W)`."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(pixels - wanted).max(axis=-1) <= tolerance


def predictions(labels: list[int], first: list[int], classes: int = 4) -> Predictions:
    """Of a network that gives the class `first` 0.7, each sample in a video of its own."""
    probabilities = np.full((len(labels), classes), 0.3 / (classes - 1))
    probabilities[np.arange(len(labels)), first] = 0.7
    ids = np.array([f"s{number}" for number in range(len(labels))])
    return Predictions(probabilities=probabilities, labels=np.array(labels), ids=ids, videos=ids)


def a_drift(target: tuple[int, int, int], held: tuple[int, int, int]) -> Drift:
    """A vector at `target` of the future map, which the observed map holds at `held`."""
    future, observed = np.full((2, 4, 4, 2), 0.01), np.full((2, 4, 4, 2), 0.01)
    future[target] = observed[held] = (20, 0)
    return Drift(
        title="student",
        observed=np.ones((8, 8, 8, 3)),
        future=np.ones((8, 8, 8, 3)),
        observed_times_s=np.arange(8) / 10,
        future_times_s=np.arange(8) / 10 + 1.5,
        future_shape=(2, 4, 4),
        targets=find_targets(future, observed, count=1),
    )


def test_the_strongest_position_and_where_it_is_held_are_drawn_in_their_places(tmp_path):
    """Four times the same picture, with the target and its end in other quarters."""
    drawn = {}
    for held in ((0, 0, 0), (1, 3, 3)):
        path = tmp_path / f"{held[0]}.png"
        plot_drift([a_drift((1, 0, 3), held)], "title", "note", path)
        drawn[held] = near(pixels_of(path), OKABE_ITO[1])
    first, second = drawn.values()
    height, width = first.shape
    # The target's square is in both, in the lower frame of the right column; the ends differ.
    both = np.argwhere(first & second)
    assert (both[:, 1] > 0.6 * width).sum() > 50
    only_first, only_second = np.argwhere(first & ~second), np.argwhere(second & ~first)
    left_first = only_first[only_first[:, 1] < 0.2 * width]
    left_second = only_second[only_second[:, 1] < 0.45 * width]
    assert left_first[:, 0].mean() < 0.35 * height < 0.55 * height < left_second[:, 0].mean()


def test_a_drift_of_one_sample_may_have_any_number_of_students(tmp_path):
    for students in (1, 2, 5):
        plot_drift([a_drift((0, 1, 1), (0, 2, 2))] * students, "title", "note", tmp_path / f"{students}.png")
    sizes = [pixels_of(tmp_path / f"{students}.png").shape[:2] for students in (1, 2, 5)]
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] > 1.8 * sizes[0][1]
    assert sizes[2][0] > 2.5 * sizes[1][0]


def test_one_colour_scale_serves_each_row(tmp_path):
    """A map that is weaker than the others of its row is darker, though constant; rows do not matter."""
    weak, strong = np.full((2, 2), 1.0), np.full((2, 2), 9.0)
    strong[0, 0] = 0.0
    scale = shared_scale([Panel(frame=GREY_FRAME, magnitude=weak), Panel(frame=GREY_FRAME, magnitude=strong)])
    assert (scale.vmin, scale.vmax) == (0, 9)
    rows = {
        f"factor {factor}": {
            "A": Panel(frame=GREY_FRAME, magnitude=weak * factor),
            "B": Panel(frame=GREY_FRAME, magnitude=strong * factor),
        }
        for factor in (1, 64)
    }
    pixels = pixels_of(plot_magnitudes(rows, tmp_path / "maps.png")).reshape(-1, 3)
    colors, counts = np.unique(pixels, axis=0, return_counts=True)
    order = np.argsort(-counts)
    (white, weak_color), (_, often) = colors[order[:2]], counts[order[:2]]
    assert white.tolist() == [255] * 3
    # The weak cell of both rows has this colour, and in the strong ones there are lighter ones.
    cell = 1.75 * 110
    assert 1.7 * cell**2 < often < 2 * cell**2
    assert (colors[counts > 100].sum(axis=1) > weak_color.sum() + 100).sum() > 1


def test_a_constant_map_draws_without_warning(tmp_path):
    panels = {"teacher": Panel(frame=np.zeros((4, 4, 3)), magnitude=np.ones((2, 2)))}
    assert pixels_of(plot_magnitudes({"1": panels, "2": panels}, tmp_path / "maps.png")).size


def test_right_and_wrong_differ_without_colour():
    classes = ("clap", "golf")
    assert verdict(classes, np.array([0.8, 0.2]), 0) == "✓ clap 0.80"
    assert verdict(classes, np.array([0.8, 0.2]), 1) == "✗ clap 0.80"


@pytest.mark.parametrize("classes", [3, 31])
def test_a_confusion_matrix_is_darkest_where_the_share_is_largest(tmp_path, classes):
    labels = [number for number in range(classes) for _ in range(4)]
    right = predictions(labels, labels, classes)
    names = [f"a class with a long name {number}" for number in range(classes)]
    pixels = pixels_of(plot_confusion("run", right, names, tmp_path / "confusion.png"))
    dark = near(pixels, "#08306b")
    assert dark.sum() > 200
    off = predictions(labels, [0] * len(labels), classes)
    pixels = pixels_of(plot_confusion("run", off, names, tmp_path / "confusion.png"))
    columns = np.flatnonzero(near(pixels, "#08306b").sum(axis=0) > 30)
    assert columns.size  # one column is dark, and the bar


def test_a_bar_is_as_long_as_the_mean_and_what_was_not_trained_has_none(tmp_path):
    bars = [
        Bar(title="twice", values=[0.7, 0.9], published=None),
        Bar(title="once", values=[0.4], published=0.6),
        Bar(title="published only", values=[], published=0.5),
    ]
    pixels = pixels_of(plot_results({"RGB": bars}, tmp_path / "results.png"))
    shades = np.array([int("56B4E9"[i : i + 2], 16) for i in (0, 2, 4)]) * 0.55 + 255 * 0.45
    bar = np.abs(pixels - shades).max(axis=-1) <= 3
    lengths = bar.sum(axis=1)[: int(0.8 * len(bar))]  # The legend stands below.
    long, short = np.unique(lengths[lengths > 50])[[-1, 0]]
    assert long / short == pytest.approx(2, rel=0.05)
    assert near(pixels, OKABE_ITO[0]).sum() > 3 * 15
    diamonds = near(pixels, OKABE_ITO[1]).any(axis=1).astype(int)
    assert (np.diff(diamonds) == 1).sum() == 3  # two methods, and the legend


def test_pictures_of_predictions_are_the_same_bytes_each_time(tmp_path):
    networks = {
        "teacher": predictions([0, 1, 2, 3] * 5, [0, 1, 2, 0] * 5),
        "student": predictions([0, 1, 2, 3] * 5, [0, 2, 1, 3] * 5),
    }
    classes = ("fall", "grow", "rise", "shrink")
    points = [CurvePoint(x=share, top1=Interval(value=share, low=share / 2, high=1.0)) for share in (1, 0.5)]
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        plot_per_class(networks, classes, folder / "per_class.png")
        plot_reliability(networks, folder / "reliability.png")
        plot_accuracy_against({"teacher": points}, folder / "shares.png", xlabel="share", chance=0.25)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["per_class.png", "reliability.png", "shares.png"]
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert b"Software" not in content
        assert b"tEXt" not in content
    for number in (0, 1):
        assert near(pixels_of(tmp_path / "a" / "per_class.png"), OKABE_ITO[number]).sum() > 50


def test_pca_finds_the_directions_of_largest_variance():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * (5, 2)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    shown, words = project(plane @ basis + 3.0, "pca")
    assert words == "PCA, 100 % of the variance"
    centred = plane - plane.mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(shown, axis=1), np.linalg.norm(centred, axis=1), rtol=1e-9)
    assert np.ptp(shown[:, 0]) > np.ptp(shown[:, 1])
    # A mirrored basis, as another library may give it, shows the same picture.
    np.testing.assert_allclose(project(-(-plane @ basis), "pca")[0], shown, rtol=1e-6, atol=1e-9)


def test_few_samples_can_be_projected(tmp_path):
    for number in (1, 2, 3):
        shown, words = project(np.eye(3)[:number], "pca")
        assert shown.shape == (number, 2)
        assert np.isfinite(shown).all()
        labels = np.arange(number)
        plot_projection({"run": (shown, words)}, labels, "abc", tmp_path / "features.png")
    with pytest.raises(KdantError, match="at least 4"):
        project(np.eye(3), "tsne")


def test_tsne_keeps_neighbours_and_is_seeded():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 12)
    features = rng.normal(size=(24, 5)) + 20 * groups[:, None]
    shown, _ = project(features, "tsne", seed=1)
    distances = np.linalg.norm(shown[:, None] - shown[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    np.testing.assert_array_equal(project(features, "tsne", seed=1)[0], shown)


def test_tsne_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(KdantError, match=r"kdant-tf\[plots\]"):
        project(np.eye(5), "tsne")


def test_samples_are_the_first_of_each_class_or_drawn_or_named():
    shown = predictions([2, 0, 0, 1, 2, 1, 0], [0] * 7)
    assert choose_samples(shown) == [1, 3, 0]
    drawn = choose_samples(shown, count=3, seed=5)
    assert sorted(shown.labels[drawn]) == [0, 1, 2]
    assert drawn == choose_samples(shown, count=3, seed=5)
    assert len({tuple(choose_samples(shown, count=3, seed=seed)) for seed in range(20)}) > 3
    assert sorted(choose_samples(shown, count=50)) == list(range(7))
    assert choose_samples(shown, ids=("s4", "s1")) == [4, 1]
    with pytest.raises(RecordError, match=r"no sample with the id 's55'.*Did you mean 's5'"):
        choose_samples(shown, ids=("s1", "s55"))


def test_marks_differ_by_more_than_colour():
    marks = [mark_of(number) for number in range(40)]
    assert len(set(marks)) == 40
    assert len({marker for _, marker in marks[:8]}) == 8


def test_names_are_as_short_as_they_can_be():
    paths = [Path("a/run"), Path("b/run"), Path("c/other")]
    assert unique_names(paths[1:]) == {paths[1]: "run", paths[2]: "other"}
    assert list(unique_names(paths).values()) == ["a/run", "b/run", "c/other"]
    study = [Path("runs") / f"rgb-split1-seed0-{name}" for name in ("none", "direct", "not")]
    assert list(unique_names(study).values()) == ["none", "direct", "not"]
    assert list(unique_names(study[:1]).values()) == ["rgb-split1-seed0-none"]
    assert list(unique_names([Path("run-"), Path("run-b")]).values()) == ["run-", "run-b"]


# Linear RGB as a person without green, or without red, cones sees it.
# Source: Machado, Oliveira and Fernandes 2009, severity 1.
SIMULATIONS = {
    "deuteranopia": [
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.01182, 0.04294, 0.968881),
    ],
    "protanopia": [
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ],
}


def lab_of(colors: list[str], simulation: str) -> np.ndarray:
    """CIELAB (D65) of colours as they are seen: float `(N, 3)`."""
    values = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(SIMULATIONS[simulation]), 0, 1)
    to_xyz = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
    xyz = seen @ to_xyz.T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("simulation", SIMULATIONS)
@pytest.mark.parametrize(("colors", "least"), [(COLOURS, 15), (OKABE_ITO, 15)])
def test_colours_differ_for_colour_blind_people(simulation, colors, least):
    """2.3 is a difference that is just seen; targets also have numbers, networks and classes markers."""
    lab = lab_of(list(colors), simulation)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(len(lab))
    assert distances.min() > least


def test_numbers_can_be_read_on_their_discs_and_lines_on_white():
    for color in COLOURS:
        assert contrast(color, {"black": "#000000", "white": "#ffffff"}[text_on(color)]) > 4.5
        assert contrast(color, "#ffffff") > 2.9
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
