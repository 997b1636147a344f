"""What a participant costs as the data grow, and what many participants would: docs/scaling.md.

    python benchmarks/scaling.py [--quick] [--json FILE]

Each measurement is a process of its own with one thread: it simulates a dataset, runs the stages of
a participant one after the other, and tells of each the processor seconds (which do not grow when
others use the machine), and of all the peak of memory, files and bytes. One thing grows at a time.
The last table is extrapolated, and says so: each stage from a plane and a product of trials and
voxels through four measurements, ridge and images from what they take at the sizes of real data.
"""

# ruff: noqa: E402
import os

# Before numpy is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from hyper_bids import metrics
from hyper_bids.bids import outputs
from hyper_bids.config import Settings, with_values
from hyper_bids.decode.ridge import fit_ridge
from hyper_bids.participant.jobs import given_to, kind_of, stage_jobs
from hyper_bids.participant.plan import make_plan
from hyper_bids.simulate.dataset import simulate
from hyper_bids.simulation_settings import SimulationSettings
from hyper_bids.workflow import _ROOMS

BASE = {
    "n_participants": 1, "n_train_runs": 6, "n_test_runs": 2, "trials_per_run": 40,
    "n_test_stimuli": 20, "shape": (24, 28, 20), "n_coding_voxels": 400, "n_latents": 512,
    "generator": "none",
}  # fmt: skip

