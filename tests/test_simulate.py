"""The simulated dataset: its design, its signal, its files, and the truth that it stores."""

import dataclasses
import json
import tracemalloc
from collections import Counter

import app
import nibabel
import numpy as np
import pandas as pd
import pytest

from hyper_bids.errors import InputError, OutputError, UsageError
from hyper_bids.simulate import brain, recording, signal
from hyper_bids.simulate.dataset import simulate
from hyper_bids.simulate.design import check, make_design, n_volumes, trial_onsets
from hyper_bids.simulate.head import head_positions, moved
from hyper_bids.simulate.shared import RHYTHMS, shared_courses, shared_loadings
from hyper_bids.simulation_arguments import parse_simulation
from hyper_bids.simulation_settings import SIMULATION_PRESETS, SimulationSettings

TINY = SimulationSettings(
    n_train_runs=2,
    n_test_runs=1,
    trials_per_run=12,
    n_test_stimuli=5,
    shape=(10, 12, 8),
    n_coding_voxels=40,
    n_latents=4,
    generator="none",
)
CLEAN = {"noise": (0.0,), "drift": 0.0, "spikes_per_run": 0, "hrf_variation": 0.0}
HYPER = SimulationSettings(**SIMULATION_PRESETS["hyper"])


class TinyGenerator:
    """Paints the first three latents as a flat colour."""

    name = "tiny"
    n_latents = 4
    image_shape = (8, 8, 3)
    normalises = False
    checksum = "ab" * 32

    def generate(self, latents):
        colours = 1 / (1 + np.exp(-np.asarray(latents)[:, None, None, :3]))
        return np.broadcast_to(colours, (len(latents), 8, 8, 3)).astype(np.float32)

    def encode(self, images):
        raise InputError("tiny has no encoder")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    settings = dataclasses.replace(TINY, with_derivatives=True)
    return simulate(tmp_path_factory.mktemp("simulated") / "ds", settings, TinyGenerator())


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_truth(folder, participant="01"):
    stem = folder / "sourcedata" / "simulation" / f"sub-{participant}_truth"
    sidecar = json.loads(stem.with_suffix(".json").read_text())
    with np.load(stem.with_suffix(".npz"), allow_pickle=False) as arrays:
        return dict(arrays), sidecar


def nilearn_design(onsets, duration, n_vols, t_r):
    """Return one regressor a trial on nilearn's glover response, scaled to a peak of 1."""
    from nilearn.glm.first_level.hemodynamic_models import compute_regressor

    def regressor(onset, times):
        condition = np.array([[onset], [duration], [1.0]])
        return compute_regressor(condition, "glover", times, oversampling=50)[0][:, 0]

    # nilearn's sampling sees peaks between volumes only if volumes fall on them: a fine grid does.
    step = t_r / 20
    peak = regressor(5.0, np.arange(0, 40, step)).max()
    times = (np.arange(n_vols) + 0.5) * t_r
    return np.column_stack([regressor(onset, times) for onset in onsets]) / peak


def single_trial_betas(folder, participant, run, settings):
    """Estimate betas (n_trials, n_coding), percent, by least squares on nilearn's design."""
    stem = folder / f"sub-{participant}" / "func" / f"sub-{participant}_task-faces_run-{run:02d}"
    events = pd.read_csv(f"{stem}_events.tsv", sep="\t")
    truth, _ = read_truth(folder, participant)
    bold = np.asarray(nibabel.load(f"{stem}_bold.nii.gz").dataobj)
    bold = bold[tuple(truth["coding_voxels"].T)].T.astype(float)
    trials = nilearn_design(events["onset"], settings.duration, len(bold), settings.t_r)
    drift = np.vander(np.linspace(-1, 1, len(bold)), 3)
    betas = np.linalg.lstsq(np.hstack([trials, drift]), bold, rcond=None)[0][: len(events)]
    return 100 * betas / bold.mean(axis=0), events


def rows_of(folder, events):
    table = pd.read_csv(folder / "stimuli" / "latents.tsv", sep="\t", keep_default_na=False)
    return table.set_index("stim_id").loc[events["stim_id"], "latent_row"].to_numpy()


# design


def test_hyper_preset_has_the_counts_of_the_paper(rng):
    design = make_design(HYPER, rng)
    assert design.stimulus.shape == (9, 175)
    assert np.allclose(np.diff(design.onsets), 4.5)
    assert HYPER.t_r == 1.5
    assert design.is_test.tolist() == [True] * 3 + [False] * 6
    test = Counter(design.stimulus[:3].ravel().tolist())
    train = Counter(design.stimulus[3:].ravel().tolist())
    assert len(test) == 36
    assert set(test.values()) == {14, 15}
    assert len(train) == 1050
    assert set(train.values()) == {1}
    assert not test.keys() & train.keys()


