"""Figures: what they show is what they were given, nothing is clipped, and bytes repeat."""

import io
import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hyper_bids import figures
from hyper_bids.figures.style import bins, number, shortened, ticks


def grid(n, rng, shape=(8, 8), **more):
    a, b = rng.integers(0, 255, (2, n, *shape, 3), dtype=np.uint8)
    return figures.reconstruction_grid(a, b, [f"a-long-stimulus-name-{k}.png" for k in range(n)])


def brain(rng, n_slices=9, sign=False):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 15, n_slices)), indexing="ij")
    background = np.where(x**2 + y**2 + (z * 0.8) ** 2 < 1, 900.0, 0.0)
    values = rng.normal(0 if sign else 5, 1, background.shape)
    return background, np.where((background > 0) & (y < 0), values, np.nan)


def participants(n, rng, label="{:02d}"):
    value = rng.uniform(0.6, 0.9, n)
    return pd.DataFrame(
        {
            "participant": [label.format(k) for k in range(n)],
            "value": value,
            "ci_low": value - 0.05,
            "ci_high": value + 0.05,
            "control": 0.5,
            "chance": 0.5,
        }
    )


def choices(rng, steps=("drift and noise", "noise components", "response function", "shrinkage")):
    """Rows as choosing a model writes them, one step after the other."""
    model = {"drift_order": 2, "noise_model": "ar1", "n_components": 3, "hrf": "library"}
    model["shrinkage"] = True
    varied = {
        "drift and noise": [
            {"noise_model": kind, "drift_order": order}
            for kind in ("ols", "ar1")
            for order in range(7)
        ],
        "noise components": [{"n_components": n} for n in (0, 1, 2, 3, 4, 5, 6, 8, 10)],
        "response function": [{"hrf": "glover"}, {"hrf": "library"}],
        "shrinkage": [{"shrinkage": True}, {"shrinkage": False}],
    }
    table = []
    for step in steps:
        variants = [{**model, **change} for change in varied[step]]
        scores = rng.uniform(0.1, 0.2, len(variants))
        scores[variants.index(model)] = 0.21
        for variant, score in zip(variants, scores, strict=True):
            chosen = variant == model
            table.append({"choice": step, **variant, "score": float(score), "chosen": chosen})
    return table


def attributes_of(n, rng, n_stimuli=30):
    true = rng.normal(size=(n_stimuli, n))
    predicted = 0.3 * true + 0.1 * rng.normal(size=true.shape)
    names = [f"attribute_{k}_c_gender_eyeglasses" for k in range(n)]
    return figures.attribute_scatter(true, predicted, names, [0.123] * n, [1 / 10_001] * n)


