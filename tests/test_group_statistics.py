"""Means over participants: intervals, corrected p, prevalence and methods compared, as planted."""

import itertools

import numpy as np
import pandas as pd
import pytest
from group_results import (
    IDENTIFICATION,
    KEYS,
    N_NULL,
    names_of,
    page,
    planted,
    read,
    run,
    stat,
    write_scores,
)
from scipy import stats as reference

from hyper_bids import metrics, stats
from hyper_bids.group.members import Member, Nulls
from hyper_bids.group.nulls import family, mean_nulls
from hyper_bids.group.tables import _tested, lined_up
from hyper_bids.perceptual import MINDEYE_IDENTIFIES, MINDEYE_MEASURES

SSIM = KEYS[2]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def group_of(out, rng, n, n_stimuli=6, **said) -> dict[str, dict]:
    found = {f"{k:02d}": planted(rng, n_stimuli=n_stimuli) for k in range(1, n + 1)}
    for label, scores in found.items():
        write_scores(out, label, scores, **said)
    return found


# Permutations that participants share


def member(folder, name, values, nulls, seed=0) -> Member:
    """Return a participant with these scores and nulls, and nothing else."""
    keys = [("hyper", "score", str(k)) for k in range(len(values))]
    table = pd.DataFrame(keys, columns=["method", "metric", "variant"])
    table = table.assign(control="n/a", value=values)
    path = folder / f"{name}.npy"
    np.save(path, nulls)
    rows = {key: row for row, key in enumerate(keys)}
    return Member(name, table, {}, Nulls(path, rows, nulls.shape[1], seed), {}, False)


def p_of_the_mean(folder, rng, shared: bool) -> np.ndarray:
    """Return p of the mean of 3 participants whose predictions agree but know nothing, 500 times.

    All predict alike for a stimulus, though it has nothing to do with the target.
    """
    n, n_permutations, n_sets = 6, 99, 500
    values, nulls = np.empty((3, n_sets)), np.empty((3, n_sets, n_permutations))
    for k in range(n_sets):
        targets, common = rng.normal(size=n), rng.normal(size=n)
        for participant in range(3):
            predicted = common + 0.3 * rng.normal(size=n)
            matrix = -np.square(predicted[:, None] - targets)
            values[participant, k] = np.trace(matrix) / n
            draws = np.random.default_rng([k, 0 if shared else participant])
            nulls[participant, k] = stats.pairing_null(matrix, n_permutations, draws)
    members = [
        member(folder, str(i), *both) for i, both in enumerate(zip(values, nulls, strict=True))
    ]
    found = mean_nulls(members, list(members[0].values))
    p = [stats.p_value(*one) for one in zip(values.mean(axis=0), found, strict=True)]
    # Uniform between the values that p can have.
    return np.array(p) - rng.uniform(size=n_sets) / (n_permutations + 1)


def test_p_of_the_mean_is_uniform_without_information_though_participants_agree(tmp_path, rng):
    p = p_of_the_mean(tmp_path, rng, shared=True)
    assert reference.kstest(p, "uniform").pvalue > 0.01


def test_p_of_the_mean_would_not_be_uniform_if_each_participant_were_shuffled_alone(tmp_path, rng):
    p = p_of_the_mean(tmp_path, rng, shared=False)
    assert np.mean(p <= 0.05) > 0.08
    assert reference.kstest(p, "uniform").pvalue < 1e-3


def test_smallest_corrected_p_of_the_means_is_uniform_without_information(tmp_path, rng):
    # Three scores of the same predictions, two participants with the same pairings, 500 times.
    n, n_permutations, n_sets = 7, 99, 500
    p = []
    for k in range(n_sets):
        targets = rng.normal(size=(n, 4))
        members = []
        for name in "ab":
            predicted = rng.normal(size=(n, 4))
            S = predicted @ targets.T
            matrices = [S, metrics.two_way(S), metrics.latent_similarity(predicted, targets)]
            nulls = stats.pairing_nulls(matrices, n_permutations, np.random.default_rng(k))
            values = [np.trace(M) / n for M in matrices]
            members.append(member(tmp_path, name, values, nulls))
        p.append(min(found["p_max"] for found in _tested(members).values()))
    p = np.array(p) - rng.uniform(size=n_sets) / (n_permutations + 1)
    assert reference.kstest(p, "uniform").pvalue > 0.01


