"""Where the linear probe is computed: NumPy on the CPU or torch on a GPU, behind the functions that both have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from embedstore import devices
from embedstore.arrays import Array, FloatArray
from embedstore.errors import BadHead

Tensor = Any  # numpy.ndarray or torch.Tensor
Result = TypeVar("Result")

# Without one of these (NVIDIA, WSL 2, AMD) there is no GPU, and torch need not be imported to find out.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia", "/dev/kfd")
# Operations in one pass over the rows below which `auto` stays on the CPU: sixty passes of this size take a CPU of 50
# GFLOPS five seconds, about as long as importing torch and starting CUDA. An estimate, not measured on a GPU.
MIN_GPU_WORK = 4e9
_BLOCK_MEMORY_SHARE = 0.25  # of a GPU's free memory that one block of rows and what is computed from it may take


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

    def transposed(self, a: Tensor) -> Tensor:
        """Return a copy of the transposed matrix ``a`` whose rows are contiguous."""
        return a.T.copy() if self.device is None else a.T.contiguous()

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros of ``dtype`` on the device."""
        if self.device is None:
            return np.zeros(shape, self.dtype)
        return self.xp.zeros(shape, dtype=getattr(self.xp, self.dtype.name), device=self.device)

    def to_numpy(self, a: Tensor) -> FloatArray:
        """Return a float64 NumPy copy."""
        return np.array(a if self.device is None else a.detach().cpu().numpy(), dtype=np.float64)

    def dot(self, a: Tensor, b: Tensor) -> FloatArray:
        """Return the inner product along all axes but the first, float64 NumPy ``(T,)``."""
        tasks = len(a)
        flat = a.reshape(tasks, -1), b.reshape(tasks, -1)
        return self.to_numpy(np.vecdot(*flat) if self.device is None else self.xp.linalg.vecdot(*flat))

    def sums(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the inner products along the last axis, float64 ``(T,)``, on the device: the host does not wait."""
        if self.device is None:
            return np.vecdot(a, b).astype(np.float64)
        return (a * b).sum(-1, dtype=self._sum_dtype)

    def zero_sums(self, *shape: int) -> Tensor:
        """Return zeros on the device in the precision of :meth:`sums`."""
        return (
            np.zeros(shape) if self.device is None else self.xp.zeros(shape, dtype=self._sum_dtype, device=self.device)
        )

    def arange(self, n: int) -> Tensor:
        """Return 0 to n - 1 on the device."""
        return np.arange(n) if self.device is None else self.xp.arange(n, device=self.device)

    def block_rows(self, numbers_per_row: int, otherwise: int) -> int:
        """Return how many rows are computed at once: on a GPU a power of two, so that its memory seldom decides.

        Args:
            numbers_per_row: numbers of ``dtype`` that a row needs, with what is computed from it.
            otherwise: rows that suit the cache of a CPU; used unless the device says how much memory it has.
        """
        free = self.free_bytes()
        fits = int(free * _BLOCK_MEMORY_SHARE / (self.dtype.itemsize * max(1, numbers_per_row)))
        return 1 << max(0, fits.bit_length() - 1) if free else otherwise

    @property
    def _sum_dtype(self) -> Any:
        """Return float64, or float32 where the device has no wider type."""
        return self.xp.float32 if str(self.device).startswith("mps") else self.xp.float64

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
        return devices.free_bytes(self.device) if self.device is not None else 0


def select_backend(device: str, dtype: np.dtype[Any]) -> Backend:
    """Return the backend for a device.

    Args:
        device: ``cpu`` is NumPy; anything else is a torch device such as ``cuda:1``.
        dtype: float32 or float64.
    """
    if device == "cpu":
        return Backend(np, None, dtype)
    import torch

    return Backend(torch, device, dtype)


def compute_on(device: str, work: float, compute: Callable[[str], Result]) -> Result:
    """Return what a function computes on a device; ``auto`` goes on with the CPU where the GPU's memory runs out.

    Args:
        device: ``auto``, ``cpu`` or a torch device.
        work: operations in one pass over the rows.
        compute: called with ``cpu`` or a torch device.

    Raises:
        BadHead: if the user named the device and its memory runs out.
    """
    chosen = resolve_device(device, work)
    try:
        return compute(chosen)
    except (RuntimeError, MemoryError) as error:
        if chosen == "cpu" or not devices.is_out_of_memory(error):
            raise
        if device != "auto":
            memory = f"the memory of {chosen}{devices.describe_memory(chosen)}"
            raise BadHead(f"these rows do not fit into {memory}; use device='cpu', or leave it out") from error
    return compute("cpu")


def resolve_device(device: str, work: float) -> str:
    """Return the device that ``auto`` stands for: ``cuda`` if there is a GPU and enough to do; any other as it is.

    Torch is not imported for ``cpu``, for little work, or on a machine without a GPU.

    Args:
        device: ``auto``, ``cpu`` or a torch device.
        work: operations in one pass over the rows.
    """
    if device != "auto":
        return device
    if work < MIN_GPU_WORK or not any(Path(p).exists() for p in _GPU_FILES):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
