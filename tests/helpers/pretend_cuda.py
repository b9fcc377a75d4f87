"""``torch.cuda`` on the devices of :mod:`tests.helpers.pretend_device`: what asks the driver is replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo  # torch imports it at the first module.to(), and must not see the replacements below

from tests.helpers.pretend_device import GIGABYTE, DeviceFault, DispatchMode, PretendedMachine
from tests.helpers.pretend_streams import PretendedStream


class PretendedEvent:
    """An event: everything before it has ended when it is recorded, because the CPU computes at once."""

    machine: PretendedMachine

    def __init__(self, enable_timing: bool = False, **_: object) -> None:
        self.enable_timing, self.at, self.stream = enable_timing, 0.0, None

    def record(self, stream: Any = None) -> None:
        self.at, self.stream = time.perf_counter(), stream or self.machine.order.current(self.machine.gpu("cuda"))
        self.clock = self.stream.clock

    def synchronize(self) -> None:
        if self.stream is not None:
            self.machine.synchronize(self.stream.gpu)

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: PretendedEvent) -> float:
        if not (self.enable_timing and end.enable_timing):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
        return 1000 * (end.at - self.at)


class StreamOfTorch(PretendedStream):
    """A stream with the methods of torch's."""

    def __init__(self, machine: PretendedMachine, gpu: Any) -> None:
        super().__init__(gpu)
        self._machine = machine

    def record_event(self, event: Any = None) -> Any:
        event = event or torch.cuda.Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        with self._machine.order.on(self):
            self._machine.synchronize(self.gpu)


class _HostGenerator(torch.Generator):
    """A random generator of the CPU, for whatever device it is wanted."""

    def __new__(cls, device: Any = "cpu") -> _HostGenerator:
        return super().__new__(cls, "cpu")


@contextmanager
def pretended_gpus(monkeypatch: Any, count: int = 1, *, memory: int = 64 * GIGABYTE) -> Iterator[PretendedMachine]:
    """Pretend that this machine has CUDA devices while the block runs; a fault fails the test at its end.

    Args:
        monkeypatch: pytest's.
        count: how many devices.
        memory: bytes of each.
    """
    machine = PretendedMachine(count, memory)
    torch._C._ensureCUDADeviceGuardSet()
    with monkeypatch.context() as patch:
        _patch_torch_cuda(patch, machine)
        start = threading.Thread.start

        def start_in_mode(thread: threading.Thread) -> None:
            run = thread.run

            def run_in_mode() -> None:
                with _entered(machine):
                    run()

            thread.run = run_in_mode
            start(thread)

        patch.setattr(threading.Thread, "start", start_in_mode)
        with _entered(machine):
            yield machine
            for gpu in machine.gpus:
                machine.synchronize(gpu)
    if machine.faults:
        raise DeviceFault("; ".join(machine.faults))


@contextmanager
def _entered(machine: PretendedMachine) -> Iterator[None]:
    """Enter the mode on this thread."""
    only_cpu = torch._C._only_lift_cpu_tensors()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(device=...) first makes one on the CPU
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter becomes a wrapper of its own
    try:
        with DispatchMode(machine), torch.autograd.set_multithreading_enabled(False):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(only_cpu)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def _patch_torch_cuda(patch: Any, machine: PretendedMachine) -> None:
    """Replace what asks the driver."""

    @contextmanager
    def on_device(device: Any) -> Iterator[None]:
        before, machine.current.index = getattr(machine.current, "index", 0), machine.gpu(device).device.index
        try:
            yield
        finally:
            machine.current.index = before

    def seed(indices: Any) -> None:
        machine.seeded.update(indices)

    def memory(device: Any = "cuda") -> tuple[int, int]:
        gpu = machine.gpu(device)
        return gpu.capacity - gpu.used, memory_of_each

    def cap(fraction: float, device: Any = "cuda") -> None:
        machine.gpu(device).capacity = int(memory_of_each * fraction)

    memory_of_each = machine.gpus[0].capacity
    replacements = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: len(machine.gpus),
        "current_device": lambda: getattr(machine.current, "index", 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_name": lambda device=None: "pretended device",
        "device": on_device,
        "Stream": lambda device="cuda": StreamOfTorch(machine, machine.gpu(device)),
        "stream": machine.order.on,
        "current_stream": lambda device="cuda": machine.order.current(machine.gpu(device)),
        "mem_get_info": memory,
        "set_per_process_memory_fraction": cap,
        "reset_peak_memory_stats": lambda device="cuda": setattr(machine.gpu(device), "peak", machine.gpu(device).used),
        "max_memory_allocated": lambda device="cuda": machine.gpu(device).peak,
        "memory_reserved": lambda device="cuda": machine.gpu(device).used,
        "memory_allocated": lambda device="cuda": machine.gpu(device).used,
        "empty_cache": lambda: None,
        "synchronize": lambda device="cuda": machine.synchronize(machine.gpu(device), everything=True),
        "Event": type("Event", (PretendedEvent,), {"machine": machine}),
        "manual_seed": lambda number: seed([machine.gpu("cuda").device.index]),
        "manual_seed_all": lambda number: seed(range(len(machine.gpus))),
        "get_rng_state": lambda device="cuda": seed([machine.gpu(device).device.index]) or torch.zeros(16),
        "set_rng_state": lambda state, device="cuda": seed([machine.gpu(device).device.index]),
    }
    for name, value in replacements.items():
        patch.setattr(torch.cuda, name, value)
    patch.setattr(torch, "Generator", _HostGenerator)
    patch.setattr(torch, "inference_mode", torch.no_grad)  # views of wrappers need version counters
    patch.setattr(torch.backends.cudnn, "enabled", False)  # cuDNN's own operators have no counterpart on the CPU