def test_only_participants_with_one_seed_share_permutations(tmp_path, rng):
    nulls = rng.normal(size=(1, 9))
    members = [
        member(tmp_path, name, [0.5], nulls, seed)
        for name, seed in zip("abc", (1, 2, 2), strict=True)
    ]
    assert [m.participant for m in family(members)] == ["b", "c"]


def test_a_mean_has_no_null_where_a_participant_with_a_value_has_none(tmp_path, rng):
    one, two = (member(tmp_path, name, [0.5, 0.6], rng.normal(size=(2, 9))) for name in "ab")
    first, second = one.values
    del two.nulls.rows[second]
    found = mean_nulls([one, two], [first, second])
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_p_of_all_scores_and_participants_is_corrected_by_the_largest_of_all(out, rng):
    found = group_of(out, rng, 3)
    run(out)
    tests = [(label, key) for label in found for key in KEYS]
    observed = np.array([found[label][key]["value"] for label, key in tests])
    nulls = np.stack([found[label][key]["null"] for label, key in tests])
    expected = dict(zip(tests, stats.max_statistic(observed, nulls, 1e-5), strict=True))
    frame = read(out, "group_metrics")
    own = frame[frame["control"] == "n/a"]
    assert len(own) == len(tests)
    for row in own.to_dict("records"):
        p = expected[row["participant"], (row["metric"], row["variant"])]
        assert row["p_max"] == pytest.approx(p, rel=1e-5)
    assert frame[frame["control"] != "n/a"]["p_max"].isna().all()


def test_p_of_the_means_is_corrected_for_all_scores_of_all_methods(out, rng):
    methods = ("hyper", "eigenface")
    found = {label: {m: planted(rng) for m in methods} for label in ("01", "02")}
    for label, scores in found.items():
        write_scores(out, label, scores["hyper"], others={"eigenface": scores["eigenface"]})
    run(out)
    tests = [(method, key) for method in methods for key in KEYS]
    means = np.array([np.mean([s[m][k]["value"] for s in found.values()]) for m, k in tests])
    nulls = np.stack([np.mean([s[m][k]["null"] for s in found.values()], axis=0) for m, k in tests])
    expected = dict(zip(tests, stats.max_statistic(means, nulls, 1e-5), strict=True))
    frame = read(out, "group_stats")
    own = frame[frame["control"] == "n/a"]
    assert len(own) == len(tests)
    for row in own.to_dict("records"):
        p = expected[row["method"], (row["metric"], row["variant"])]
        assert row["p_max"] == pytest.approx(p, rel=1e-5)
        assert row["p"] <= row["p_max"]
    assert own["p_max"].nunique() > 1


def test_participants_with_other_permutations_have_no_corrected_p_and_are_named(out, rng):
    for label in ("01", "02", "03"):
        write_scores(out, label, planted(rng))
    write_scores(out, "04", planted(rng, n_null=N_NULL + 10))
    write_scores(out, "05", planted(rng, n_stimuli=5))
    run(out)
    frame = read(out, "group_metrics")
    known = frame[frame["p_max"].notna()]
    assert set(known["participant"]) == {"01", "02", "03"}
    assert "seeds differ: sub-04, sub-05." in page(out)
    assert f"p of the means is from the first {N_NULL}." in page(out)


# The paper's test


