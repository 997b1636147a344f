"""Settings of a synthetic dataset, and shapes to start from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SimulationSettings:
    """A synthetic dataset: its shape, its noise, and the code that is planted in it."""

    n_participants: int = 2
    n_train_runs: int = 4
    n_test_runs: int = 1
    trials_per_run: int = 40
    n_test_stimuli: int = 10
    t_r: float = 1.5
    soa: float = 4.5
    duration: float = 1.5
    shape: tuple[int, ...] = (16, 18, 12)
    n_coding_voxels: int = 300
    n_latents: int = 100
    noise: tuple[float, ...] = (1.0,)
    autocorrelation: float = 0.3
    drift: float = 1.0
    spikes_per_run: int = 2
    hrf_variation: float = 1.0
    shared_noise: float = 0.0
    motion: float = 0.0
    generator: str = "demo"
    with_derivatives: bool = False
    random_seed: int = 1412


SIMULATION_PRESETS: dict[str, dict[str, object]] = {
    "small": {},
    # The paper's design: 9 runs of 175 trials; 36 test faces shown about 14 times, 1050 once.
    "hyper": {
        "n_train_runs": 6,
        "n_test_runs": 3,
        "trials_per_run": 175,
        "n_test_stimuli": 36,
        "shape": (40, 48, 34),
        "n_coding_voxels": 4096,
    },
    # Noise set so that the latent correlation comes out near 0.8 and 0.6.
    "demo": {
        "n_train_runs": 5,
        "n_test_runs": 2,
        "trials_per_run": 80,
        "n_test_stimuli": 20,
        "shape": (20, 24, 16),
        "n_coding_voxels": 800,
        "noise": (2.0, 3.5),
    },
}