ALL = {
    "one attribute": lambda rng: attributes_of(1, rng),
    "attributes": lambda rng: attributes_of(15, rng),
    "many attributes": lambda rng: attributes_of(41, rng),
    "constant attribute": lambda rng: figures.attribute_scatter(
        np.ones((4, 1)), np.zeros((4, 1)), ["age"], [np.nan], [np.nan]
    ),
    "one pair": lambda rng: grid(1, rng),
    "pairs": lambda rng: grid(13, rng),
    "many pairs": lambda rng: grid(70, rng),
    "tall pairs": lambda rng: grid(4, rng, (20, 10)),
    "matrix": lambda rng: figures.pair_matrix(rng.normal(size=(20, 20)), "Title", "correlation"),
    "matrix of one": lambda rng: figures.pair_matrix(np.ones((1, 1)), "Title", "similarity"),
    "large matrix": lambda rng: figures.pair_matrix(rng.random((300, 300)), "Title", "similarity"),
    "constant matrix": lambda rng: figures.pair_matrix(np.full((5, 5), 0.5), "Title", "SSIM"),
    "null": lambda rng: figures.null_histogram(
        rng.normal(0.5, 0.05, 10_000), 0.973, {"chance": 0.5}, "two-way identification", 1 / 10_001
    ),
    "null and controls": lambda rng: figures.null_histogram(
        rng.normal(0.5, 0.05, 999), 0.5, {"chance": 0.5, "mean": 0.51, "other": 0.4}, "score", 0.5
    ),
    "constant null": lambda rng: figures.null_histogram(np.full(9, 0.5), 0.5, {}, "score", 1.0),
    "penalty": lambda rng: figures.penalty_curve([0.1, 1, 10, 100], [-9, 0.1, 0.2, 0.1], 10),
    "one penalty": lambda rng: figures.penalty_curve([2.0], [0.1], 2.0),
    "loss": lambda rng: figures.loss_curve(np.geomspace(1, 0.01, 1500)),
    "one epoch": lambda rng: figures.loss_curve([0.5]),
    "dimensions": lambda rng: figures.dimension_correlations(rng.normal(0, 0.2, 512), 0.3),
    "no dimensions": lambda rng: figures.dimension_correlations(np.full(3, np.nan)),
    "voxels": lambda rng: figures.voxel_map(*brain(rng), "mean z"),
    "signed voxels": lambda rng: figures.voxel_map(*brain(rng, sign=True), "mean z"),
    "one slice": lambda rng: figures.voxel_map(*brain(rng, 1), "mean z"),
    "no voxels": lambda rng: figures.voxel_map(brain(rng)[0], np.full((12, 15, 9), np.nan), "z"),
    "group": lambda rng: figures.group_scores(participants(2, rng), "two-way identification"),
    "group of one": lambda rng: figures.group_scores(participants(1, rng), "score"),
    "long labels": lambda rng: figures.group_scores(participants(20, rng, "site{:012d}"), "score"),
    "large group": lambda rng: figures.group_scores(participants(400, rng), "score"),
    "model": lambda rng: figures.model_choice(choices(rng)),
    "model, drift alone": lambda rng: figures.model_choice(choices(rng, ["drift and noise"])),
    "model, two steps": lambda rng: figures.model_choice(
        choices(rng, ["response function", "shrinkage"])
    ),
    "model, one kind of noise": lambda rng: figures.model_choice(
        [row for row in choices(rng) if row["noise_model"] == "ar1"]
    ),
    "model, negative scores": lambda rng: figures.model_choice(
        [{**row, "score": row["score"] - 0.3} for row in choices(rng)]
    ),
}


def pixels(figure, dpi=110):
    from PIL import Image

    stream = io.BytesIO()
    figures.save(figure, stream, dpi)
    return np.asarray(Image.open(stream).convert("RGB"))


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_clipped_overlapping_or_wider_than_a_page(name, rng):
    figure = ALL[name](rng)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox(renderer)
    assert -0.01 <= box.x0 < box.x1 <= width + 0.01
    assert -0.01 <= box.y0 < box.y1 <= height + 0.01
    assert width * 110 <= 905
    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        places = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        labels = [t for x, t in places if low <= x <= high and t.get_text() and t.get_visible()]
        boxes = [t.get_window_extent(renderer) for t in labels if t.get_rotation() == 0]
        for first, second in itertools.pairwise(boxes):
            assert first.x1 < second.x0, name
        if axes.axison:
            assert axes.has_data(), name


@pytest.mark.parametrize("name", ["pairs", "matrix", "voxels", "group", "model"])
def test_same_arrays_give_the_same_bytes_whatever_the_users_settings(name, tmp_path):
    for k, settings in enumerate(({}, {"font.size": 30, "figure.facecolor": "black"})):
        with matplotlib.rc_context(settings):
            figures.save(ALL[name](np.random.default_rng(0)), tmp_path / f"{k}.png")
    first = (tmp_path / "0.png").read_bytes()
    assert first == (tmp_path / "1.png").read_bytes()
    assert b"Software" not in first