@pytest.mark.parametrize(
    ("given", "expected", "n_significant"),
    [((0.001, 0.03), 0.03, 2), ((0.001, 0.2), 0.2, 1), ((0.001, None), None, None)],
)
def test_the_papers_p_of_a_group_is_the_largest_of_its_participants_and_named_as_such(
    out, rng, given, expected, n_significant
):
    for label, p in zip(("01", "02"), given, strict=True):
        scores = planted(rng)
        scores[SSIM]["controls"] = {"random_prior": 0.3}
        path = write_scores(out, label, scores)
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
        table.loc[table["control"] == "random_prior", "p"] = "n/a" if p is None else str(p)
        table.to_csv(path, sep="\t", index=False)
    run(out)
    line = stat(out, SSIM, "random_prior")
    for name, wanted in (("p", expected), ("n_significant", n_significant)):
        assert np.isnan(line[name]) if wanted is None else line[name] == wanted
    assert np.isnan(line["p_max"])
    assert np.isnan(line["prevalence"])
    assert (">p, paper&#39;s test<" in page(out)) == (expected is not None)
    # The score itself is tested by pairings, as ever.
    assert stat(out, SSIM)["p"] != expected


# Intervals


def test_the_interval_of_a_distance_is_that_of_its_correlation_turned(out, rng):
    correlation, distance = ("feature_correlation", "SwAV"), ("correlation_distance", "SwAV")
    for label in ("01", "02"):
        scores = planted(rng, (*KEYS, correlation))
        held = scores[correlation]
        scores[distance] = {"value": 1 - held["value"], "p": held["p"]}
        scores[distance]["controls"] = {k: 1 - v for k, v in held["controls"].items()}
        write_scores(out, label, scores)
    run(out)
    one, other = stat(out, correlation), stat(out, distance)
    assert other["mean"] == pytest.approx(1 - one["mean"])
    for name in ("p", "p_max", "n_significant"):
        assert other[name] == one[name]
    assert other["interval_over"] == "stimuli"
    # The draws are their own.
    assert other["ci_low"] == pytest.approx(1 - one["ci_high"], abs=0.02)
    assert other["ci_high"] == pytest.approx(1 - one["ci_low"], abs=0.02)
    sections = page(out).split("<section id=")
    names = [s.split(">")[0] for s in sections if "Correlation distance" in s]
    assert names == ['"stats"']


def test_networks_of_mindeye_that_nobody_gave_are_named_in_one_line_and_change_no_number(out, rng):
    found = planted(rng)
    absent = [("two_way_identification", f"features, {name}") for name in MINDEYE_IDENTIFIES]
    absent += [
        (m, n) for n in MINDEYE_MEASURES for m in ("feature_correlation", "correlation_distance")
    ]
    write_scores(out, "01", found)
    run(out)
    before = read(out, "group_stats")
    write_scores(out, "01", found, absent=absent)
    run(out)
    after = read(out, "group_stats")
    lost = after[after["n_participants"] == 0]
    assert set(zip(lost["metric"], lost["variant"], strict=True)) == set(absent)
    rest = after[after["n_participants"] > 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, before)
    said = "Not computed: MindEye2&#39;s scores by AlexNet 2, AlexNet 5, Inception v3, CLIP, "
    said += "EfficientNet-B1, SwAV (give the networks&#39; files by --feature-network)."
    assert page(out).count(said) == 1


@pytest.mark.parametrize("n", [1, 3, 6])
def test_intervals_of_means_over_stimuli_are_of_participants_lined_up_by_stimulus(
    out, rng, n, monkeypatch
):
    """Each participant saw five of nine stimuli, in an order of its own."""
    names = names_of(9)
    expected = np.full((n, 9), np.nan)
    for k in range(n):
        scores = planted(rng, [SSIM], n_stimuli=5)
        seen = rng.permutation(9)[:5]
        expected[k, seen] = scores[SSIM]["value"] + scores[SSIM]["spread"]
        write_scores(out, f"{k:02d}", scores, stimuli=[names[i] for i in seen])
    expected = expected[:, ~np.isnan(expected).all(axis=0)]
    given = []
    original = stats.group_interval

    def recorded(values, *more, **named):
        given.append(values)
        return original(values, *more, **named)

    monkeypatch.setattr(stats, "group_interval", recorded)
    run(out)
    assert len(given) == 1
    np.testing.assert_allclose(given[0], expected, rtol=1e-5)
    line = stat(out, SSIM)
    found = original(expected, np.random.default_rng(3))
    width = found.high - found.low
    assert line["mean"] == pytest.approx(found.value, rel=1e-5)
    for name, value in (("se", found.se), ("ci_low", found.low), ("ci_high", found.high)):
        assert line[name] == pytest.approx(value, abs=0.1 * width)
    assert line["interval_over"] == ("stimuli and participants" if n >= 6 else "stimuli")


