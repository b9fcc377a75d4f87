"""Pretended CUDA devices: real numbers on the CPU behind tensors that say ``cuda:0``.

With it the device code of embedstore runs in the ordinary suite, on one or several devices and with every wheel of
torch. A wrapper tensor holds a tensor on the CPU; a dispatch mode, entered on every thread, runs each operation on what
the wrappers hold. What a real card would refuse or spoil is a fault here:

- operands on different devices raise what CUDA raises;
- a pinned buffer that changes before the next synchronization, so that its asynchronous copy would be spoiled;
- a host buffer that is read before its asynchronous copy ended is full of ``POISON``;
- work on several streams that is not ordered, memory that is reused too early (:mod:`tests.helpers.pretend_streams`);
- more memory than the device has raises ``torch.OutOfMemoryError``.

Half precision and TF32 are computed as such, and kernels, synchronizations and copies are counted.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary, ref

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from tests.helpers.pretend_streams import PretendedStream, StreamOrder, StreamUse

aten = torch.ops.aten
POISON = 0xA5  # every byte of a host buffer whose copy from the device has not ended
GIGABYTE = 1 << 30
PIN = (aten.pin_memory.default, aten._pin_memory.default)
COPIES = (aten._to_copy.default, aten.copy_.default)
# They need numbers on the host before they can go on, so they wait for the device.
WAITING = (aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.equal, aten.masked_select, aten._unique2)
HOST_INDICES = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)  # indices may be on the CPU
KEPT_WHOLE = (aten.scaled_dot_product_attention.default, aten.linear.default, aten.matmul.default)
CONVOLUTIONS = (aten.convolution.default, aten._convolution.default)
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.linear, aten.matmul)


class DeviceFault(Exception):
    """What a real device would have spoiled in silence."""


@dataclass
class PretendedGpu:
    """One device.

    Attributes:
        device: its name.
        capacity: bytes of memory.
        used: bytes in use.
        peak: most bytes that were in use.
        counts: ``kernels``, ``synchronizations``, ``pageable_copies`` and ``pinned_copies`` to the device,
            ``copies_to_host``, ``peer_copies``.
        default_stream: where work is queued that names no other stream.
    """

    device: torch.device
    capacity: int = 64 * GIGABYTE
    used: int = 0
    peak: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    allocations: WeakValueDictionary[int, _Allocation] = field(default_factory=WeakValueDictionary)
    uploads: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)  # pinned source, what was in it
    downloads: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)  # host target, what comes

    def __post_init__(self) -> None:
        self.streams: list[PretendedStream] = []
        self.default_stream = PretendedStream(self)


class _Allocation:
    """Memory of a device, free when the last tensor in it is."""

    def __init__(self, gpu: PretendedGpu, size: int, machine: PretendedMachine) -> None:
        self.gpu, self.size, self.machine = gpu, 0, machine
        self.use = StreamUse(machine.order.current(gpu))
        with machine.lock:
            if gpu.used + size > gpu.capacity:
                free = gpu.capacity - gpu.used
                text = f"CUDA out of memory. Tried to allocate {size} bytes. GPU {gpu.device.index} has {free} free."
                raise torch.OutOfMemoryError(text)
            self.size = size
            gpu.used += size
            gpu.peak = max(gpu.peak, gpu.used)

    def __del__(self) -> None:
        with self.machine.lock:
            self.gpu.used -= self.size
            if text := self.use.fault_of_freeing():
                self.machine.faults.append(text)


class DeviceTensor(torch.Tensor):
    """A tensor that says it is on a device, around one on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device, allocation: _Allocation | None) -> DeviceTensor:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        self = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **layout, device=device)
        self.inner, self.allocation = inner, allocation
        return self

    def record_stream(self, stream: PretendedStream) -> None:
        """Let whoever owns the memory wait for a stream before it hands it out again."""
        if self.allocation is not None:
            self.allocation.use.recorded.add(stream)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise DeviceFault(f"{func} ran on a thread that the pretended device does not know")