def test_each_image_stands_above_its_own_reconstruction_under_its_label():
    colours = np.arange(12, dtype=np.uint8) * 20
    shown = np.zeros((12, 4, 4, 3), np.uint8)
    shown[..., 0] = colours[:, None, None]
    made = np.zeros_like(shown)
    made[..., 1] = colours[:, None, None]
    figure = figures.reconstruction_grid(shown, made, [f"s{k}" for k in range(12)], columns=5)
    image = pixels(figure)
    images = figure.axes[0].get_images()
    assert len(images) == 24
    height = figure.get_size_inches()[1]
    labels = {t.get_text(): t for t in figure.axes[0].texts}
    for k in range(12):
        centres = []
        for channel, drawn in enumerate(images[2 * k : 2 * k + 2]):
            x0, x1, y0, y1 = drawn.get_extent()
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            assert image[int(y * 110), int(x * 110), channel] == colours[k]
            assert image[int(y * 110), int(x * 110), 1 - channel] == 0
            centres.append((x, y))
        label = labels[f"s{k}"].get_position()
        assert centres[0][1] < centres[1][1] < label[1] < height
        assert centres[0][0] == pytest.approx(centres[1][0]) == pytest.approx(label[0])


def test_more_pairs_than_fit_are_said_not_hidden(rng):
    figure = grid(70, rng)
    assert len(figure.axes[0].get_images()) == 120
    assert "The first 60 of 70 test stimuli" in texts(figure)
    assert not any("first" in t for t in texts(grid(60, rng)))


def test_each_attribute_has_its_points_its_line_and_its_numbers(rng):
    true = rng.normal(size=(9, 2))
    predicted = np.stack([2 * true[:, 0] + 1, -true[:, 1]], axis=1)
    figure = figures.attribute_scatter(true, predicted, ["age", "pose"], [1, -1], [0.001, 1])
    for k, (axes, slope) in enumerate(zip(figure.axes, (2, -1), strict=True)):
        points, line = axes.get_lines()
        np.testing.assert_array_equal(points.get_xydata(), np.stack([true, predicted])[..., k].T)
        (x0, y0), (x1, y1) = line.get_xydata()
        assert (y1 - y0) / (x1 - x0) == pytest.approx(slope)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["age\nr = 1.00, p = 0.001", "pose\nr = \u22121.00, p = 1"]


def test_an_attribute_without_a_correlation_says_so(rng):
    figure = ALL["constant attribute"](rng)
    assert figure.axes[0].get_title(loc="left") == "age\nr n/a"


def test_more_attributes_than_fit_are_said_not_hidden(rng):
    assert "The first 28 of 41 attributes" in texts(attributes_of(41, rng))
    assert not any("first" in text for text in texts(attributes_of(28, rng)))


def test_scores_of_attributes_that_do_not_pair_are_refused(rng):
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(3, 2\) of 1 attributes"):
        figures.attribute_scatter(np.ones((3, 2)), np.ones((3, 2)), ["age"], [1], [1])


def test_images_that_do_not_pair_are_refused(rng):
    a = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\(3, 8, 8, 3\).*\(2, 8, 8, 3\)"):
        figures.reconstruction_grid(a, a[:2], ["a", "b", "c"])


def test_matrix_separates_the_diagonal_from_the_rest():
    M = np.full((4, 4), -0.25)
    np.fill_diagonal(M, 0.75)
    figure = figures.pair_matrix(M, "Title", "r")
    found = [t.get_text() for t in figure.axes[1].get_legend().get_texts()]
    assert found == ["other stimuli: mean \u22120.25", "the stimulus shown: mean 0.75"]
    drawn = figure.axes[0].get_images()[0]
    assert drawn.get_clim() == (-0.75, 0.75)
    np.testing.assert_array_equal(drawn.get_array(), M)


def test_null_marks_score_and_controls_and_counts_each_permutation(rng):
    null = rng.normal(size=1234)
    figure = figures.null_histogram(null, 3.5, {"chance": 0.1}, "score", 0.0123)
    axes = figure.axes[0]
    assert [line.get_xdata()[0] for line in axes.lines] == [3.5, 0.1]
    assert sum(bar.get_height() for bar in axes.patches) == 1234
    assert "observed: 3.500, p = 0.012" in texts(figure)