def test_scores_are_lined_up_by_stimulus_and_stimuli_without_scores_are_left_out():
    lines = [(("b", "a"), np.array([2.0, 1.0])), (("c", "b", "x"), np.array([3.0, 4.0, np.nan]))]
    np.testing.assert_array_equal(lined_up(lines), [[1, 2, np.nan], [np.nan, 4, 3]])


@pytest.mark.parametrize("n", [6, 9])
@pytest.mark.parametrize("control", ["n/a", "mismatched"])
def test_from_six_participants_on_correlations_and_controls_have_t_intervals(out, rng, n, control):
    found = group_of(out, rng, n)
    run(out)
    scores = [s[KEYS[0]] for s in found.values()]
    values = [s["value"] if control == "n/a" else s["controls"][control] for s in scores]
    line = stat(out, KEYS[0], control)
    low, high = reference.t.interval(0.95, n - 1, np.mean(values), reference.sem(values))
    assert line["se"] == pytest.approx(reference.sem(values), rel=1e-4)
    assert (line["ci_low"], line["ci_high"]) == pytest.approx((low, high), abs=1e-5)
    assert line["interval_over"] == "participants"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_of_few_participants_correlations_have_the_mean_of_their_intervals_and_controls_none(
    out, rng, n
):
    found = group_of(out, rng, n)
    run(out)
    mean = np.mean([scores[KEYS[0]]["value"] for scores in found.values()])
    line = stat(out, KEYS[0])
    assert line["se"] == pytest.approx(0.01)
    assert (line["ci_low"], line["ci_high"]) == pytest.approx((mean - 0.02, mean + 0.02), abs=1e-5)
    assert line["interval_over"] == "stimuli"
    control = stat(out, KEYS[0], "mismatched")
    assert control[["se", "ci_low", "ci_high", "interval_over"]].isna().all()


def test_the_same_seed_gives_the_same_intervals_whatever_other_scores_there_are(out, tmp_path, rng):
    found = {label: planted(rng) for label in ("01", "02")}
    tables = {}
    for name, keys, words in (
        ("all", KEYS, ()), ("one", [SSIM], ()), ("other seed", [SSIM], ("--random-seed", "5")),
    ):  # fmt: skip
        folder = tmp_path / name / "out"
        for label, scores in found.items():
            write_scores(folder, label, {key: scores[key] for key in keys})
        run(folder, *words)
        tables[name] = stat(folder, SSIM)
    assert tables["all"]["ci_low"] == tables["one"]["ci_low"] != tables["other seed"]["ci_low"]


# How many people


@pytest.mark.parametrize("p", [(0.01, 0.05), (0.01, 0.2, 0.9), (0.06,) * 4, (0.001,) * 12])
def test_prevalence_is_that_of_the_participants_own_p(out, rng, p):
    for k, own in enumerate(p):
        scores = planted(rng, [IDENTIFICATION])
        scores[IDENTIFICATION]["p"] = own
        write_scores(out, f"{k:02d}", scores)
    run(out)
    expected = stats.prevalence(np.array(p))
    line = stat(out, IDENTIFICATION)
    assert (line["n_significant"], line["n_participants"]) == (expected.k, len(p))
    for name, value in (("", expected.value), ("_low", expected.low), ("_high", expected.high)):
        assert line[f"prevalence{name}"] == pytest.approx(value, abs=1e-5)


