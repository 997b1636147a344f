"""The device that networks compute on, and the memory that is free there."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyper_bids.errors import DeviceError, listing

LOG = logging.getLogger("hyper_bids")

_REMEDY = (
    "mend the driver, the PyTorch build or the container's flag (docker --gpus all, apptainer "
    "--nv)."
)

# Where a container's limit stands, in either version of control groups.
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def resolve_device(device: str) -> str:
    """Return the device to compute on.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or ``"auto"``: the first GPU that works, else the CPU.

    Returns
    -------
    str
        ``"cpu"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        If a device that was named is not there.
    """
    if device == "cpu":
        return device
    if device == "auto":
        return "cuda:0" if _first_gpu_works() else "cpu"
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal() or device.endswith(":"):
        raise DeviceError(f"--device {device}: unknown. Use auto, cpu, cuda or cuda:N.")
    n_devices, complaint = _count_gpus()
    index = int(number or 0)
    if index >= n_devices:
        there = listing(f"cuda:{k}" for k in range(n_devices))
        reason = f"GPUs that PyTorch sees: {there}" + (f"; {complaint}" if complaint else "")
        raise DeviceError(f"--device {device}: not there ({reason}). Use auto or cpu, or {_REMEDY}")
    return f"cuda:{index}"


@contextmanager
def exact_inference() -> Iterator[None]:
    """Run networks without gradients, and as alike on all devices as PyTorch can.

    TF32 has 10 bits of mantissa, and cuDNN's choice by timing changes from run to run.
    """
    import torch

    exact = {"benchmark": False, "deterministic": True, "allow_tf32": False}
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, **exact):
        yield


def free_memory(device: str) -> int:
    """Return the bytes that are free on a device.

    Parameters
    ----------
    device : str
        ``"cpu"``: what is available, at most a container's limit less what this process holds.
        ``"cuda"`` or ``"cuda:N"``: what the driver has, and what PyTorch holds without using it.
    """
    if device != "cpu":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    import psutil

    free = psutil.virtual_memory().available
    for path in MEMORY_LIMITS:
        try:
            limit = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # no control group of this version, or no limit ("max")
        free = min(free, max(0, limit - psutil.Process().memory_info().rss))
    return free


def _count_gpus() -> tuple[int, str]:
    """Return how many GPUs PyTorch can use and, of none, what it or the driver complains of.

    Nothing is computed: on a GPU for one process only, that would shut out the workers.
    """
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    text = " ".join(str(warning.message) for warning in caught)
    return n_devices, "" if n_devices else _complaint(text)


def _complaint(text: str) -> str:
    """Return in a few words what PyTorch warns of when it starts CUDA."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch, {torch.__version__}, is built for the CPU alone"
    built = f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda}"
    old = re.search(r"driver on your system is too old \(found version (\d+)", text)
    if old:
        version = int(old[1])
        return (
            f"the NVIDIA driver is too old: it goes up to CUDA {version // 1000}."
            f"{version % 1000 // 10}, and {built}"
        )
    if "no NVIDIA driver" in text:
        return f"no NVIDIA driver is seen from here, and {built}"
    return " ".join(text.split())[:200].rstrip(". ")


def _first_gpu_works() -> bool:
    import torch

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            available = torch.cuda.is_available()
        text = " ".join(str(warning.message) for warning in caught)
        # A machine without a driver has no GPU to tell of.
        if text and not available and "no NVIDIA driver" not in text:
            LOG.warning("The GPU cannot be used (%s); computing on the CPU", _complaint(text))
        # A GPU can be there and yet fail: kernels may be missing for its age.
        return available and bool((torch.ones(1, device="cuda:0") + 1 == 2).item())
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        LOG.warning("The GPU cannot be used (%s); computing on the CPU", reason)
        return False
