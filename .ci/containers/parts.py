"""Check inside an image that libraries, models and networks are there, and what can be written."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

LIBRARIES = """
    bids dlib h5py isal matplotlib.pyplot nibabel nilearn.image nipype.pipeline.engine pandas
    safetensors.torch scipy.stats SimpleITK sklearn.linear_model torch
"""


def main() -> None:
    """End with a message at the first thing that is not as it should be."""
    library = {name: importlib.import_module(name) for name in LIBRARIES.split()}
    torch = library["torch"]
    mpl = importlib.import_module("matplotlib")
    for place in (mpl.get_cachedir(), mpl.get_configdir(), torch.hub.get_dir()):
        if not Path(place).is_relative_to(tempfile.gettempdir()):
            sys.exit(f"{place}: not below {tempfile.gettempdir()}")
    importlib.import_module("hyper_bids.generators.checkpoints").load("demo")
    perceptual = importlib.import_module("hyper_bids.perceptual")
    for name in perceptual.NETWORKS:
        perceptual.load(name, "cpu")
    if os.getuid() == 0 or os.access("/opt", os.W_OK):
        sys.exit("the root of the image can be written")
    print(f"PyTorch {torch.__version__}; {', '.join(perceptual.NETWORKS)}; user {os.getuid()}")


if __name__ == "__main__":
    main()