def test_the_page_says_in_plain_words_how_many_people(out, rng):
    group_of(out, rng, 2)
    run(out)
    text = page(out)
    assert "<td>2 of 2</td>" in text
    # 0.335: not quite the 34 % that docs/statistics.md rounds it to.
    assert "<td>at least 33 % of people</td>" in text
    assert "<td>100 %</td>" in text
    assert "p, corrected" in text


# Methods compared


def brute_sign_flips(differences) -> float:
    """Return the two-sided p over all patterns of signs."""
    observed = abs(np.mean(differences))
    patterns = itertools.product((1, -1), repeat=len(differences))
    reached = [abs(np.mean(np.multiply(s, differences))) >= observed - 1e-9 for s in patterns]
    return float(np.mean(reached))


@pytest.mark.parametrize("n", [1, 3, 7])
def test_methods_are_compared_in_the_same_participants_and_stimuli(out, rng, n):
    own, other = [], []
    for k in range(n):
        one, two = planted(rng, [SSIM, KEYS[0]]), planted(rng, [SSIM, KEYS[0]])
        write_scores(out, f"{k:02d}", one, others={"eigenface": two})
        own.append(one[SSIM]["value"] + one[SSIM]["spread"])
        other.append(two[SSIM]["value"] + two[SSIM]["spread"])
    # Of one method alone, there is nothing to compare.
    write_scores(out, "99", planted(rng, [SSIM]))
    run(out)
    frame = read(out, "group_comparisons")
    # Latents differ between methods, and do not compare.
    assert frame[["metric", "variant", "method", "other"]].to_numpy().tolist() == [
        [*SSIM, "hyper", "eigenface"]
    ]
    line = frame.iloc[0]
    differences = np.array(own) - np.array(other)
    assert line["difference"] == pytest.approx(differences.mean(), abs=1e-5)
    assert line["n_participants"] == n
    axis = 0 if n < 6 else 1
    assert line["p"] == pytest.approx(brute_sign_flips(differences.mean(axis=axis)), rel=1e-4)
    assert line["interval_over"] == ("stimuli" if n < 6 else "stimuli and participants")
    assert line["ci_low"] < line["difference"] < line["ci_high"]
    assert "HYPER \u2212 Eigenface" in page(out)
    assert "Methods were compared" in page(out)


def test_methods_are_compared_on_the_stimuli_that_have_both_scores(out, rng):
    one, two = planted(rng, [SSIM], n_stimuli=4), planted(rng, [SSIM], n_stimuli=4)
    one[SSIM]["spread"][3] = np.nan
    write_scores(out, "01", one, others={"eigenface": two})
    run(out)
    expected = (one[SSIM]["value"] + one[SSIM]["spread"] - two[SSIM]["value"]
                - two[SSIM]["spread"])[:3].mean()  # fmt: skip
    assert read(out, "group_comparisons")["difference"].tolist() == pytest.approx([expected], 1e-4)


@pytest.mark.parametrize(
    ("key", "compared"),
    [
        (("feature_similarity", "code, VGGFace"), True),
        (("two_way_identification", "images, SSIM"), True),
        (("one_of_n_identification", "features, VGGFace"), True),
        (("luminance_correlation", "n/a"), True),
        (("pixel_correlation", "MindEye2"), True),
        (("two_way_identification", "latents"), False),
        (("latent_similarity", "code"), False),
        (("attribute_correlation", "age"), False),
    ],
)
def test_scores_of_images_compare_methods_and_those_of_latents_do_not(out, rng, key, compared):
    write_scores(out, "01", planted(rng, [key]), others={"eigenface": planted(rng, [key])})
    run(out)
    assert (out / "group_comparisons.tsv").is_file() == compared


