"""Where the linear probe is computed: NumPy on the CPU or torch on a GPU, behind the functions that both have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray

Tensor = Any  # numpy.ndarray or torch.Tensor

# Without one of these (NVIDIA, WSL 2, AMD) there is no GPU, and torch need not be imported to find out.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia", "/dev/kfd")


@dataclass(frozen=True)
class Backend:
    """NumPy or torch.

    Attributes:
        xp: the module; only functions that both modules have under one name are used.
        device: None for NumPy, else a torch device.
        dtype: NumPy's float32 or float64, the precision of all arrays.
    """

    xp: Any
    device: str | None
    dtype: np.dtype[Any]

    def to_device(self, a: Array) -> Tensor:
        """Copy an array to the device. Floating point becomes ``dtype``, integers keep their type."""
        a = np.asarray(a, self.dtype) if a.dtype.kind in "fb" else np.asarray(a)
        return a if self.device is None else self.xp.as_tensor(np.ascontiguousarray(a)).to(self.device)

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros of ``dtype`` on the device."""
        return self.to_device(np.zeros(shape, self.dtype))

    def to_numpy(self, a: Tensor) -> FloatArray:
        """Return a float64 NumPy copy."""
        return np.array(a if self.device is None else a.detach().cpu().numpy(), dtype=np.float64)

    def dot(self, a: Tensor, b: Tensor) -> FloatArray:
        """Return the inner product along all axes but the first, float64 NumPy ``(T,)``."""
        tasks = len(a)
        flat = a.reshape(tasks, -1), b.reshape(tasks, -1)
        return self.to_numpy(np.vecdot(*flat) if self.device is None else self.xp.linalg.vecdot(*flat))

    def exp_in_place(self, a: Tensor) -> Tensor:
        """Replace the argument by its exponential and return it."""
        return np.exp(a, out=a) if self.device is None else a.exp_()

    def eigh(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return eigenvalues and eigenvectors (as columns) of a symmetric matrix."""
        if self.device is not None:
            values, vectors = self.xp.linalg.eigh(a)
            return values, vectors.contiguous()
        from scipy.linalg import eigh

        # divide and conquer: 96 ms at 1,280 features, where NumPy's own call takes 236 ms
        values, vectors = eigh(a, driver="evd", check_finite=False)
        return values, np.ascontiguousarray(vectors)

    def free_bytes(self) -> int:
        """Return the free memory of a CUDA device, 0 otherwise: on the CPU arrays stay where they are."""
        if self.device is None or not self.device.startswith("cuda"):
            return 0
        return int(self.xp.cuda.mem_get_info(self.device)[0])


def select_backend(device: str, dtype: np.dtype[Any]) -> Backend:
    """Return the backend for a device.

    Args:
        device: ``auto`` is CUDA if there is a GPU, else NumPy, without importing torch; ``cpu`` is NumPy; anything
            else is a torch device such as ``cuda:1``.
        dtype: float32 or float64.
    """
    device = resolve_device(device)
    if device == "cpu":
        return Backend(np, None, dtype)
    import torch

    return Backend(torch, device, dtype)


def resolve_device(device: str) -> str:
    """Return the device that ``auto`` stands for: ``cuda`` or ``cpu``; any other device as it is."""
    if device != "auto":
        return device
    if not any(Path(p).exists() for p in _GPU_FILES):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