class PretendedMachine:
    """A machine with some devices; see :func:`tests.helpers.pretend_cuda.pretended_gpus`.

    Args:
        count: how many devices.
        memory: bytes of each.

    Attributes:
        gpus: the devices.
        faults: what a real device would have refused or spoiled.
        seeded: the devices whose random generator was read, set or seeded.
        order: of the work on streams.
        capturing: while it is true, nothing may wait or be copied from the host, as while CUDA records a graph.
    """

    def __init__(self, count: int, memory: int) -> None:
        self.gpus = [PretendedGpu(torch.device("cuda", n), memory) for n in range(count)]
        self.faults: list[str] = []
        self.order = StreamOrder(self.fault)
        self.capturing = False
        self.seeded: set[int] = set()
        self.lock = threading.RLock()
        self.current = threading.local()
        self._pinned: dict[int, ref[Any]] = {}

    @property
    def counts(self) -> Counter[str]:
        """The counts of all devices together."""
        return sum((gpu.counts for gpu in self.gpus), Counter())

    def gpu(self, device: Any) -> PretendedGpu:
        """Return the device of a name."""
        index = torch.device(device).index
        return self.gpus[getattr(self.current, "index", 0) if index is None else index]

    def fault(self, text: str, error: type[Exception] = DeviceFault) -> None:
        """Record a fault, so that it is seen also where an exception is caught, and raise it."""
        self.faults.append(text)
        raise error(text)

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy in memory that is known as pinned."""
        memory = np.empty(max(1, tensor.numel() * tensor.element_size()), np.uint8)
        out = torch.from_numpy(memory)[: tensor.numel() * tensor.element_size()].view(tensor.dtype).view(tensor.shape)
        out.copy_(tensor)
        self._pinned[memory.ctypes.data] = ref(memory)
        return out

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor lies in pinned memory."""
        memory = self._pinned.get(tensor.untyped_storage().data_ptr())
        return memory is not None and memory() is not None

    def synchronize(self, gpu: PretendedGpu, *, everything: bool = False) -> None:
        """Wait for the current stream, or for all: what was copied must still be in its buffer, and what was fetched
        arrives.
        """
        if self.capturing:
            self.fault("the host waits while a graph is recorded")
        with self.lock:
            gpu.counts["synchronizations"] += 1
            for stream in gpu.streams if everything else [self.order.current(gpu)]:
                stream.finish()
            uploads, gpu.uploads = gpu.uploads, []
            downloads, gpu.downloads = gpu.downloads, []
        for target, values in downloads:
            target.copy_(values)
        if any(not torch.equal(source, before) for source, before in uploads):
            self.fault(f"a pinned buffer was rewritten before its copy to {gpu.device} ended")

    def wrap(self, inner: torch.Tensor, gpu: PretendedGpu) -> DeviceTensor:
        """Return a tensor of the CPU as one of a device, in the memory that it shares or in new memory."""
        storage = inner.untyped_storage()
        allocation = gpu.allocations.get(storage.data_ptr()) if storage.nbytes() else None
        if allocation is None and storage.nbytes():
            allocation = gpu.allocations[storage.data_ptr()] = _Allocation(gpu, storage.nbytes(), self)
        return DeviceTensor(inner, gpu.device, allocation)


