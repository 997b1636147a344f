"""Names, orientations and scales of a PGGAN's arrays in other projects, and in this one.

A layout says, for each array of :meth:`pggan.Architecture.shapes`, under which key and in which
shape another project keeps it, and how its numbers become this project's. All projects compute
the same network (Karras et al. 2018); they differ in where they put the scale of the equalised
learning rate, gain / sqrt(fan-in), that is, in what the stored weights are to be multiplied by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hyper_bids.generators.pggan import scale_of

Shape = tuple[int, ...]
DENSE = "block4.dense.weight"
DENSE_BIAS = "block4.dense.bias"
_AUTHORS = (
    "CC BY-NC 4.0 if the weights are the authors' (Karras et al. 2018), whoever passes them on"
)


def layer_number(name: str) -> int:
    """Return the place of an array's layer in the network: 0 for the dense one, 1, 2, ..."""
    block, layer, _ = name.split(".")
    doublings = int(block.removeprefix("block")).bit_length() - 3
    return 2 * doublings + (layer in ("conv", "conv1"))


class Layout:
    """The arrays of one project; this one is genforce's, which SeFa and the Hugging Face have too.

    Parameters
    ----------
    keys : iterable of str
        Keys of the file.
    """

    name = "genforce"
    source = "PyTorch weights under genforce's names (also SeFa's, and the Hugging Face's)"
    licence = _AUTHORS
    pattern = re.compile(r"(layer|output)\d+\.(weight|bias)")
    latent_axis = 1
    rgb_axis = 1
    kinds: Mapping[str, str] = MappingProxyType({"weight": "weight", "bias": "bias"})
    # How many biases the first layer has for each of its channels.
    dense_biases = 1

    def __init__(self, keys):
        self.keys = set(keys)

    @classmethod
    def matches(cls, keys) -> int:
        """Return how many of the keys are of this layout."""
        return sum(bool(cls.pattern.fullmatch(key)) for key in keys)

    def resolution(self) -> int:
        """Return the size of the image in pixels; 0 if no key tells."""
        numbers = [int(m[1]) for key in self.keys if (m := re.match(r"layer(\d+)\.", key))]
        return 4 << (max(numbers) // 2) if numbers else 0

    def key(self, name: str, resolution: int) -> str:
        """Return the key of an array."""
        kind = name.rpartition(".")[2]
        if name.startswith("rgb"):
            return self.rgb_key(resolution, resolution, kind)
        return f"layer{layer_number(name)}.{self.kinds[kind]}"

    def rgb_key(self, size: int, resolution: int, kind: str) -> str | None:
        """Return the key of the layer to RGB at ``size`` pixels; smaller ones were for training."""
        return f"output{size.bit_length() - 3}.{self.kinds[kind]}"

    def shape(self, name: str, shape: Shape) -> Shape:
        """Return the shape that an array of the given shape here has there."""
        return (shape[0] // 16, shape[1], 4, 4) if name == DENSE else shape

    def convert(self, name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Return the array as this project has it; its shape there has been checked."""
        if name != DENSE:
            return array
        # A padded convolution of one pixel lays its kernel down turned around.
        return array[:, :, ::-1, ::-1].transpose(0, 2, 3, 1).reshape(shape)


class InterFaceGAN(Layout):
    """InterFaceGAN's: bias and scale in a layer of their own behind each convolution."""

    name = "interfacegan"
    source = "PyTorch weights under InterFaceGAN's names"
    pattern = re.compile(r"(layer|output)\d+\.(conv\.weight|wscale\.bias)")
    kinds = MappingProxyType({"weight": "conv.weight", "bias": "wscale.bias"})


class EarlyInterFaceGAN(InterFaceGAN):
    """InterFaceGAN's of 2019: layers are counted from 1, and there is one layer to RGB."""

    name = "interfacegan-2019"
    source = "PyTorch weights under InterFaceGAN's names of 2019"
    pattern = re.compile(r"(layer[1-9]\d*|output_\d+x\d+)\.(conv\.weight|wscale\.bias)")

    @classmethod
    def matches(cls, keys) -> int:
        """Return how many of the keys are of this layout."""
        return super().matches(keys) if any(key.startswith("output_") for key in keys) else 0

    def resolution(self) -> int:
        """Return the size of the image in pixels."""
        return super().resolution() // 2

    def key(self, name: str, resolution: int) -> str:
        """Return the key of an array."""
        kind = self.kinds[name.rpartition(".")[2]]
        if name.startswith("rgb"):
            return f"output_{resolution}x{resolution}.{kind}"
        return f"layer{layer_number(name) + 1}.{kind}"

    def rgb_key(self, size: int, resolution: int, kind: str) -> str | None:
        """Return None: there are no layers to RGB but the last."""
        return None


class Karras(Layout):
    """The authors' TensorFlow variables: (in, out) and (y, x, in, out)."""

    name = "karras"
    source = "the authors' TensorFlow pickle (Gs, averaged over training)"
    pattern = re.compile(r"(\d+x\d+/(Dense|Conv|Conv0|Conv0_up|Conv1)|ToRGB_lod\d+)/(weight|bias)")
    latent_axis = 0
    rgb_axis = 2

    def resolution(self) -> int:
        """Return the size of the image in pixels."""
        sizes = [int(m[1]) for key in self.keys if (m := re.match(r"(\d+)x\1/Conv", key))]
        return max(sizes, default=0)

    def key(self, name: str, resolution: int) -> str:
        """Return the key of an array."""
        if name.startswith("rgb"):
            return self.rgb_key(resolution, resolution, name.rpartition(".")[2])
        block, layer, kind = name.split(".")
        size = block.removeprefix("block")
        scope = f"{size}x{size}/{layer.capitalize()}"
        # Upsampling and convolution in one step, an option of the authors' code.
        fused = layer == "conv0" and any(key.startswith(f"{scope}_up/") for key in self.keys)
        return f"{scope}_up/{kind}" if fused else f"{scope}/{kind}"

    def rgb_key(self, size: int, resolution: int, kind: str) -> str | None:
        """Return the key of a layer to RGB, which is counted from the largest image."""
        return f"ToRGB_lod{resolution.bit_length() - size.bit_length()}/{kind}"

    def shape(self, name: str, shape: Shape) -> Shape:
        """Return the shape that an array of the given shape here has there."""
        if len(shape) == 4 and self._is_fused(name):
            return (*shape[2:], *shape[:2])
        return (*shape[:1:-1], *shape[1::-1]) if len(shape) == 4 else shape[::-1]

    def convert(self, name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Return the array as this project has it."""
        if array.ndim == 4 and self._is_fused(name):
            # The transposed convolution turns its kernel around, and keeps (y, x, out, in).
            return array[::-1, ::-1].transpose(2, 3, 0, 1)
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T

    def _is_fused(self, name: str) -> bool:
        return "/Conv0_up/" in self.key(name, 0) if ".conv0." in name else False


class GanZoo(Layout):
    """The PyTorch GAN zoo's: He's scale on every layer, and on the biases too.

    Each unit of the first layer, not each channel, has a bias.
    """

    name = "gan-zoo"
    source = "a checkpoint of the PyTorch GAN zoo"
    licence = "BSD 3-clause (PyTorch GAN zoo, Facebook)"
    pattern = re.compile(
        r"(formatLayer|groupScale0\.0|scaleLayers\.\d+\.[01]|toRGBLayers\.\d+)"
        r"(\.module)?\.(weight|bias)"
    )
    dense_biases = 16

    def resolution(self) -> int:
        """Return the size of the image in pixels."""
        scales = [int(m[1]) for key in self.keys if (m := re.match(r"scaleLayers\.(\d+)\.", key))]
        return 8 << max(scales) if scales else 0

    def key(self, name: str, resolution: int) -> str:
        """Return the key of an array."""
        kind = name.rpartition(".")[2]
        if name.startswith("rgb"):
            return self.rgb_key(resolution, resolution, kind)
        scale, second = divmod(layer_number(name), 2)
        if scale == 0:
            return self._named("groupScale0.0" if second else "formatLayer", kind)
        return self._named(f"scaleLayers.{scale - 1}.{second}", kind)

    def rgb_key(self, size: int, resolution: int, kind: str) -> str | None:
        """Return the key of a layer to RGB."""
        return self._named(f"toRGBLayers.{size.bit_length() - 3}", kind)

    def shape(self, name: str, shape: Shape) -> Shape:
        """Return the shape that an array of the given shape here has there."""
        return (shape[0] * 16,) if name == DENSE_BIAS else shape

    def convert(self, name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Return the array as this project has it; for a bias, ``shape`` is its weight's."""
        he = math.sqrt(2 / math.prod(shape[1:]))
        if name.endswith(".weight"):
            return array * (he / scale_of(name, shape))
        array = array * he
        if name == DENSE_BIAS and (array.reshape(-1, 16) == array[::16, None]).all():
            return array[::16]
        return array

    def _named(self, layer: str, kind: str) -> str:
        # The networks' own saving leaves out the name of what their layers wrap.
        wrapped = any(".module." in key for key in self.keys)
        return f"{layer}.module.{kind}" if wrapped else f"{layer}.{kind}"


class Hyper(Layout):
    """HYPER's MXNet parameters, in which the scales are multiplied in.

    Keys tell places in the network (``8.3.weight``) or are names with counters, in the order of
    the network; which array is which follows from order and number of dimensions.
    """

    name = "hyper"
    source = "MXNet parameters of HYPER's generator"
    pattern = re.compile(r"(?!)")

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        super().__init__(arrays)
        shapes = {key: array.shape for key, array in arrays.items()}
        ordered = _in_order(list(shapes))
        self.convolutions = [key for key in ordered if len(shapes[key]) == 4]
        of_convolutions = {_bias_of(key) for key in self.convolutions}
        self.dense = [key for key in ordered if len(shapes[key]) == 2]
        self.dense_bias = [
            key for key in ordered if len(shapes[key]) == 1 and key not in of_convolutions
        ]

    def resolution(self) -> int:
        """Return the size of the image in pixels; 0 if the arrays are not of this network."""
        n = len(self.convolutions)
        is_ours = (len(self.dense), len(self.dense_bias)) == (1, 1) and n >= 4 and n % 2 == 0
        return 4 << (n // 2 - 1) if is_ours else 0

    def key(self, name: str, resolution: int) -> str:
        """Return the key of an array."""
        if name in (DENSE, DENSE_BIAS):
            return (self.dense if name == DENSE else self.dense_bias)[0]
        weight = self.convolutions[-1 if name.startswith("rgb") else layer_number(name) - 1]
        return weight if name.endswith(".weight") else _bias_of(weight)

    def rgb_key(self, size: int, resolution: int, kind: str) -> str | None:
        """Return None: there are no layers to RGB but the last."""
        return None

    def shape(self, name: str, shape: Shape) -> Shape:
        """Return the shape, which is that here."""
        return shape

    def convert(self, name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Return the array as this project has it, without its scale."""
        return array if name.endswith(".bias") else array / scale_of(name, shape)


LAYOUTS: tuple[type[Layout], ...] = (Layout, InterFaceGAN, EarlyInterFaceGAN, Karras, GanZoo)


def _bias_of(key: str) -> str:
    return f"{key.removesuffix('weight')}bias"


def _in_order(keys: list[str]) -> list[str]:
    def numbers(key: str) -> list[int]:
        return [int(n) for n in re.findall(r"\d+", key)]

    # 8.3.weight comes before 10.0.weight.
    if all(re.match(r"\d+\.", key) for key in keys):
        return sorted(keys, key=numbers)
    # Names with counters stand in the order of the network, but for a file sorted by letters,
    # where conv10 comes before conv2: names that differ in numbers only are put into their order.
    kinds: dict[str, list[str]] = {}
    for key in keys:
        kinds.setdefault(re.sub(r"\d+", "#", key), []).append(key)
    queues = {kind: iter(sorted(members, key=numbers)) for kind, members in kinds.items()}
    return [next(queues[re.sub(r"\d+", "#", key)]) for key in keys]