def test_penalty_curve_marks_the_choice_and_is_not_flattened_by_a_useless_penalty():
    axes = figures.penalty_curve([1, 10, 100], [-500.0, 0.1, 0.3], 100).axes[0]
    assert axes.lines[-1].get_xdata()[0] == 100
    low, high = axes.get_ylim()
    assert low > -1
    assert low < 0.1
    assert high > 0.3


def test_dimensions_are_sorted_and_the_mean_leaves_out_what_is_undefined():
    figure = figures.dimension_correlations(np.array([0.1, np.nan, 0.5, -0.3]))
    assert [bar.get_height() for bar in figure.axes[0].patches[:3]] == [0.5, 0.1, -0.3]
    assert "mean: 0.10" in texts(figure)
    assert any("1 undefined left out" in t for t in texts(figure))


def test_voxel_map_shows_the_values_at_their_voxels():
    background, overlay = np.ones((6, 7, 3)), np.full((6, 7, 3), np.nan)
    overlay[2, 4, 1] = 3.0
    figure = figures.voxel_map(background, overlay, "z")
    assert [axes.get_title() for axes in figure.axes][:1] == ["slice 2"]
    drawn = figure.axes[0].get_images()[1].get_array()
    assert np.argwhere(np.isfinite(drawn.filled(np.nan))).tolist() == [[4, 2]]


def test_participants_keep_their_own_values_and_order(rng):
    table = participants(5, rng)
    axes = figures.group_scores(table, "score").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), table["value"])
    assert [t.get_text() for t in axes.get_xticklabels()] == list(table["participant"])
    large = figures.group_scores(participants(100, rng), "score").axes[0]
    assert (np.diff(large.lines[0].get_ydata()) <= 0).all()


def test_each_step_of_the_model_has_its_panel_with_all_variants_and_the_chosen_marked(rng):
    table = choices(rng)
    figure = figures.model_choice(table)
    steps = ["drift and noise", "noise components", "response function", "shrinkage"]
    titles = [axes.get_title("left").replace("\n", " ") for axes in figure.axes]
    assert titles == steps
    labels = [[t.get_text() for t in axes.get_xticklabels()] for axes in figure.axes]
    assert labels == [
        list("0123456"), [*"0123456", "8", "10"], ["glover", "own"], ["yes", "no"],
    ]  # fmt: skip
    for axes, step in zip(figure.axes, steps, strict=True):
        rows = [row for row in table if row["choice"] == step]
        *curves, mark = axes.lines
        drawn = np.concatenate([curve.get_ydata() for curve in curves])
        np.testing.assert_array_equal(drawn, [row["score"] for row in rows])
        best = next(row for row in rows if row["chosen"])
        assert mark.get_ydata()[0] == best["score"] == 0.21
        place = axes.get_xticklabels()[round(mark.get_xdata()[0])].get_text()
        expected = {"drift and noise": "2", "noise components": "3"}
        assert place == expected.get(step, "own" if step == "response function" else "yes")
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["white noise", "AR(1) noise"]


def test_variants_of_both_kinds_of_noise_stand_at_their_own_order(rng):
    axes = figures.model_choice(choices(rng, ["drift and noise"])).axes[0]
    for curve in axes.lines[:2]:
        np.testing.assert_array_equal(curve.get_xdata(), np.arange(7))


def test_small_helpers():
    assert number(-0.001) == "0.00"
    assert number(-1.5, 1) == "\u22121.5"
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abc", 5) == "abc"
    for n in (1, 7, 20, 72, 512, 100_000):
        assert ticks(n)[0] == 1
        assert ticks(n)[-1] <= n
        assert len(ticks(n)) <= 11
    assert np.diff(bins(np.full(3, 0.5), 40)).min() > 0


def test_importing_figures_loads_no_matplotlib():
    code = "import sys, hyper_bids.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
