"""What is known about a device whoever uses it: its full name, its memory, and which errors are a lack of memory.

Heads, backbones, decoders and fine-tuning all compute on devices and do not know each other, so this is below them.
Torch is imported only for a device that is not the CPU.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# How the libraries beneath torch report that they could not allocate memory: CUBLAS_STATUS_ALLOC_FAILED,
# CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, CUSOLVER_STATUS_ALLOC_FAILED, CUFFT_ALLOC_FAILED and so on.
# cuBLAS has no memory for its own handle either where "cublasCreate" fails as "not initialized".
_NO_MEMORY = re.compile(
    r"out of memory|can(no|')t allocate memory"
    r"|(cublas|cudnn|cusolver|cusparse|cufft|curand|nccl|hipblas|rocblas|miopen)\w*alloc\w*"
    r"|cublas_status_not_initialized.*cublascreate|cudnn_status_not_initialized.*cudnncreate",
    re.IGNORECASE | re.DOTALL,
)


# What drivers of GPUs that torch computes on put below /dev: NVIDIA's, AMD's, and those of WSL and of Jetson boards.
_GPU_FILES = ("nvidia[0-9]*", "kfd", "dxg", "nvgpu", "nvhost-gpu")


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Return whether only torch can tell if this machine has a device that it computes on.

    Args:
        devices: the folder of device files.

    Returns:
        False where there is certainly none, so that torch need not be imported; elsewhere than on Linux always True.
    """
    if sys.modules.get("torch") is not None or sys.platform != "linux":
        return True
    return any(True for pattern in _GPU_FILES for _ in devices.glob(pattern))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory ran out, on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own class
        return True
    return _NO_MEMORY.search(str(error)) is not None


def full_name(device: str) -> str:
    """Return a device's name with its number: ``cuda`` is the current one, usually ``cuda:0``."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{torch.cuda.current_device()}"


def free_bytes(device: str) -> int:
    """Return how many bytes of a CUDA device can still be used; 0 for every other device.

    What torch has reserved and does not use counts as free: it gives it to the next tensor.
    """
    if not _is_cuda(device):
        return 0
    import torch

    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + max(0, reserved)


def describe_memory(device: str) -> str:
    """Return how much memory of a CUDA device is free, as a clause for a message; "" for every other device."""
    if not _is_cuda(device):
        return ""
    import torch

    total = torch.cuda.mem_get_info(device)[1]
    return f" ({free_bytes(device) / 1e9:.1f} of {total / 1e9:.1f} GB are free)"


def _is_cuda(device: str) -> bool:
    """Return whether a device is a CUDA device of this machine."""
    if not device.startswith("cuda"):
        return False
    import torch

    return torch.cuda.is_available()