def test_of_three_methods_each_two_are_compared(out, rng):
    others = {name: planted(rng, [SSIM]) for name in ("vaegan", "eigenface")}
    write_scores(out, "01", planted(rng, [SSIM]), others=others)
    run(out)
    assert read(out, "group_comparisons")[["method", "other"]].to_numpy().tolist() == [
        ["hyper", "vaegan"], ["hyper", "eigenface"], ["vaegan", "eigenface"],
    ]  # fmt: skip


def test_a_comparison_of_an_earlier_run_does_not_stay_beside_other_means(out, rng):
    write_scores(out, "01", planted(rng), others={"eigenface": planted(rng)})
    run(out)
    assert len(read(out, "group_comparisons"))
    write_scores(out, "01", planted(rng))
    run(out)
    assert not len(read(out, "group_comparisons"))
    assert "Methods compared" not in page(out)


# Little to go by


def test_what_describes_predictions_has_a_mean_but_no_p_and_a_place_of_its_own(out, rng):
    for label in ("01", "02"):
        scores = planted(rng)
        scores["effective_dimension", "n/a"] = {"value": 4.0, "controls": {"targets": 5.0}}
        write_scores(out, label, scores)
    run(out)
    line = stat(out, ("effective_dimension", "n/a"))
    assert line["mean"] == 4
    assert line[["p", "p_max", "n_significant", "prevalence"]].isna().all()
    assert stat(out, ("effective_dimension", "n/a"), "targets")["mean"] == 5
    before, after = page(out).split('<section id="diagnostics">')
    assert "Effective dimension" not in before
    assert "Effective dimension" in after.split("</section>")[0]


def test_a_score_that_nobody_has_is_called_not_computed_among_the_scores(out, rng):
    write_scores(out, "01", planted(rng), absent=[("feature_similarity", "code")])
    run(out)
    section = page(out).split('<section id="stats">')[1].split("</section>")[0]
    assert "Not computed: feature similarity." in section


def test_scores_that_do_not_depend_on_the_pairing_have_p_of_one_alone_and_corrected(out, rng):
    """A constant prediction: 0.5 in identification, in every shuffling."""
    for label in ("01", "02"):
        scores = planted(rng)
        scores[IDENTIFICATION] |= {"value": 0.5, "null": np.full(N_NULL, 0.5), "p": 1.0}
        write_scores(out, label, scores)
    run(out)
    line = stat(out, IDENTIFICATION)
    assert (line["p"], line["p_max"], line["n_significant"]) == (1, 1, 0)
    frame = read(out, "group_metrics")
    own = frame[(frame["metric"] == IDENTIFICATION[0]) & (frame["control"] == "n/a")]
    assert own["p_max"].tolist() == [1, 1]


@pytest.mark.parametrize("n_stimuli", [1, 2])
def test_a_group_of_fewer_than_three_test_stimuli_is_told_to_say_little(out, rng, n_stimuli):
    group_of(out, rng, 2, n_stimuli=n_stimuli)
    run(out)
    line = stat(out, SSIM)
    assert np.isfinite(line["mean"])
    assert np.isnan(line["ci_low"]) == (n_stimuli == 1)
    assert "Fewer than 3 test stimuli: sub-01, sub-02." in page(out)


def test_participants_with_other_test_stimuli_are_averaged_and_named(out, rng):
    for label in ("01", "02"):
        write_scores(out, label, planted(rng))
    write_scores(out, "03", planted(rng), stimuli=["house1", *names_of(5)])
    run(out)
    assert stat(out, SSIM)["n_participants"] == 3
    assert "Other test stimuli than in the rest: sub-03." in page(out)
    # As many stimuli have the same permutations.
    assert read(out, "group_metrics").groupby("participant")["p_max"].count().tolist() == [3] * 3


def test_nothing_is_noted_of_stimuli_where_all_saw_the_same(out, rng):
    group_of(out, rng, 2)
    run(out)
    assert "than in the rest" not in page(out)
    assert "Fewer than" not in page(out)
