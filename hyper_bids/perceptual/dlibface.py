"""dlib's face network: 128 features that tell people apart (King 2017, dlib.net).

A ResNet of 29 convolutions on a face of 150 x 150 pixels that is turned upright by five landmarks.
Program and weights come from PyPI: ``dlib-bin`` (Boost licence), ``face_recognition_models`` (CC0).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hyper_bids.perceptual.protocol import checked_images

LOG = logging.getLogger("hyper_bids")

N_FEATURES = 128
NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"

# Side to which images are brought before a face is looked for; the detector wants 80 pixels of it.
_SIDE = 256
# The box where no face is found, as parts of the image: left, top, right, bottom. It is the
# detector's median box on images of the demo's model, in which a face fills the image.
FIXED_BOX = (0.14, 0.21, 0.84, 0.99)


@dataclass(frozen=True, eq=False)
class DlibNetwork:
    """A :class:`~hyper_bids.perceptual.protocol.FeatureNetwork` that dlib computes, on the CPU."""

    name: str
    label: str
    checksum: str
    detector: Any = field(repr=False)
    landmarks: Any = field(repr=False)
    network: Any = field(repr=False)
    is_papers: bool = False
    n_features: int = N_FEATURES

    def extract(self, images: np.ndarray) -> np.ndarray:
        """Return the features of the largest face of each image.

        Where the detector finds no face, the landmarks are sought in :data:`FIXED_BOX`; the log
        says in how many images.

        Parameters
        ----------
        images : float32 array of shape (n, height, width, 3)
            RGB in [0, 1].

        Returns
        -------
        float32 array of shape (n, 128)

        Raises
        ------
        ValueError
            If the images have another shape or type, or values outside [0, 1].
        """
        images = checked_images(images)
        features = np.empty((len(images), self.n_features), dtype=np.float32)
        n_fixed = 0
        for row, picture in enumerate(_pictures(images)):
            box, found = self.face(picture)
            n_fixed += not found
            shape = self.landmarks(picture, box)
            features[row] = self.network.compute_face_descriptor(picture, shape)
        if n_fixed:
            LOG.info("%s: no face found in %d of %d images; a fixed box was taken",
                     self.name, n_fixed, len(images))  # fmt: skip
        return features

    def face(self, picture: np.ndarray) -> tuple[Any, bool]:
        """Return the box of the largest face of a uint8 picture, and whether one was found."""
        import dlib

        boxes = self.detector(picture, 0)
        if boxes:
            return max(boxes, key=lambda box: box.area()), True
        height, width = picture.shape[:2]
        left, top, right, bottom = FIXED_BOX
        return dlib.rectangle(
            round(left * width), round(top * height), round(right * width), round(bottom * height)
        ), False


def load(folder: Path, checksum: str) -> DlibNetwork:
    """Load the network from the folder of ``face_recognition_models``."""
    import dlib

    name = "dlib face ResNet v1, descriptor"
    return DlibNetwork(
        name=name,
        label=f"{name}: a stand-in, not the paper's VGGFace2 ResNet50",
        checksum=checksum,
        detector=dlib.get_frontal_face_detector(),
        landmarks=dlib.shape_predictor(str(folder / LANDMARKS)),
        network=dlib.face_recognition_model_v1(str(folder / NETWORK)),
    )


def _pictures(images: np.ndarray):
    """Yield each image as uint8, its shorter side brought to 256 pixels."""
    from PIL import Image

    for image in images:
        picture = Image.fromarray(np.rint(image * 255).astype(np.uint8))
        scale = _SIDE / min(picture.size)
        size = tuple(round(scale * n) for n in picture.size)
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        yield np.asarray(picture)
