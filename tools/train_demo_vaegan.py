"""Train ``hyper_bids/data/vaegan_digiface1m.safetensors`` on images of the embedded generator.

    python tools/train_demo_vaegan.py

Seeds are fixed. About 12 minutes of one processor. The same machine and the same version of PyTorch
give the same bytes; another processor rounds otherwise, and training makes much of little. A
training that was broken off goes on: it is kept beside the output (``.partial``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from hyper_bids import filekinds
from hyper_bids.generators import checkpoints, saving
from hyper_bids.training import commands, resume
from hyper_bids.training.settings import VaeGanTraining

SETTINGS = VaeGanTraining(
    resolution=64,
    n_latents=64,
    width=16,
    epochs=16,
    batch_size=16,
    learning_rate=1e-3,
    random_seed=20190521,
)
N_IMAGES = 6000
IMAGE_SEED = 1
NAME = "vaegan-digiface1m"
LICENCE = "Apache-2.0; trained on images of dcgan-digiface1m (MIT, see NOTICE)"
SOURCE = f"tools/train_demo_vaegan.py, {N_IMAGES} images of dcgan-digiface1m"
TARGET = (
    Path(__file__).resolve().parents[1] / "hyper_bids" / "data" / "vaegan_digiface1m.safetensors"
)


def training_images(n: int, seed: int) -> np.ndarray:
    """Return images that the embedded generator makes of latents from its prior.

    Returns
    -------
    uint8 array of shape (n, 64, 64, 3)
    """
    generator = checkpoints.load("demo")
    latents = np.random.default_rng(seed).standard_normal((n, generator.n_latents))
    return checkpoints.generate_batches(generator, latents, 100)


def main() -> None:
    """Train, and write the weights in half precision."""
    parser = argparse.ArgumentParser(description="Train the VAE-GAN that comes with the app.")
    parser.add_argument("-o", "--output", type=Path, default=TARGET, help="file to write")
    given = parser.parse_args()
    # The order of sums, and with it the last bits, depends on the number of threads.
    torch.set_num_threads(1)
    partial = resume.partial_path(given.output)
    images = training_images(N_IMAGES, IMAGE_SEED)
    training = commands.train(images, SETTINGS, "cpu", partial, progress=True)
    state = {key: array.astype(np.float16) for key, array in training.weights().items()}
    saving.save_network(given.output, "vaegan", state, NAME, LICENCE, SOURCE, display="clip")
    partial.unlink(missing_ok=True)
    print(f"{given.output}: SHA-256 {filekinds.sha256(given.output)}")


if __name__ == "__main__":
    main()
