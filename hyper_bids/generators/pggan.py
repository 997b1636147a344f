"""The generator of a progressively grown GAN (Karras et al. 2018), 64 to 1024 pixels.

The network is ``G_paper`` of the authors' code without its growing phase: pixel norm, equalised
learning rate, nearest upsampling, leaky ReLU of 0.2, and one linear 1x1 layer to RGB. Written as
functions over a dictionary of tensors.

Nearest upsampling by two and a 3x3 convolution are one transposed convolution of 4x4 with stride 2,
which needs 4 of 9 multiplications and no upsampled copy. A processor's last layers are bound by
memory, not arithmetic: there, each image is computed in bands of rows that stay in its cache.

References
----------
Karras T, Aila T, Laine S, Lehtinen J (2018). Progressive growing of GANs for improved quality,
stability, and variation. ICLR. arXiv:1710.10196
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

RESOLUTIONS = (64, 128, 256, 512, 1024)
# The image depends on the direction of the latent only: its first step is a pixel norm.
NORMALISES = True
EPSILON = 1e-8
SLOPE = 0.2
PRECISIONS = ("float32", "bfloat16")

# On processors, layers of up to WHOLE pixels are computed for the batch at once, those above it an
# image and BAND rows of the image at a time. Measured; 64 to 256 differ by a tenth.
WHOLE = 128
BAND = 128


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network; the defaults are those of the published face models.

    Parameters
    ----------
    resolution : int
        Height and width of the image in pixels: 64, 128, 256, 512 or 1024.
    n_latents : int
        Length of a latent vector.
    fmap_base, fmap_max : int
        A layer at r pixels has ``min(fmap_base // r, fmap_max)`` channels. (The authors' code
        counts from half of r, so that its ``fmap_base`` is half of this one.)
    dense_biases : int
        Biases of a channel of the first layer: 1, or 16, one for each unit, as in the PyTorch GAN
        zoo.
    """

    resolution: int
    n_latents: int = 512
    fmap_base: int = 16384
    fmap_max: int = 512
    dense_biases: int = 1

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution = {self.resolution}; one of {RESOLUTIONS} is wanted")
        if self.dense_biases not in (1, 16):
            raise ValueError(f"dense_biases = {self.dense_biases}; 1 or 16 is wanted")
        if min(self.n_latents, self.fmap_max) < 1 or self.fmap_base < self.resolution:
            raise ValueError(
                f"n_latents = {self.n_latents}, fmap_base = {self.fmap_base}, fmap_max = "
                f"{self.fmap_max}; every layer needs at least one channel"
            )

    def n_channels(self, resolution: int) -> int:
        """Return the number of channels at ``resolution`` pixels."""
        return min(self.fmap_base // resolution, self.fmap_max)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and the shape of every array, in the order of the network.

        Rows of ``block4.dense.weight`` are ordered channel, y, x.
        """
        before = self.n_channels(4)
        shapes: dict[str, tuple[int, ...]] = {
            "block4.dense.weight": (before * 16, self.n_latents),
            "block4.dense.bias": (before * self.dense_biases,),
            "block4.conv.weight": (before, before, 3, 3),
            "block4.conv.bias": (before,),
        }
        for resolution in _doublings(self.resolution):
            n = self.n_channels(resolution)
            shapes[f"block{resolution}.conv0.weight"] = (n, before, 3, 3)
            shapes[f"block{resolution}.conv0.bias"] = (n,)
            shapes[f"block{resolution}.conv1.weight"] = (n, n, 3, 3)
            shapes[f"block{resolution}.conv1.bias"] = (n,)
            before = n
        return {**shapes, "rgb.weight": (3, before, 1, 1), "rgb.bias": (3,)}


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    """Infer the sizes of a network from the shapes of its arrays.

    Raises
    ------
    ValueError
        If an array that tells a size is missing, or the sizes are not of this kind of network.
    """
    for key in ("block4.dense.weight", "block4.dense.bias", "rgb.weight"):
        if key not in shapes:
            raise ValueError(f"{key} is missing")
    n_units, n_latents = shapes["block4.dense.weight"][:2] or (0, 0)
    resolution = next(
        r
        for r in (*reversed(_doublings(RESOLUTIONS[-1])), 4)
        if any(name.startswith(f"block{r}.") for name in shapes)
    )
    return Architecture(
        resolution=resolution,
        n_latents=n_latents,
        fmap_base=shapes["rgb.weight"][1] * resolution,
        fmap_max=n_units // 16,
        dense_biases=16 * shapes["block4.dense.bias"][0] // max(1, n_units),
    )


def native_bfloat16(device: str) -> bool:
    """Return whether a device computes in bfloat16 itself, so that it is faster than float32.

    PyTorch emulates bfloat16 elsewhere: much the same images, no faster. Processors other than x86
    were not measured and count as ones that do not.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """
    import torch

    if device != "cpu":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available():
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        flags = torch.cpu.get_capabilities()
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
    # Older versions of PyTorch have no public way to ask.
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return ask is not None and bool(ask())


def scale_of(name: str, shape: tuple[int, ...]) -> float:
    """Return the scale of a weight: gain / sqrt(fan-in) (Karras et al. 2018, section 4.1).

    The gain is sqrt(2); 1 for the layer to RGB, and sqrt(2) / 4 for the dense layer. Biases have
    no scale.

    Parameters
    ----------
    name : str
        A weight of :meth:`Architecture.shapes`.
    shape : tuple of int
        Its shape, the units of the output first.
    """
    gain = {"block4.dense.weight": math.sqrt(2) / 4, "rgb.weight": 1.0}.get(name, math.sqrt(2))
    return gain / math.sqrt(math.prod(shape[1:]))


def prepare(
    weights: Mapping[str, torch.Tensor], precision: str = "float32"
) -> dict[str, torch.Tensor]:
    """Apply the scales of the equalised learning rate, and merge upsampling into the weights.

    Parameters
    ----------
    weights : mapping of str to float32 tensor
        As :meth:`Architecture.shapes` says.
    precision : str
        That of the convolutions: ``"float32"``, or ``"bfloat16"``, which has 8 bits of mantissa.

    Returns
    -------
    dict of str to tensor
        The same names, for :func:`forward`. ``conv0`` weights have become those of a transposed
        convolution, (n_in, n_out, 4, 4). The first and the last layer stay in float32.

    Raises
    ------
    ValueError
        If there is no such precision.
    """
    import torch

    if precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r}; one of {', '.join(PRECISIONS)} is wanted")
    ready = {}
    for name, tensor in weights.items():
        kind = getattr(torch, precision) if ".conv" in name else torch.float32
        if name.endswith(".bias"):
            ready[name] = tensor.to(kind)
            continue
        scaled = tensor * scale_of(name, tuple(tensor.shape))
        if ".conv0." in name:
            scaled = _with_upsampling(scaled)
        # Channels last in memory: about a third faster on processors.
        layout = torch.channels_last if scaled.ndim == 4 else torch.contiguous_format
        ready[name] = scaled.to(kind).contiguous(memory_format=layout)
    return ready


def forward(weights: Mapping[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """Run the network.

    Convolutions run in the precision of the weights; pixel norm, the leaky ReLU, and the first and
    the last layer always in float32.

    Parameters
    ----------
    weights : mapping of str to tensor
        From :func:`prepare`.
    latents : float32 tensor of shape (n, n_latents)

    Returns
    -------
    float32 tensor of shape (n, 3, resolution, resolution)
        Linear RGB layer: nominally in [-1, 1], but not bounded. Channels last in memory.
    """
    import torch
    from torch.nn import functional

    x = functional.linear(_pixel_norm(latents.clone()), weights["block4.dense.weight"])
    x = x.reshape(len(x), -1, 4, 4).contiguous(memory_format=torch.channels_last)
    bias = weights["block4.dense.bias"]
    side = math.isqrt(len(bias) // x.shape[1])  # 1, or 4: a bias for each unit
    x = _activate(x.add_(bias.reshape(1, -1, side, side)))
    x = _convolve(weights, "block4.conv", x)
    size = 4
    while f"block{2 * size}.conv0.weight" in weights:
        size *= 2
    whole = min(size, WHOLE) if x.device.type == "cpu" else size
    while x.shape[2] < whole:
        x = _rows(weights, x, 2 * x.shape[2], 0, 2 * x.shape[2])
    if whole == size:
        return functional.conv2d(x, weights["rgb.weight"], weights["rgb.bias"])
    images = torch.empty((len(x), 3, size, size), memory_format=torch.channels_last)
    for k in range(len(x)):
        for first in range(0, size, BAND):
            band = _rows(weights, x[k : k + 1], size, first, min(first + BAND, size))
            images[k : k + 1, :, first : first + band.shape[2]] = functional.conv2d(
                band, weights["rgb.weight"], weights["rgb.bias"]
            )
    return images


def _doublings(resolution: int) -> list[int]:
    return [2**power for power in range(3, resolution.bit_length())]


def _with_upsampling(weight: torch.Tensor) -> torch.Tensor:
    """Return the (n_in, n_out, 4, 4) weight of upsampling and the (n_out, n_in, 3, 3) convolution.

    A pixel reaches the 2 x 2 that it is copied to, and through each of them the 3 x 3 around.
    """
    spread = weight.new_zeros(weight.shape[1], weight.shape[0], 4, 4)
    turned = weight.transpose(0, 1).flip(2, 3)
    for y in (0, 1):
        for x in (0, 1):
            spread[:, :, y : y + 3, x : x + 3] += turned
    return spread


def _rows(
    weights: Mapping[str, torch.Tensor], x: torch.Tensor, size: int, first: int, end: int
) -> torch.Tensor:
    """Return rows first to end of the layers at ``size`` pixels.

    ``x`` is a block's whole output, as wide as high; the rows of the blocks between, and one more
    on each side for the 3 x 3 of the convolution, are computed on the way.
    """
    if size == x.shape[3]:
        return x[:, :, first:end]
    above, below = max(first - 1, 0), min(end + 1, size)
    # Row r of the upsampling layer needs rows (r - 1) // 2 to (r + 1) // 2 of its input.
    top, bottom = max((above - 1) // 2, 0), min(below // 2 + 1, size // 2)
    y = _rows(weights, x, size // 2, top, bottom)
    y = _upsample(weights, f"block{size}.conv0", y, slice(above - 2 * top, below - 2 * top))
    return _convolve(weights, f"block{size}.conv1", y, slice(first - above, end - above))


def _upsample(
    weights: Mapping[str, torch.Tensor], layer: str, x: torch.Tensor, rows: slice
) -> torch.Tensor:
    from torch.nn import functional

    weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
    y = functional.conv_transpose2d(x.to(weight.dtype), weight, bias, stride=2, padding=1)
    return _activate(y[:, :, rows])


def _convolve(
    weights: Mapping[str, torch.Tensor], layer: str, x: torch.Tensor, rows: slice = slice(None)
) -> torch.Tensor:
    from torch.nn import functional

    weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
    y = functional.conv2d(x.to(weight.dtype), weight, bias, padding=1)
    return _activate(y[:, :, rows])


# In place: at 1024 pixels a copy of the activations is 64 MiB an image.
def _activate(x: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return _pixel_norm(functional.leaky_relu(x.float(), SLOPE, inplace=True))


def _pixel_norm(x: torch.Tensor) -> torch.Tensor:
    import torch

    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    mean_square = torch.addcmul(x.new_full((), EPSILON), norm, norm, value=1 / x.shape[1])
    return x.mul_(mean_square.rsqrt_())
