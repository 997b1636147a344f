"""Real brain data: one slice of Haxby et al. (2001), eight categories, twelve runs."""

from pathlib import Path

import app
import pandas as pd
import pytest

DATASET = Path(__file__).resolve().parents[2] / "shared" / "data" / "ds-haxby2001slice"

pytestmark = pytest.mark.skipif(
    not DATASET.is_dir(), reason="the real dataset lies beside the checkout, and is not there"
)

# What a plain reference reaches: assumed HRF, ridge on all voxels, single blocks.
REFERENCE = {"two_way_identification": 0.81, "one_of_n_identification": 0.50}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return the derivatives of both levels, with no other flag than the dataset needs."""
    folder = tmp_path_factory.mktemp("haxby") / "out"
    assert app.run(DATASET, folder, "--allow-shared-stimuli") == 0
    assert app.run(DATASET, folder, level="group") == 0
    return folder


def test_categories_in_both_sets_need_the_flag_that_says_so(tmp_path):
    assert app.run(DATASET, tmp_path / "out") == 65
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("metric", REFERENCE)
def test_single_blocks_are_told_apart_at_least_as_well_as_by_the_reference(out, metric):
    found = app.scores(out, metric, "latents, single trials")
    assert found["score"] >= REFERENCE[metric]
    assert found["score"] > found["training_mean"] + 0.3
    assert found["p"] < 0.001


def test_averaged_blocks_are_told_apart_better_than_single_ones(out):
    for metric in REFERENCE:
        averaged = app.scores(out, metric, "latents")
        assert averaged["score"] >= app.scores(out, metric, "latents, single trials")["score"]
        assert averaged["p"] < 0.001


def test_the_page_says_that_categories_are_not_unseen_stimuli(out):
    page = (out / "sub-01.html").read_text("utf-8")
    assert "not how well unseen stimuli are decoded" in page
    assert "Training and test trials could show the same stimuli" in page
    assert "Simulated" not in page


def test_the_group_of_one_has_its_score_and_p_and_an_interval_over_stimuli(out):
    table = pd.read_csv(out / "group_stats.tsv", sep="\t", na_values="n/a")
    row = table[(table["metric"] == "two_way_identification") & table["control"].isna()].iloc[0]
    assert row["mean"] == app.scores(out, "two_way_identification", "latents")["score"]
    assert row["p"] < 0.001
    assert row["ci_low"] <= row["mean"] <= row["ci_high"]
    assert row["interval_over"] == "stimuli"


def test_the_penalty_comes_from_left_out_runs(out):
    """Leaving out single blocks would not do: a run's other blocks give the left-out one away."""
    assert app.sidecar(out, "_decoder.json")["cv"] == "9 folds"
    assert 0.2 < max(app.sidecar(out, "_decoder.json")["Course"]["cv_r2"]) < 0.6


def test_the_derivatives_are_valid_bids(out):
    assert app.bids_errors(out) == []