@pytest.mark.parametrize("n_test", [2, 3, 7, 12])
def test_no_stimulus_is_shown_twice_in_a_row_and_counts_differ_by_one_at_most(n_test):
    settings = dataclasses.replace(TINY, n_test_stimuli=n_test, n_test_runs=5)
    for seed in range(30):
        design = make_design(settings, np.random.default_rng(seed))
        shown = design.stimulus[:5].ravel()
        assert (np.diff(shown) != 0).all()
        counts = np.unique(shown, return_counts=True)[1]
        assert len(counts) == n_test
        assert np.ptp(counts) <= 1


def test_a_single_test_stimulus_is_shown_in_every_test_trial(rng):
    design = make_design(dataclasses.replace(TINY, n_test_stimuli=1), rng)
    assert set(design.stimulus[0].tolist()) == {24}


@pytest.mark.parametrize("t_r", [1.5, 2.0, 0.8, 1.37])
def test_run_has_its_lead_in_and_lead_out_and_no_volume_more(t_r):
    settings = dataclasses.replace(TINY, t_r=t_r)
    onsets = trial_onsets(settings)
    assert onsets[0] == 6.0
    spare = n_volumes(settings) * t_r - (onsets[-1] + settings.soa + 12.0)
    assert -1e-6 <= spare < t_r


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_participants", 0),
        ("n_train_runs", 0),
        ("n_test_runs", 0),
        ("n_test_stimuli", 13),
        ("t_r", 0.0),
        ("t_r", float("nan")),
        ("soa", 1.0),
        ("duration", 5.0),
        ("shape", (10, 12)),
        ("shape", (10, 12, 3)),
        ("n_coding_voxels", 500),
        ("noise", ()),
        ("noise", (1.0, 2.0, 3.0)),
        ("noise", (-1.0,)),
        ("autocorrelation", 1.0),
        ("drift", -1.0),
        ("spikes_per_run", 40),
        ("hrf_variation", 5.0),
        ("shared_noise", -0.5),
        ("shared_noise", float("nan")),
        ("motion", -0.5),
        ("motion", float("inf")),
        ("random_seed", -1),
    ],
)
def test_setting_that_contradicts_is_named_and_nothing_is_written(tmp_path, name, value):
    settings = dataclasses.replace(TINY, **{name: value})
    with pytest.raises(UsageError, match=rf"setting {name} = ") as caught:
        simulate(tmp_path / "ds", settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ds").exists()


def test_motion_needs_slices_and_shared_noise_needs_volumes(tmp_path):
    flat = dataclasses.replace(TINY, shape=(12, 14, 7), motion=0.5)
    with pytest.raises(UsageError, match=r"setting motion = 0\.5: .* at least 8 slices, .* has 7"):
        simulate(tmp_path / "ds", flat)
    short = {"t_r": 3.0, "trials_per_run": 2, "n_test_stimuli": 1}
    short = dataclasses.replace(TINY, shared_noise=0.5, **short)
    with pytest.raises(UsageError, match=r"setting shared_noise = 0\.5: .* 10 volumes .* have 9"):
        simulate(tmp_path / "ds", short)
    assert not (tmp_path / "ds").exists()
    for settings in (flat, short):
        check(dataclasses.replace(settings, shared_noise=0.0, motion=0.0))


def test_flags_for_shared_noise_and_motion_become_settings():
    _, settings = parse_simulation(["out", "--shared-noise", "0.5", "--motion", "0.3"], "simulate")
    assert (settings.shared_noise, settings.motion) == (0.5, 0.3)
    _, settings = parse_simulation(["out", "--preset", "hyper"], "simulate")
    assert (settings.shared_noise, settings.motion) == (0, 0)


@pytest.mark.parametrize("preset", sorted(SIMULATION_PRESETS))
def test_every_preset_agrees_with_itself(preset):
    settings = SimulationSettings(**SIMULATION_PRESETS[preset])
    check(settings)
    coding = brain.coding_mask(brain.brain_mask(settings.shape), settings.n_coding_voxels)
    assert coding.sum() == settings.n_coding_voxels


# brain and signal


@pytest.mark.parametrize(
    ("shape", "n"), [((16, 18, 12), 300), ((16, 18, 12), 1), ((9, 11, 7), 45), ((20, 24, 16), 1100)]
)
def test_coding_voxels_are_one_or_two_clusters_at_the_back_of_the_brain(shape, n):
    from scipy.ndimage import label

    mask = brain.brain_mask(shape)
    coding = brain.coding_mask(mask, n)
    assert coding.sum() == n
    assert mask[coding].all()
    assert label(coding)[1] <= 2
    assert np.argwhere(coding)[:, 1].max() < shape[1] / 2


@pytest.mark.parametrize("duration", [0.5, 1.5, 4.0])
def test_response_is_nilearns_glover_response_with_peak_one(duration):
    from nilearn.glm.first_level.hemodynamic_models import compute_regressor

    times = np.arange(0, 40, 0.05)
    ours = signal.response(times - 2.0, duration, np.array([5.1]), np.array([0.9]))[:, 0]
    condition = np.array([[2.0], [duration], [1.0]])
    theirs = compute_regressor(condition, "glover", times, oversampling=50)[0][:, 0]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9999
    assert ours.max() == pytest.approx(1, abs=1e-3)
    assert (ours[times < 2] == 0).all()


def test_response_of_each_voxel_peaks_when_its_delay_says():
    peaks = np.array([4.1, 5.1, 6.1])
    times = np.arange(0, 20, 0.01)
    responses = signal.response(times, 0.02, peaks, np.full(3, 0.9))
    # The undershoot moves the peak of the difference forward, by an eighth of a second at most.
    found = times[responses.argmax(0)]
    assert (found <= peaks + 0.01).all()
    assert np.allclose(found, peaks, atol=0.14)
    wide = signal.response(times, 0.02, np.full(2, 5.1), np.array([0.8, 1.1]))
    assert np.diff((wide > 0.5).sum(axis=0)) > 0


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_noise_is_a_stationary_ar1_process_of_unit_variance(rng, rho):
    noise = signal.autocorrelated(60, 40_000, rho, rng).astype(float)
    assert np.allclose(noise.var(axis=1), 1, atol=0.05)
    for lag in (1, 2, 3):
        products = (noise[lag:] * noise[:-lag]).mean(axis=1)
        assert np.allclose(products, rho**lag, atol=0.05)


@pytest.mark.parametrize(("n_vols", "n_cosines"), [(132, 3), (48, 1), (20, 1)])
def test_drift_has_unit_sd_over_time_and_is_slow(rng, n_vols, n_cosines):
    from scipy.fft import dct

    drift = signal.drifts(n_vols, 50, 1.5, rng).astype(float)
    assert np.allclose(drift.std(axis=0), 1, atol=1e-4)
    power = (dct(drift, axis=0, norm="ortho") ** 2).mean(axis=1)
    assert power[1 : 1 + n_cosines].sum() / power.sum() > 0.9999
    assert (power[1 : 1 + n_cosines] > 0.01).all()


def test_spikes_have_their_stated_size_and_decay_and_move_the_head_with_them(rng):
    settings = dataclasses.replace(TINY, shape=(24, 24, 24), noise=(0.0,), drift=0.0)
    head = brain.make_brain(settings, rng)
    volumes, courses = signal.spike_courses(48, 1, rng)
    still = np.zeros((48, 40))
    values = signal.run_signal(settings, head, still, 0.0, courses, rng)
    percent = 100 * (values / head.baseline - 1)
    size = np.sqrt((percent**2).mean(axis=1))
    first = volumes[0]
    assert np.allclose(size[first : first + 3], [2.0, 1.0, 0.5], rtol=0.05)
    assert np.allclose(np.delete(size, range(first, first + 3)), 0, atol=1e-4)
    jumps = np.abs(np.diff(signal.motion(courses, rng)[:, :3], axis=0)).sum(axis=1)
    assert jumps.argmax() + 1 in (first, first + 1)


def test_run_signal_adds_drift_and_noise_of_the_asked_size(rng):
    settings = dataclasses.replace(TINY, shape=(24, 24, 24), drift=3.0, autocorrelation=0.0)
    head = brain.make_brain(settings, rng)
    none = np.zeros((200, 0), np.float32)
    values = signal.run_signal(settings, head, np.zeros((200, 40)), 0.5, none, rng)
    percent = 100 * (values / head.baseline - 1)
    assert np.median(percent.var(axis=0)) == pytest.approx(9 + 0.25, rel=0.02)
    assert np.median(np.diff(percent, axis=0).var(axis=0)) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(("t_r", "rho"), [(1.5, 0.0), (1.5, 0.5), (2.0, 0.3)])
def test_noise_level_is_the_beta_error_relative_to_the_sd_of_the_code(rng, t_r, rho):
    settings = dataclasses.replace(TINY, t_r=t_r, autocorrelation=rho, trials_per_run=30)
    design = make_design(settings, rng)
    level = 2.0
    noise = signal.autocorrelated(design.n_volumes, 4000, rho, rng)
    noise = noise * level * signal.noise_percent(settings, design)
    trials = nilearn_design(design.onsets, settings.duration, design.n_volumes, t_r)
    drift = np.vander(np.linspace(-1, 1, design.n_volumes), 3)
    errors = np.linalg.lstsq(np.hstack([trials, drift]), noise, rcond=None)[0][:30]
    assert errors.std(axis=0, ddof=1).mean() / brain.CODE_SD == pytest.approx(level, rel=0.05)


def test_every_coding_voxel_responds_to_the_average_stimulus_and_codes_with_the_stated_sd(rng):
    settings = dataclasses.replace(TINY, n_latents=20)
    head = brain.make_brain(settings, rng)
    betas = head.mean_response + rng.standard_normal((5000, 20)) @ head.weights
    assert (head.mean_response >= 1).all()
    assert (head.mean_response <= 2).all()
    assert np.allclose(betas.std(axis=0), brain.CODE_SD, rtol=0.05)


@pytest.mark.parametrize(("preset", "overlap"), [("small", 0.9), ("demo", 0.97)])
def test_epi_mask_of_nilearn_finds_the_brain(rng, preset, overlap):
    from nilearn.masking import compute_epi_mask

    settings = SimulationSettings(**SIMULATION_PRESETS[preset])
    head = brain.make_brain(settings, rng)
    flat = np.zeros((20, settings.n_coding_voxels))
    none = np.zeros((20, 0), np.float32)
    values = signal.run_signal(settings, head, flat, 1.0, none, rng)
    image = nibabel.Nifti1Image(signal.to_image(values, head.mask, rng), np.diag([2, 2, 2, 1]))
    # Its threshold is exact; its opening rounds off the poles of so small a brain.
    threshold = compute_epi_mask(image, opening=0).get_fdata() > 0
    assert (threshold == head.mask).all()
    found = compute_epi_mask(image).get_fdata() > 0
    dice = 2 * (found & head.mask).sum() / (found.sum() + head.mask.sum())
    assert dice > overlap


def test_shared_noise_has_the_asked_sd_over_time_on_average_over_voxels(rng):
    mask = brain.brain_mask((16, 18, 12))
    loadings = shared_loadings(mask, 0.7, rng)
    coding = brain.coding_mask(mask, 300)[mask]
    for t_r, n_vols in ((1.5, 132), (2.0, 40), (0.8, 10)):
        courses = shared_courses(n_vols, t_r, rng)
        assert np.allclose(courses.mean(axis=0), 0, atol=1e-5)
        assert np.allclose(courses.T @ courses / n_vols, np.eye(len(RHYTHMS)), atol=1e-5)
        size = (courses @ loadings).std(axis=0)
        assert size.mean() == pytest.approx(0.7, rel=1e-4)
        # Voxels that code share it with the others, and none is without.
        assert size[coding].mean() == pytest.approx(0.7, rel=0.2)
        assert size.min() > 0.1
    assert np.allclose((loadings**2).mean(axis=1), (loadings**2).mean(), rtol=1e-3)


def test_loadings_of_shared_noise_are_smooth_over_space_and_differ(rng):
    mask = brain.brain_mask((20, 24, 16))
    loadings = shared_loadings(mask, 1.0, rng)
    assert (loadings[0] > 0).mean() > 0.95
    volumes = np.full((len(RHYTHMS), *mask.shape), np.nan)
    volumes[:, mask] = loadings
    for axis in (1, 2, 3):
        steps = np.nanstd(np.diff(volumes, axis=axis), axis=(1, 2, 3))
        assert (steps < 0.5 * loadings.std(axis=1)).all()
    assert np.linalg.cond(loadings) < 5


def test_shared_courses_have_the_rhythms_that_are_stated(rng):
    t_r, n_vols, lags = 1.0, 1500, np.arange(8)
    runs = np.stack([shared_courses(n_vols, t_r, rng) for _ in range(20)]).astype(float)
    for course, (frequency, time_constant) in enumerate(RHYTHMS):
        x = runs[..., course]
        found = [(x[:, lag:] * x[:, : n_vols - lag]).mean() for lag in lags]
        expected = np.exp(-lags * t_r / time_constant) * np.cos(2 * np.pi * frequency * lags * t_r)
        assert np.allclose(found, expected, atol=0.06), frequency


def test_head_walks_smoothly_from_run_to_run_as_far_as_asked(rng):
    positions = head_positions(4, 100, 1.5, 0.6, rng)
    assert positions.shape == (4, 100, 6)
    walk = positions.reshape(-1, 6) * [1, 1, 1, 50, 50, 50]
    assert np.allclose(walk.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(walk.std(axis=0), 0.6)
    steps = np.diff(walk, axis=0)
    assert np.abs(steps).max() < 0.25
    assert (np.diff(steps, axis=0).std(axis=0) < 0.7 * steps.std(axis=0)).all()
    # It goes on where the run before ended: there is no jump.
    assert np.abs(steps[99::100]).max() < 0.25
    assert (np.ptp(positions.mean(axis=1), axis=0) > 0).all()


def test_moved_head_is_where_its_position_says():
    shape = (20, 24, 16)
    affine = recording.affine(shape)
    places = nibabel.affines.apply_affine(affine, np.indices(shape).reshape(3, -1).T)

    def centre(image):
        return image.ravel() @ places / image.sum()

    start = np.array([6.0, -9.0, 4.0])
    blob = 20_000 * np.exp(-((places - start) ** 2).sum(axis=1) / (2 * 3.0**2))
    blob = np.rint(blob).astype(np.int16).reshape(shape)
    a, b, c = 0.1, -0.15, 0.2
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    positions = np.array([[0.0] * 6, [1.3, -0.7, 2.1, 0, 0, 0], [1.3, -0.7, 2.1, a, b, c]])
    seen = moved(np.stack([blob] * 3, axis=-1), positions, recording.VOXEL_SIZE)
    assert seen.dtype == np.int16
    assert (seen[..., 0] == blob).all()
    assert np.allclose(centre(seen[..., 1]), centre(blob) + positions[1, :3], atol=0.02)
    turned = about_z @ about_y @ about_x @ centre(blob) + positions[2, :3]
    assert np.allclose(centre(seen[..., 2]), turned, atol=0.02)


# the dataset


@pytest.mark.parametrize("t_r", [1.5, 2.0, 1.37])
def test_least_squares_on_nilearns_design_gives_back_the_true_betas(tmp_path, t_r):
    settings = dataclasses.replace(TINY, t_r=t_r, n_participants=1, **CLEAN)
    folder = simulate(tmp_path / "ds", settings)
    truth, _ = read_truth(folder)
    runs = [single_trial_betas(folder, "01", run, settings) for run in (1, 2, 3)]
    betas = np.vstack([found for found, _ in runs])
    expected = np.vstack([truth["betas"][rows_of(folder, events)] for _, events in runs])
    assert np.corrcoef(betas.ravel(), expected.ravel())[0, 1] > 0.99
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(betas.T, expected.T, strict=True)]
    # The image holds whole units: 0.03 percent of the signal, of a code with an sd of 0.5.
    assert np.median(correlations) > 0.99
    assert min(correlations) > 0.98


def test_betas_come_back_in_percent_signal_change_of_the_baseline(tmp_path):
    settings = dataclasses.replace(TINY, n_participants=1, **CLEAN)
    folder = simulate(tmp_path / "ds", settings)
    truth, _ = read_truth(folder)
    betas, events = single_trial_betas(folder, "01", 2, settings)
    # The mean signal holds the mean response too, so percent of it is a little less.
    ratio = betas.mean() / truth["betas"][rows_of(folder, events)].mean()
    assert ratio == pytest.approx(1, abs=0.05)


def test_ridge_of_scikit_learn_recovers_the_latents_of_test_stimuli(tmp_path):
    from sklearn.linear_model import RidgeCV

    settings = dataclasses.replace(
        TINY, n_participants=1, trials_per_run=30, n_train_runs=3, n_test_stimuli=15, noise=(0.5,)
    )
    folder = simulate(tmp_path / "ds", settings)
    latents = np.load(folder / "stimuli" / "latents.npy")
    runs = [single_trial_betas(folder, "01", run, settings) for run in (1, 2, 3, 4)]
    betas = [b - b.mean(axis=0) for b, _ in runs]
    rows = [rows_of(folder, events) for _, events in runs]
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(
        np.vstack(betas[1:]), latents[np.concatenate(rows[1:])]
    )
    shown = np.unique(rows[0])
    means = np.stack([betas[0][rows[0] == row].mean(axis=0) for row in shown])
    predicted = model.predict(means)
    for dimension in range(settings.n_latents):
        r = np.corrcoef(predicted[:, dimension], latents[shown, dimension])[0, 1]
        assert r > 0.8


def test_noise_hides_the_code(tmp_path):
    folder = simulate(tmp_path / "ds", dataclasses.replace(TINY, **CLEAN | {"noise": (0.0, 20.0)}))
    correlations = []
    for participant in ("01", "02"):
        truth, _ = read_truth(folder, participant)
        betas, events = single_trial_betas(folder, participant, 2, TINY)
        expected = truth["betas"][rows_of(folder, events)]
        expected = expected - expected.mean(axis=0)
        betas = betas - betas.mean(axis=0)
        correlations.append(np.corrcoef(betas.ravel(), expected.ravel())[0, 1])
    assert correlations[0] > 0.99
    assert abs(correlations[1]) < 0.2


def test_stimuli_are_the_same_for_all_participants_and_their_order_is_not(dataset):
    orders = [
        pd.concat(
            pd.read_csv(path, sep="\t")
            for path in sorted((dataset / f"sub-{label}").rglob("*events.tsv"))
        )
        for label in ("01", "02")
    ]
    assert Counter(orders[0]["split"]) == Counter(orders[1]["split"])
    for split, n in (("train", 24), ("test", 5)):
        shown = [order.loc[order["split"] == split, "stim_id"] for order in orders]
        assert set(shown[0]) == set(shown[1])
        assert len(set(shown[0])) == n
        assert shown[0].tolist() != shown[1].tolist()
    splits = orders[0].groupby("stim_id")["split"].nunique()
    assert (splits == 1).all()


def test_events_name_images_that_the_generator_made_of_their_latents(dataset):
    from PIL import Image

    events = pd.read_csv(dataset / "sub-02/func/sub-02_task-faces_run-03_events.tsv", sep="\t")
    assert events.columns.tolist() == [
        *("onset", "duration", "trial_type", "stim_id", "stim_file", "split")
    ]
    latents = np.load(dataset / "stimuli" / "latents.npy")
    expected = TinyGenerator().generate(latents[rows_of(dataset, events)])
    for file, image in zip(events["stim_file"], expected, strict=True):
        shown = np.asarray(Image.open(dataset / "stimuli" / file))
        assert (shown == np.rint(255 * image)).all()


def test_latents_sidecar_names_the_generator_and_its_weights(dataset):
    sidecar = json.loads((dataset / "stimuli" / "latents.json").read_text())
    assert sidecar["Generator"] == "tiny"
    assert sidecar["GeneratorChecksum"] == "ab" * 32
    assert sidecar["LatentSpace"] == "gaussian"
    assert sidecar["LatentDimension"] == 4
    assert np.load(dataset / "stimuli" / "latents.npy").dtype == np.float32


def test_header_has_voxel_size_and_repetition_time_and_the_description_says_simulated(dataset):
    image = nibabel.load(dataset / "sub-01/func/sub-01_task-faces_run-01_bold.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.shape == (10, 12, 8, n_volumes(TINY))
    assert image.header.get_zooms() == (2, 2, 2, 1.5)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    description = json.loads((dataset / "dataset_description.json").read_text())
    assert "simulated" in description["Name"]
    assert description["GeneratedBy"][0]["Name"] == "hyper_bids simulate"
    assert "simulated" in (dataset / "README").read_text()


def test_truth_is_the_linear_code_of_the_stored_latents_and_needs_no_pickle(dataset):
    arrays, sidecar = read_truth(dataset)
    latents = np.load(dataset / "stimuli" / "latents.npy")
    code = arrays["mean_response"] + latents @ arrays["weights"]
    assert np.allclose(arrays["betas"], code, atol=1e-5)
    assert arrays["coding_voxels"].shape == (40, 3)
    assert arrays["brain"][tuple(arrays["coding_voxels"].T)].all()
    assert arrays["time_to_peak"].std() > 0.2
    assert arrays["spikes"].shape == (3, 2)
    assert set(sidecar["Arrays"]) == set(arrays)
    assert sidecar["Settings"]["generator"] == "tiny"
    assert sidecar["RandomSeed"] == TINY.random_seed


def test_each_participant_has_its_own_noise_level_and_its_own_code(tmp_path):
    folder = simulate(tmp_path / "ds", dataclasses.replace(TINY, noise=(1.0, 3.0)))
    (one, sidecar), (two, louder) = read_truth(folder, "01"), read_truth(folder, "02")
    assert (sidecar["NoiseLevel"], louder["NoiseLevel"]) == (1.0, 3.0)
    assert louder["NoisePercent"] == pytest.approx(3 * sidecar["NoisePercent"])
    assert not np.allclose(one["weights"], two["weights"])
    table = pd.read_csv(folder / "participants.tsv", sep="\t")
    assert table["noise_level"].tolist() == [1.0, 3.0]


def test_derivatives_have_mask_and_motion_and_change_no_other_file(dataset, tmp_path):
    plain = contents(simulate(tmp_path / "ds", TINY, TinyGenerator()))
    with_them = contents(dataset)
    changed = {"README", *(name for name in with_them if name.endswith("truth.json"))}
    for name in plain.keys() - changed:
        assert with_them[name] == plain[name], name
    assert all(name.startswith("derivatives/") for name in with_them.keys() - plain.keys())
    func = dataset / "derivatives/simprep/sub-01/func"
    stem = "sub-01_task-faces_run-02"
    space = "space-MNI152NLin2009cAsym"
    mask = np.asarray(nibabel.load(func / f"{stem}_{space}_desc-brain_mask.nii.gz").dataobj)
    assert (mask == read_truth(dataset)[0]["brain"]).all()
    motion = pd.read_csv(func / f"{stem}_desc-confounds_timeseries.tsv", sep="\t")
    assert motion.columns.tolist() == ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    bold = nibabel.load(func / f"{stem}_{space}_desc-preproc_bold.nii.gz")
    assert len(motion) == bold.shape[3]


def test_dataset_without_shared_noise_and_motion_draws_no_number_for_them(tmp_path, monkeypatch):
    drawn = set()
    random = recording.random

    def listen(settings, *key):
        drawn.add(key[0])
        return random(settings, *key)

    monkeypatch.setattr(recording, "random", listen)
    new = {recording.LOADINGS, recording.SHARED, recording.HEAD}
    settings = dataclasses.replace(TINY, n_participants=1, with_derivatives=True)
    arrays, sidecar = read_truth(simulate(tmp_path / "without", settings))
    assert drawn
    assert not drawn & new
    assert list(arrays)[-1] == "spikes"
    assert not arrays.keys() & {"shared_courses", "shared_loadings", "head_positions"}
    # Nor does the truth name them: its bytes are those from before there were such settings.
    assert not sidecar["Settings"].keys() & {"shared_noise", "motion"}
    assert not sidecar.keys() & {"SharedNoisePercent", "HeadMotionMm"}
    simulate(tmp_path / "with", dataclasses.replace(settings, shared_noise=0.5, motion=0.5))
    assert new <= drawn


def test_shared_noise_is_added_to_every_brain_voxel_and_changes_nothing_else(dataset, tmp_path):
    settings = dataclasses.replace(TINY, shared_noise=2.0, with_derivatives=True)
    folder = simulate(tmp_path / "ds", settings, TinyGenerator())
    arrays, sidecar = read_truth(folder)
    before, after = contents(dataset), contents(folder)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert all(name.endswith(("bold.nii.gz", "truth.npz", "truth.json")) for name in changed)
    assert sidecar["SharedNoisePercent"] == sidecar["Settings"]["shared_noise"] == 2.0
    assert set(sidecar["Arrays"]) == set(arrays)
    mask, baseline = arrays["brain"], arrays["baseline"][arrays["brain"]]
    assert arrays["shared_courses"].shape == (3, n_volumes(TINY), 5)
    assert arrays["shared_loadings"].shape == (5, mask.sum())
    for run, courses in enumerate(arrays["shared_courses"]):
        name = f"sub-01/func/sub-01_task-faces_run-{run + 1:02d}_bold.nii.gz"
        bold = [np.asarray(nibabel.load(part / name).dataobj) for part in (dataset, folder)]
        assert (bold[0][~mask] == bold[1][~mask]).all()
        added = (bold[1][mask] - bold[0][mask]).T
        shared = courses @ arrays["shared_loadings"]
        assert np.allclose(added, baseline * shared / 100, atol=1.01)
        assert shared.std(axis=0).mean() == pytest.approx(2.0, rel=1e-4)
    assert not np.allclose(*arrays["shared_courses"][:2])
    other, _ = read_truth(folder, "02")
    for name in ("shared_courses", "shared_loadings"):
        assert not np.allclose(other[name], arrays[name])


# Of 1 % drift, the square leaves what takes components of its own.
@pytest.mark.parametrize(("drift", "n_components"), [(0.0, 5), (1.0, 8)])
def test_principal_components_of_voxels_without_code_span_the_shared_courses(
    tmp_path, drift, n_components
):
    settings = SimulationSettings(
        n_participants=1,
        n_train_runs=1,
        generator="none",
        spikes_per_run=0,
        drift=drift,
        shared_noise=0.5,
    )
    folder = simulate(tmp_path / "ds", settings)
    arrays, _ = read_truth(folder)
    others = arrays["brain"].copy()
    others[tuple(arrays["coding_voxels"].T)] = False
    for run, courses in enumerate(arrays["shared_courses"].astype(float)):
        name = f"sub-01/func/sub-01_task-faces_run-{run + 1:02d}_bold.nii.gz"
        bold = np.asarray(nibabel.load(folder / name).dataobj)[others].T.astype(float)
        drifts = np.vander(np.linspace(-1, 1, len(bold)), 3)

        def without(confounds, data):
            return data - confounds @ np.linalg.lstsq(confounds, data, rcond=None)[0]

        components = np.linalg.svd(without(drifts, bold / bold.mean(axis=0)))[0][:, :n_components]
        wanted = without(drifts, courses)
        left = without(components, wanted)
        assert (1 - left.var(axis=0) / wanted.var(axis=0) > 0.97).all()


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    settings = SimulationSettings(
        n_participants=1, n_train_runs=1, generator="none", with_derivatives=True, motion=0.5
    )
    return simulate(tmp_path_factory.mktemp("moving") / "ds", settings)


FUNC = "derivatives/simprep/sub-01/func/sub-01_task-faces_run-"
PREPROC = "_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"


def test_motion_is_in_the_raw_images_only_and_its_parameters_are_confounds(moving, tmp_path):
    arrays, sidecar = read_truth(moving)
    assert sidecar["HeadMotionMm"] == sidecar["Settings"]["motion"] == 0.5
    assert arrays["head_positions"].shape == (2, 132, 6)
    settings = SimulationSettings(
        n_participants=1, n_train_runs=1, generator="none", with_derivatives=True
    )
    before, after = contents(simulate(tmp_path / "ds", settings)), contents(moving)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    kinds = ("truth.npz", "truth.json", "confounds_timeseries.tsv", "README")
    raw = {f"sub-01/func/sub-01_task-faces_run-{run:02d}_bold.nii.gz" for run in (1, 2)}
    assert {name for name in changed if not name.endswith(kinds)} == raw
    for run, positions in enumerate(arrays["head_positions"], start=1):
        confounds = pd.read_csv(moving / f"{FUNC}{run:02d}_desc-confounds_timeseries.tsv", sep="\t")
        assert np.allclose(confounds, positions, rtol=1e-5, atol=1e-9)


def test_planted_motion_can_be_found_in_the_images(moving):
    from scipy.ndimage import map_coordinates, spline_filter
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    arrays, _ = read_truth(moving)
    units = np.array([1, 1, 1, 50, 50, 50])
    for run in (1, 2):
        name = f"sub-01/func/sub-01_task-faces_run-{run:02d}_bold.nii.gz"
        bold = np.asarray(nibabel.load(moving / name).dataobj).astype(float)
        still = np.asarray(nibabel.load(f"{moving / FUNC}{run:02d}{PREPROC}").dataobj)
        spline = spline_filter(still.mean(axis=-1), mode="nearest")
        to_mm = recording.affine(still.shape[:3])
        places = nibabel.affines.apply_affine(to_mm, np.indices(still.shape[:3]).reshape(3, -1).T)

        def error(guess, volume, spline=spline, places=places, to_mm=to_mm, bold=bold):
            turn = Rotation.from_euler("xyz", guess[3:] / 50).as_matrix()
            source = nibabel.affines.apply_affine(np.linalg.inv(to_mm), (places - guess[:3]) @ turn)
            seen = map_coordinates(spline, source.T, mode="nearest", prefilter=False)
            return seen - bold[..., volume].ravel()

        for volume in (0, 60, 131):
            found = least_squares(error, np.zeros(6), diff_step=1e-3, args=(volume,)).x
            planted = arrays["head_positions"][run - 1, volume] * units
            assert np.abs(found - planted).max() < 0.15


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(dataset, tmp_path):
    settings = dataclasses.replace(TINY, with_derivatives=True)
    again = contents(simulate(tmp_path / "again", settings, TinyGenerator()))
    assert again == contents(dataset)
    other = dataclasses.replace(settings, random_seed=7)
    other = contents(simulate(tmp_path / "other", other, TinyGenerator()))
    same = [
        name for name in other if name.endswith((".npy", "bold.nii.gz")) and "space" not in name
    ]
    assert same
    assert all(other[name] != again[name] for name in same)


def test_a_participant_is_the_same_however_many_others_there_are(dataset, tmp_path):
    alone = dataclasses.replace(TINY, n_participants=1)
    alone = contents(simulate(tmp_path / "ds", alone, TinyGenerator()))
    both = contents(dataset)
    for name in alone:
        if name.startswith(("sub-01", "stimuli")):
            assert alone[name] == both[name], name


def test_without_a_generator_there_are_latents_only(tmp_path):
    folder = simulate(tmp_path / "ds", dataclasses.replace(TINY, n_latents=7))
    assert not list(folder.rglob("*.png"))
    assert np.load(folder / "stimuli" / "latents.npy").shape == (29, 7)
    assert "Generator" not in json.loads((folder / "stimuli" / "latents.json").read_text())
    events = (folder / "sub-01/func/sub-01_task-faces_run-01_events.tsv").read_text().splitlines()
    assert all(line.split("\t")[4] == "n/a" for line in events[1:])


def test_the_generator_decides_the_number_of_latents_unless_another_was_asked_for(tmp_path):
    default = dataclasses.replace(TINY, n_latents=SimulationSettings.n_latents)
    folder = simulate(tmp_path / "ds", default, TinyGenerator())
    assert np.load(folder / "stimuli" / "latents.npy").shape[1] == 4
    with pytest.raises(UsageError, match="n_latents = 9"):
        simulate(tmp_path / "other", dataclasses.replace(TINY, n_latents=9), TinyGenerator())
    assert not (tmp_path / "other").exists()


def test_embedded_generator_makes_the_demo_stimuli(tmp_path):
    from PIL import Image

    settings = dataclasses.replace(TINY, n_participants=1, generator="demo", n_latents=100)
    folder = simulate(tmp_path / "ds", settings)
    sidecar = json.loads((folder / "stimuli" / "latents.json").read_text())
    assert sidecar["Generator"] == "dcgan-digiface1m"
    images = [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]
    assert len(images) == 29
    assert {image.shape for image in images} == {(64, 64, 3)}
    assert len({image.tobytes() for image in images}) == 29


def test_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="not empty"):
        simulate(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(OutputError, match=r"mine\.txt"):
        simulate(tmp_path / "mine.txt", TINY)


def test_one_run_is_in_memory_at_a_time(tmp_path):
    settings = dataclasses.replace(TINY, shape=(20, 20, 20), n_participants=1)
    peaks = []
    for n_runs in (1, 6):
        tracemalloc.start()
        simulate(tmp_path / str(n_runs), dataclasses.replace(settings, n_train_runs=n_runs))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("part", [".", "derivatives/simprep"])
def test_bids_validator_finds_no_errors(dataset, part):
    assert app.bids_errors(dataset / part) == []
