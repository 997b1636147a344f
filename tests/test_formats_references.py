"""Networks of other projects: what they store, compute and write; written to compare with."""

import math
import struct
import sys
import types
from collections import OrderedDict

import numpy as np

from hyper_bids.generators import pggan

GROWTH = "lod"  # codespell:ignore lod
ROOT2 = math.sqrt(2)
IFG = ("conv.weight", "wscale.bias")
TINY = pggan.Architecture(resolution=64, n_latents=24, fmap_base=512, fmap_max=16)
SIZES = (4, 8, 16, 32, 64)
CHANNELS = {4: 16, 8: 16, 16: 16, 32: 16, 64: 8}


# What each project stores: keys and shapes, written down by hand.


def karras_variables(rng, fused=False):
    """Draw the variables of the authors' G_paper, with all its layers to RGB."""
    shapes = {GROWTH: (), "4x4/Dense/weight": (24, 256), "4x4/Dense/bias": (16,)}
    shapes |= {"4x4/Conv/weight": (3, 3, 16, 16), "4x4/Conv/bias": (16,)}
    for size in SIZES[1:]:
        n, before = CHANNELS[size], CHANNELS[size // 2]
        first = f"{size}x{size}/Conv0_up" if fused else f"{size}x{size}/Conv0"
        shapes[f"{first}/weight"] = (3, 3, n, before) if fused else (3, 3, before, n)
        shapes[f"{first}/bias"] = (n,)
        shapes[f"{size}x{size}/Conv1/weight"] = (3, 3, n, n)
        shapes[f"{size}x{size}/Conv1/bias"] = (n,)
    for level, size in enumerate(reversed(SIZES)):
        shapes |= {f"ToRGB_lod{level}/weight": (1, 1, CHANNELS[size], 3)}
        shapes |= {f"ToRGB_lod{level}/bias": (3,)}
    return draw(rng, shapes)


def genforce_tensors(rng, names=("weight", "bias"), first=0, all_rgb=True):
    """Draw the tensors of genforce's, or under other ``names`` InterFaceGAN's, generator."""
    weight, bias = names
    shapes = {GROWTH: ()} if all_rgb else {}
    before, kernel, number = 24, 4, first
    for size in SIZES:
        for _ in range(2):
            n = CHANNELS[size]
            shapes[f"layer{number}.{weight}"] = (n, before, kernel, kernel)
            shapes[f"layer{number}.{bias}"] = (n,)
            before, kernel, number = n, 3, number + 1
        if all_rgb or size == 64:
            name = f"output{SIZES.index(size)}" if all_rgb else "output_64x64"
            shapes |= {f"{name}.{weight}": (3, n, 1, 1), f"{name}.{bias}": (3,)}
    return draw(rng, shapes)


def zoo_tensors(rng, infix=".module"):
    """Draw the tensors of the PyTorch GAN zoo's GNet."""
    layers = {"formatLayer": (256, 24), "groupScale0.0": (16, 16, 3, 3)}
    layers["toRGBLayers.0"] = (3, 16, 1, 1)
    for scale, size in enumerate(SIZES[1:]):
        n = CHANNELS[size]
        layers[f"scaleLayers.{scale}.0"] = (n, CHANNELS[size // 2], 3, 3)
        layers[f"scaleLayers.{scale}.1"] = (n, n, 3, 3)
        layers[f"toRGBLayers.{scale + 1}"] = (3, n, 1, 1)
    shapes = {}
    for layer, shape in layers.items():
        shapes |= {f"{layer}{infix}.weight": shape, f"{layer}{infix}.bias": shape[:1]}
    return draw(rng, shapes)


def hyper_parameters(rng, prefixed=False):
    """Draw the parameters of HYPER's network, in its order, small as they are with their scales."""
    shapes = {"1.weight": (256, 24), "2.b": (16,)}
    shapes |= {"5.weight": (16, 16, 3, 3), "5.bias": (16,)}
    for block, size in enumerate(SIZES[1:], start=8):
        n = CHANNELS[size]
        shapes |= {f"{block}.0.weight": (n, CHANNELS[size // 2], 3, 3), f"{block}.0.bias": (n,)}
        shapes |= {f"{block}.3.weight": (n, n, 3, 3), f"{block}.3.bias": (n,)}
    shapes |= {"12.weight": (3, 8, 1, 1), "12.bias": (3,)}
    arrays = draw(rng, shapes)
    for key in arrays:
        if key.endswith("weight"):
            arrays[key] /= math.sqrt(math.prod(arrays[key].shape[1:]))
    if not prefixed:
        return arrays
    names = {"1.weight": "generator0_dense0_weight", "2.b": "generator0_bias0_b"}
    convolutions = [key[: -len("weight")] for key, a in arrays.items() if a.ndim == 4]
    for number, stem in enumerate(convolutions):
        for kind in ("weight", "bias"):
            names[f"{stem}{kind}"] = f"generator0_conv{number}_{kind}"
    return {names[key]: array for key, array in arrays.items()}


def draw(rng, shapes):
    arrays = {key: rng.standard_normal(s).astype(np.float32) for key, s in shapes.items()}
    if GROWTH in arrays:
        arrays[GROWTH] = np.zeros((), np.float32)
    return arrays


# What each project computes, in float64.


def pixel_norm(x):
    return x / (x.pow(2).mean(dim=1, keepdim=True) + 1e-8).sqrt()


def as_tensors(arrays):
    import torch

    return {key: torch.from_numpy(np.array(a, np.float64)) for key, a in arrays.items()}


def karras_image(arrays, z, fused=False):
    """Scale, product, bias, activation, norm; kernels are (y, x, in, out)."""
    from torch.nn import functional as f

    v = as_tensors(arrays)

    def finish(x, scope):
        x = x + v[f"{scope}/bias"][:, None, None]
        return pixel_norm(f.leaky_relu(x, 0.2))

    def conv(x, scope, gain=ROOT2):
        w = v[f"{scope}/weight"]
        w = w * gain / math.sqrt(math.prod(w.shape[:3]))
        return f.conv2d(x, w.permute(3, 2, 0, 1), padding=w.shape[0] // 2)

    def conv_up(x, scope):
        w = v[f"{scope}/weight"]
        w = f.pad(w * math.sqrt(2 / (9 * w.shape[3])), (0, 0, 0, 0, 1, 1, 1, 1))
        w = w[1:, 1:] + w[:-1, 1:] + w[1:, :-1] + w[:-1, :-1]
        return f.conv_transpose2d(x, w.permute(3, 2, 0, 1), stride=2, padding=1)

    x = pixel_norm(z) @ v["4x4/Dense/weight"] * (math.sqrt(2) / 4 / math.sqrt(24))
    x = finish(x.reshape(-1, 16, 4, 4), "4x4/Dense")
    x = finish(conv(x, "4x4/Conv"), "4x4/Conv")
    for size in SIZES[1:]:
        if fused:
            x = finish(conv_up(x, f"{size}x{size}/Conv0_up"), f"{size}x{size}/Conv0_up")
        else:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = finish(conv(x, f"{size}x{size}/Conv0"), f"{size}x{size}/Conv0")
        x = finish(conv(x, f"{size}x{size}/Conv1"), f"{size}x{size}/Conv1")
    return conv(x, "ToRGB_lod0", 1.0) + v["ToRGB_lod0/bias"][:, None, None]


def genforce_image(arrays, z, names=("weight", "bias"), first=0, rgb="output4"):
    """Norm, upsampling, convolution, scale, bias, activation; the first layer on one pixel."""
    from torch.nn import functional as f

    v = as_tensors(arrays)

    def layer(x, name, padding, gain):
        w = v[f"{name}.{names[0]}"]
        x = f.conv2d(x, w, padding=padding) * (gain / math.sqrt(math.prod(w.shape[1:])))
        return x + v[f"{name}.{names[1]}"][None, :, None, None]

    x = z[:, :, None, None]
    for number in range(10):
        x = pixel_norm(x)
        if number % 2 == 0 and number > 0:
            x = f.interpolate(x, scale_factor=2, mode="nearest")
        x = layer(x, f"layer{number + first}", 1 if number else 3, math.sqrt(2))
        x = f.leaky_relu(x, 0.2)
    return layer(pixel_norm(x), rgb, 0, 1.0)


def zoo_image(arrays, z, infix=".module"):
    """Product and bias, both times He's constant, activation, norm."""
    from torch.nn import functional as f

    v = as_tensors(arrays)

    def he(x, w):
        return x * math.sqrt(2 / math.prod(w.shape[1:]))

    def conv(x, name, padding=1):
        w = v[f"{name}{infix}.weight"]
        return he(f.conv2d(x, w, v[f"{name}{infix}.bias"], padding=padding), w)

    w = v[f"formatLayer{infix}.weight"]
    x = he(f.linear(pixel_norm(z), w, v[f"formatLayer{infix}.bias"]), w)
    x = pixel_norm(f.leaky_relu(x, 0.2).reshape(-1, 16, 4, 4))
    x = pixel_norm(f.leaky_relu(conv(x, "groupScale0.0"), 0.2))
    for scale in range(4):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        for number in range(2):
            x = pixel_norm(f.leaky_relu(conv(x, f"scaleLayers.{scale}.{number}"), 0.2))
    return conv(x, "toRGBLayers.4", padding=0)


def hyper_image(arrays, z):
    """No scales at all: the weights have them in them."""
    from torch.nn import functional as f

    v = list(as_tensors(arrays).values())
    x = (pixel_norm(z) @ v[0].T).reshape(-1, 16, 4, 4) + v[1][:, None, None]
    x = pixel_norm(f.leaky_relu(x, 0.2))
    for number in range(2, len(v) - 2, 2):
        if number > 2 and number % 4 == 0:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = f.conv2d(x, v[number], v[number + 1], padding=1)
        x = pixel_norm(f.leaky_relu(x, 0.2))
    return f.conv2d(x, v[-2], v[-1])


# Files as those projects write them.


def stand_in(monkeypatch, module, name):
    """Make a class that pickles under another module's name."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        whole = ".".join(parts[:n])
        monkeypatch.setitem(sys.modules, whole, types.ModuleType(whole))
    made = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


def network_class(monkeypatch, module="tfutil"):
    def state(self):
        kwargs = {"resolution": 64, "label_size": 0, "num_channels": 3, **self.settings}
        return {
            "version": 2,
            "name": "Gs",
            "static_kwargs": kwargs,
            "build_module_src": "raise SystemExit('the source of a module was run')",
            "build_func_name": "G_paper",
            "variables": list(self.arrays.items()),
        }

    made = stand_in(monkeypatch, module, "Network")
    made.__getstate__ = state
    made.settings = {}
    return made


def network(made, arrays, **settings):
    one = made()
    one.arrays, one.settings = arrays, settings
    return one


def write_mxnet(path, arrays, version=2):
    """Write MXNet's list of arrays, byte by byte."""
    out = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        shape = array.shape
        if version >= 2:
            out += struct.pack("<Ii", {2: 0xF993FAC9, 3: 0xF993FACA}[version], 0)
        if version == 1:
            out += struct.pack("<I", 0xF993FAC8)
        out += struct.pack(f"<I{len(shape)}{'q' if version else 'I'}", len(shape), *shape)
        out += struct.pack("<iii", 2, 0, 0) + array.astype("<f4").tobytes()
    out += struct.pack("<Q", len(arrays))
    for name in arrays:
        out += struct.pack("<Q", len(name)) + name.encode()
    path.write_bytes(out)


def write_torch(path, arrays, wrap=lambda tensors: tensors, zipped=True):
    import torch

    tensors = OrderedDict((k, torch.from_numpy(np.array(a))) for k, a in arrays.items())
    tensors._metadata = OrderedDict({"": {"version": 1}})
    torch.save(wrap(tensors), path, _use_new_zipfile_serialization=zipped)


def test_the_authors_two_ways_of_upsampling_give_one_image_with_kernels_turned(rng):
    import torch

    fused = karras_variables(rng, fused=True)
    plain = {}
    for key, array in fused.items():
        turned = array[::-1, ::-1].swapaxes(2, 3) if key.endswith("Conv0_up/weight") else array
        plain[key.replace("Conv0_up", "Conv0")] = turned
    z = torch.from_numpy(rng.standard_normal((2, 24)))
    images = karras_image(fused, z, fused=True).numpy(), karras_image(plain, z).numpy()
    np.testing.assert_allclose(*images, atol=1e-9)


def test_the_authors_dense_layer_is_a_convolution_turned_around(rng):
    import torch

    theirs = karras_variables(rng)
    ours = {}
    for number in range(10):
        size = 4 << (number // 2)
        layer = ("Dense", "Conv")[number] if size == 4 else f"Conv{number % 2}"
        weight = theirs[f"{size}x{size}/{layer}/weight"]
        if number == 0:
            weight = weight.reshape(24, 16, 4, 4).transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
        else:
            weight = weight.transpose(3, 2, 0, 1)
        ours[f"layer{number}.weight"] = weight
        ours[f"layer{number}.bias"] = theirs[f"{size}x{size}/{layer}/bias"]
    ours["output4.weight"] = theirs["ToRGB_lod0/weight"].transpose(3, 2, 0, 1)
    ours["output4.bias"] = theirs["ToRGB_lod0/bias"]
    z = torch.from_numpy(rng.standard_normal((2, 24)))
    images = karras_image(theirs, z).numpy(), genforce_image(ours, z).numpy()
    np.testing.assert_allclose(*images, atol=1e-6)
