"""Time the 1024-pixel PGGAN: this package, and a plain transcription of the paper, both in PyTorch.

python benchmarks/generators.py [rounds]. Random weights of the published size; 2 threads. The
plain one is eager float32 with the layers as the paper lists them, one function each. Rounds
alternate, so that all rows share what else the machine did. Differences are those of the image in
[0, 1] to the plain one. Peak memory is that of a process of its own for each row.
"""

# ruff: noqa: E402
import os

# Before torch is imported, which reads it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "2"

import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

from hyper_bids.generators import pggan

ARCHITECTURE = pggan.Architecture(resolution=1024)
BATCHES = (1, 4)
ROUNDS = 7
ROWS = ("plain", "float32", "bfloat16")
NAMES = {
    "plain": "plain PyTorch, float32",
    "float32": "hyper_bids, float32",
    "bfloat16": "hyper_bids, bfloat16",
}
# What the project wants to be at least, as a multiple of the plain one's speed.
TARGETS = {"plain": 1.0, "float32": 2.2, "bfloat16": 3.5}


def draw_weights(architecture=ARCHITECTURE):
    """Return random weights, as a file holds them: without the equalised learning rate."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in architecture.shapes().items():
        scale = 1.0 if name.endswith("weight") else 0.1
        weights[name] = scale * torch.randn(shape, generator=generator)
    return weights


def draw_latents(batch):
    """Return latents of shape (batch, n_latents)."""
    return torch.randn(batch, ARCHITECTURE.n_latents, generator=torch.Generator().manual_seed(1))


def pixel_norm(x):
    """Divide by the root mean square over channels."""
    return x * torch.rsqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


def plain_prepare(weights):
    """Apply the scales of the equalised learning rate."""
    gains = {"block4.dense.weight": math.sqrt(2) / 4, "rgb.weight": 1.0}
    return {
        name: tensor
        if name.endswith("bias")
        else tensor * (gains.get(name, math.sqrt(2)) / math.sqrt(tensor[0].numel()))
        for name, tensor in weights.items()
    }


def plain_forward(weights, latents):
    """Run the network as the paper lists it."""

    def finish(x):
        return pixel_norm(functional.leaky_relu(x, 0.2))

    def convolve(layer, x):
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        return finish(functional.conv2d(x, weight, bias, padding=1))

    x = functional.linear(pixel_norm(latents), weights["block4.dense.weight"])
    x = x.reshape(len(x), -1, 4, 4) + weights["block4.dense.bias"].reshape(1, -1, 1, 1)
    x = convolve("block4.conv", finish(x))
    resolution = 8
    while f"block{resolution}.conv0.weight" in weights:
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = convolve(f"block{resolution}.conv0", x)
        x = convolve(f"block{resolution}.conv1", x)
        resolution *= 2
    return functional.conv2d(x, weights["rgb.weight"], weights["rgb.bias"])


def build(row):
    """Return a function from latents to images in [0, 1]."""
    if row == "plain":
        weights, forward = plain_prepare(draw_weights()), plain_forward
    else:
        weights, forward = pggan.prepare(draw_weights(), row), pggan.forward
    return lambda latents: forward(weights, latents).add_(1).mul_(0.5).clamp_(0, 1)


def peak_memory(row, batch):
    """Return the peak memory, MB, of a process that runs one row; batch 0: it only loads."""
    command = [sys.executable, __file__, row, str(batch)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout) / 1024


def run_alone(row, batch):
    """Run one row, and print the peak memory of this process in kB."""
    function = build(row)
    if batch:
        function(draw_latents(batch))
    # Not getrusage: its maximum includes that of the process that started this one.
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))


def measure(functions, batch, rounds):
    """Return the seconds of each row and round, and its images."""
    latents = draw_latents(batch)
    images = {row: function(latents) for row, function in functions.items()}
    seconds = {row: [] for row in functions}
    for _ in range(rounds):
        for row, function in functions.items():
            start = time.perf_counter()
            function(latents)
            seconds[row].append(time.perf_counter() - start)
    return seconds, images


def report(batch, seconds, images):
    """Print the table of one batch size."""
    plain = statistics.median(seconds["plain"])
    for row, values in seconds.items():
        median = statistics.median(values)
        # Of rounds, each against the plain one just before it.
        ratios = sorted(p / v for p, v in zip(seconds["plain"], values, strict=True))
        difference = (images[row] - images["plain"]).abs()
        print(
            f"{batch:5}  {NAMES[row]:24}{median / batch:9.3f}{min(values) / batch:7.3f}"
            f"{max(values) / batch:7.3f}{plain / median:7.2f}"
            f"{f'{ratios[0]:.2f}..{ratios[-1]:.2f}':>13}{TARGETS[row]:7.1f}"
            f"{difference.max():10.1e}{255 * difference.mean():10.4f}"
            f"{peak_memory(row, batch):9.0f}{peak_memory(row, 0):7.0f}"
        )


def main(rounds):
    """Print the tables."""
    functions = {row: build(row) for row in ROWS}
    print(f"1024 x 1024 pixels, 2 threads, {rounds} rounds, PyTorch {torch.__version__}")
    print(f"bfloat16 in this processor: {pggan.native_bfloat16('cpu')}")
    print(
        f"{'batch':5}  {'seconds an image':24}{'median':>9}{'min':>7}{'max':>7}{'times':>7}"
        f"{'of rounds':>13}{'wanted':>7}{'max diff':>10}{'mean*255':>10}{'peak MB':>9}{'idle':>7}"
    )
    for batch in BATCHES:
        report(batch, *measure(functions, batch, rounds))


if __name__ == "__main__":
    with torch.inference_mode():
        if len(sys.argv) == 3:
            run_alone(sys.argv[1], int(sys.argv[2]))
        else:
            main(int(sys.argv[1]) if len(sys.argv) == 2 else ROUNDS)