class DispatchMode(TorchDispatchMode):
    """Runs the operations of one thread."""

    def __init__(self, machine: PretendedMachine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in PIN:
            return self.machine.pin(args[0])
        if func is aten.is_pinned.default:
            return self.machine.is_pinned(args[0])
        if func is aten._fused_sdp_choice.default:
            return 0  # the plain formula: the fused kernels are CUDA's own
        if func not in KEPT_WHOLE and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        is_for_device = "cuda" in str(kwargs.get("device")) or any(isinstance(t, DeviceTensor) for t in tensors)
        if not is_for_device:
            return func(*args, **kwargs)
        return self._copy(func, args, kwargs) if func in COPIES else self._compute(func, args, kwargs, tensors)

    def _compute(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
        """Run a kernel on the one device of its operands."""
        indices = args[1] if func.overloadpacket in HOST_INDICES else []
        gpu = self.machine.gpu(self._device_of(func, kwargs, [t for t in tensors if not any(t is i for i in indices)]))
        wrappers = {id(t.inner): t for t in tensors if isinstance(t, DeviceTensor)}
        args, kwargs = tree_map(_inner, (args, kwargs))
        if "device" in kwargs:
            kwargs["device"], kwargs["pin_memory"] = torch.device("cpu"), False
        if _is_tf32(func):
            args = tree_map(_rounded_to_tf32, args)
        if func.overloadpacket in WAITING or _has_mask(func, args):
            self.machine.synchronize(gpu)
        out = func(*args, **kwargs)
        reads = _uses(tensors)
        with self.machine.lock:
            gpu.counts["kernels"] += not func.is_view

        def wrapped(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return wrappers[id(value)] if id(value) in wrappers else self.machine.wrap(value, gpu)

        results = tree_map(wrapped, out)
        if not func.is_view:
            self.machine.order.ran(gpu, reads, _uses(tree_flatten(results)[0]))
        return results

    def _device_of(self, func: Any, kwargs: Any, tensors: list[torch.Tensor]) -> torch.device:
        """Return the device of the operands; a number of the CPU may be among them."""
        names = {str(t.device) for t in tensors if t.device.type != "cpu" or t.dim()}
        if kwargs.get("device") is not None:
            names.add(str(self.machine.gpu(kwargs["device"]).device))
        if len(names) > 1:
            text = f"Expected all tensors to be on the same device, but found {sorted(names)} in {func}"
            self.machine.fault(text, RuntimeError)
        return torch.device(names.pop())

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Copy between the host and a device, between devices, or within one."""
        is_in_place = func is aten.copy_.default
        source = args[1] if is_in_place else args[0]
        target = args[0].device if is_in_place else torch.device(kwargs.get("device") or source.device)
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        inner_args, inner = tree_map(_inner, (args, {k: v for k, v in kwargs.items() if k != "device"}))
        out = func(*inner_args, **inner)
        if out.untyped_storage().data_ptr() == _inner(source).untyped_storage().data_ptr() and not is_in_place:
            out = out.clone()  # the same numbers in another memory
        if target.type == "cpu":
            self.machine.order.ran(self.machine.gpu(source.device), _uses([source]), [])
            return self._copy_to_host(source.device, out, args[0] if is_in_place else out, waits=waits)
        gpu = self.machine.gpu(target)
        result = args[0] if is_in_place else self.machine.wrap(out, gpu)
        reads = _uses([source]) if source.device == gpu.device else []
        self.machine.order.ran(gpu, reads, _uses([result]))
        self._count_upload(gpu, source, waits=waits)
        return result

    def _copy_to_host(self, device: torch.device, values: torch.Tensor, result: Any, *, waits: bool) -> Any:
        """Return what comes from a device: poison until somebody waits, if the copy does not."""
        gpu = self.machine.gpu(device)
        gpu.counts["copies_to_host"] += 1
        if waits:
            self.machine.synchronize(gpu)
        else:
            gpu.downloads.append((values, values.clone()))
            values.view(-1).view(torch.uint8).fill_(POISON)
        return result

    def _count_upload(self, gpu: PretendedGpu, source: torch.Tensor, *, waits: bool) -> None:
        """Count a copy to a device; remember what was in a pinned buffer that is read later."""
        if self.machine.capturing and not isinstance(source, DeviceTensor):
            self.machine.fault("memory of the host is copied while a graph is recorded")
        if isinstance(source, DeviceTensor):
            gpu.counts["peer_copies" if source.device != gpu.device else "kernels"] += 1
        elif self.machine.is_pinned(source):
            gpu.counts["pinned_copies"] += 1
            gpu.uploads.append((source, source.clone()))
            if waits:
                self.machine.synchronize(gpu)
        else:
            gpu.counts["pageable_copies"] += 1
            self.machine.synchronize(gpu)


def _inner(value: Any) -> Any:
    """Return the tensor on the CPU that a wrapper holds; everything else as it is."""
    return value.inner if isinstance(value, DeviceTensor) else value


def _uses(values: Any) -> list[StreamUse]:
    """Return who uses the memory of the tensors of a device among some values."""
    tensors = (v for v in values if isinstance(v, DeviceTensor))
    return [t.allocation.use for t in tensors if t.allocation is not None]


def _has_mask(func: Any, args: Any) -> bool:
    """Return whether a mask selects elements, whose number the host has to know."""
    if func.overloadpacket is not aten.index:
        return False
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _is_tf32(func: Any) -> bool:
    """Return whether CUDA would round the operands of this kernel to TF32 under the settings of now."""
    if func in CONVOLUTIONS:
        return torch.backends.cudnn.conv.fp32_precision != "ieee"
    return func.overloadpacket in PRODUCTS and torch.backends.cuda.matmul.fp32_precision == "tf32"


def _rounded_to_tf32(value: Any) -> Any:
    """Return float32 numbers with ten bits after the point, as TF32 has them; everything else as it is."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return value
    return ((value.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