# What grows -> its sizes, each with the settings that make it; the first is the base.
SERIES = {
    "trials": [
        (40 * n, {"n_train_runs": n - 2}) for n in (8, 14, 26)
    ],
    "voxels": [
        (x * y * z, {"shape": (x, y, z)}) for x, y, z in ((24, 28, 20), (48, 58, 40))
    ],
    "latents": [(n, {"n_latents": n}) for n in (512, 1024)],
    "test stimuli": [
        (n, {"n_test_stimuli": n, "n_test_runs": max(2, n // 20)}) for n in (20, 160)
    ],
}  # fmt: skip

# What is extrapolated to, of 512 latents: trials, voxels of the brain, test stimuli, and pixels of
# a side of images (0: latents only).
CASES = {
    "paper's design, latents only": (1575, 230_000, 36, 0),
    "paper's design, 1024 px": (1575, 230_000, 36, 1024),
    "1,000 test stimuli, 1024 px": (4000, 230_000, 1000, 1024),
    "100,000 trials, latents only": (100_000, 230_000, 1000, 0),
}
BOTH = "trials and voxels"
_FOLDERS = ("out", "work")
N_VOXELS = 4096  # of the decoder
# Images that are made of a participant: of the test stimuli decoded, true, mean and ceiling, and a
# random prior (20 of 512 pixels and more).
IMAGES_PER_STIMULUS, PRIOR_IMAGES = 3, 20
# Most stimuli of which all pairs are compared in MindEye2's setting.
MOST_GAUSSIAN = 100
FORMS = {
    "ssim": metrics.structural_similarity,
    "gaussian": metrics.structural_similarity_gaussian,
}


def measure(settings: dict) -> dict:
    """Run the stages of one participant in this process; return seconds, megabytes and files."""
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        simulate(top / "bids", SimulationSettings(**settings))
        given = {"bids_dir": str(top / "bids"), "output_dir": str(top / "out"), "no_realign": True}
        chosen = with_values(Settings(), given)
        seconds, parts, running = {}, {}, dict.fromkeys(("progress", "log_level"), False)
        running |= {"device": "cpu", "n_threads": 1, "memory_mb": 4000}
        start = time.process_time()
        plan = make_plan(top / "bids", "01", chosen)
        seconds["checks"] = time.process_time() - start
        jobs = stage_jobs(plan, chosen, top / "latents")
        for name, job in jobs.items():
            module, function = _ROOMS[kind_of(name)]
            stage = getattr(import_module(f"hyper_bids.participant.{module}"), function)
            folders = {role: parts[source] for role, source in given_to(name, jobs).items()}
            parts[name] = top / "work" / name
            start = time.process_time()
            stage(job | running, parts[name], **folders)
            seconds[name] = time.process_time() - start
        start = time.process_time()
        outputs.publish(list(parts.values()), top / "out")
        seconds["publishing"] = time.process_time() - start
        betas = np.load(parts["responses"] / "internal" / "betas.npy", mmap_mode="r")
        brain = betas.shape[1]
        found = {folder: _size(top / folder) for folder in ("work", "out")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak, "brain": brain, **found}


def _size(folder: Path) -> dict:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def run_series(quick: bool) -> dict[str, list]:
    """Measure all series, each size in a process of its own."""
    found: dict[str, list] = {}
    base = None
    both = {**SERIES["trials"][-1][1], **SERIES["voxels"][-1][1]}
    for name, sizes in {**SERIES, BOTH: [(1, both)]}.items():
        found[name] = []
        for size, changes in sizes[: 2 if quick else None]:
            settings = {**BASE, **changes}
            if settings == BASE and base is not None:
                result = base
            else:
                call = [sys.executable, __file__, "--one", json.dumps(settings)]
                told = subprocess.run(call, capture_output=True, text=True, check=True)
                result = json.loads(told.stdout.splitlines()[-1])
            base = result if settings == BASE else base
            found[name].append((size, result))
            print(f"{name} {size}: {_line(result)}", flush=True)
    return found


def _line(result: dict) -> str:
    told = ", ".join(f"{name} {s:.1f}" for name, s in result["seconds"].items())
    work, out = result["work"], result["out"]
    return (
        f"{sum(result['seconds'].values()):.1f} s ({told}), peak {result['peak_mb']:.0f} MB, work "
        f"{work['files']} files {work['bytes'] / 1e6:.1f} MB, out {out['files']} files "
        f"{out['bytes'] / 1e6:.1f} MB"
    )


def growth(sizes: list, value) -> tuple[float, float, float]:
    """Return a, b and k of a + b * size ** k through the measured sizes.

    Of three sizes, k is what makes the curve go through all of them, from 0 (no growth is seen) to
    3; of two, it is 1.
    """
    points = [(float(size), float(value(result))) for size, result in sizes]
    (x0, y0), (x1, y1) = points[0], points[-1]
    if y1 <= y0 * 1.02 or len(points) < 2:
        return max(y0, y1), 0.0, 1.0
    k = 1.0
    if len(points) > 2:
        xm, ym = points[1]
        share = min(max((ym - y0) / (y1 - y0), 1e-3), 0.999)
        steps = [i / 100 for i in range(10, 301)]
        k = min(steps, key=lambda k: abs((xm**k - x0**k) / (x1**k - x0**k) - share))
    b = (y1 - y0) / (x1**k - x0**k)
    return y0 - b * x0**k, b, k


def total(result: dict) -> float:
    """Return the processor seconds of all stages."""
    return sum(result["seconds"].values())


def measure_pieces(quick: bool) -> dict:
    """Return processor seconds of what the series are too small for, at sizes of real data."""
    rng = np.random.default_rng(0)
    found: dict[str, dict] = {"ridge": {}, "ssim": {}, "gaussian": {}, "pggan": {}}
    for n in (500, 1000) if quick else (500, 1000, 2000):
        betas = rng.standard_normal((n, N_VOXELS), np.float32)
        latents = rng.standard_normal((n, 512), np.float32)
        folds = np.arange(n) * 6 // n
        found["ridge"][n] = _timed(partial(fit_ridge, betas, latents, rng, folds=folds))
    for side in (128, 256) if quick else (128, 256, 512, 1024):
        images = rng.integers(0, 256, (2, 6, side, side, 3), dtype=np.uint8)
        for name, form in FORMS.items():
            found[name][side] = _timed(partial(form, *images)) / len(images[0]) ** 2
    for side in (64, 128) if quick else (128, 256, 512, 1024):
        found["pggan"][side] = _pggan(side)
    for name, values in found.items():
        told = ", ".join(f"{size}: {seconds:.3g}" for size, seconds in values.items())
        print(f"{name}: {told} s", flush=True)
    return found


def _timed(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _pggan(side: int) -> float:
    """Return processor seconds of one image of a PGGAN with random weights."""
    # Not in the processes of the series, whose memory is measured.
    torch, pggan = map(import_module, ("torch", "hyper_bids.generators.pggan"))
    torch.set_num_threads(1)
    shapes = pggan.Architecture(resolution=side).shapes()
    random = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    latents = torch.randn(2, 512, generator=random)
    with torch.inference_mode():
        weights = pggan.prepare(drawn, "float32")
        pggan.forward(weights, latents[:1])
        return _timed(lambda: pggan.forward(weights, latents)) / 2


def extrapolate(found: dict, pieces: dict) -> None:
    """Print what a participant of each case and a thousand of them would take."""
    print("\nExtrapolated, not measured:\n")
    print("| case | hours | of it responses | maps | decoder | images | GB out | GB work |")
    print("|---|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        trials, brain, n_test, side = case
        names = found["trials"][0][1]["seconds"]
        stages = {stage: _stage(found, stage, trials, brain) for stage in names}
        stages["decoding"] = _ridge(pieces["ridge"], trials)
        images = _images(pieces, n_test, side) if side else 0.0
        total_seconds = sum(stages.values()) + images
        out = 4 * trials * brain / 1e9
        hours = [total_seconds, *(stages[s] for s in ("responses", "maps", "decoding")), images]
        cells = [f"{seconds / 3600:.2f}" for seconds in hours] + [f"{out:.1f}", f"{2 * out:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def _stage(found: dict, stage: str, trials: float, brain: float) -> float:
    """Return the seconds of a stage: a + b t + c v + d t v through the measured corners."""
    corners = [
        found[n][k][1] for n, k in (("trials", 0), ("trials", -1), ("voxels", -1), (BOTH, 0))
    ]
    sizes = [found["trials"][k][0] for k in (0, -1)], [corners[k]["brain"] for k in (0, 2)]
    rows = [[1.0, t, v, t * v] for v in sizes[1] for t in sizes[0]]
    seconds = [corner["seconds"][stage] for corner in corners]
    # What is smaller than the noise of measuring can come out below 0.
    return max(0.0, float(np.linalg.solve(rows, seconds) @ [1.0, trials, brain, trials * brain]))


def _ridge(seconds: dict, trials: float) -> float:
    """Return the seconds of ridge, linear in trials from as many trials as voxels on."""
    _, _, k = growth(list(seconds.items()), lambda s: s)
    n, largest = max(seconds.items())
    up_to = min(trials, N_VOXELS)
    return largest * (up_to / n) ** k * max(1.0, trials / N_VOXELS)


def _images(pieces: dict, n_test: int, side: int) -> float:
    """Return the seconds of making and comparing images: pairs grow with the square."""
    made = (IMAGES_PER_STIMULUS * n_test + PRIOR_IMAGES) * pieces["pggan"][side]
    pairs = n_test**2 * pieces["ssim"][side]
    gaussian = n_test**2 * pieces["gaussian"][side] if n_test <= MOST_GAUSSIAN else 0.0
    return made + pairs + gaussian


def tell_growth(found: dict) -> None:
    """Print how seconds and bytes grow with each size."""
    print("\n| what grows | from | to | processor seconds | peak MB | out MB | work MB |")
    print("|---|---|---|---|---|---|---|")
    for name, sizes in list(found.items())[:-1]:
        first, last = sizes[0][1], sizes[-1][1]
        pairs = [
            f"{sizes[0][0]:,} | {sizes[-1][0]:,}",
            f"{total(first):.0f} to {total(last):.0f}",
            f"{first['peak_mb']:.0f} to {last['peak_mb']:.0f}",
            *(f"{first[f]['bytes'] / 1e6:.0f} to {last[f]['bytes'] / 1e6:.0f}" for f in _FOLDERS),
        ]
        print(f"| {name} | {' | '.join(pairs)} |")


def tell_stages(found: dict) -> None:
    """Print the seconds of each stage at the smallest and the largest size."""
    stages = list(found["trials"][0][1]["seconds"])
    names = [f"{name} x {sizes[-1][0] / sizes[0][0]:.1f}" for name, sizes in found.items()]
    names[-1] = BOTH
    print(f"\n| stage | base | {' | '.join(names)} |")
    print("|---" * (2 + len(found)) + "|")
    for stage in stages:
        cells = [f"{sizes[-1][1]['seconds'][stage]:.1f}" for sizes in found.values()]
        print(f"| {stage} | {found['trials'][0][1]['seconds'][stage]:.1f} | {' | '.join(cells)} |")


def main() -> None:
    """Measure, fit, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two sizes of each")
    parser.add_argument("--json", help="where to write what was measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        settings = json.loads(given.one)
        settings["shape"] = tuple(settings["shape"])
        with contextlib.redirect_stdout(sys.stderr):
            found = measure(settings)
        print(json.dumps(found))
        return
    pieces = measure_pieces(given.quick)
    found = run_series(given.quick)
    if given.json:
        Path(given.json).write_text(json.dumps({"pieces": pieces, "series": found}))
    tell_growth(found)
    tell_stages(found)
    if not given.quick:
        extrapolate(found, pieces)


if __name__ == "__main__":
    main()
