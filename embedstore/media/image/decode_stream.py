"""A CUDA stream of its own for a decoder that does not wait for the work before it.

The hardware engine of nvJPEG writes its images before the work that is queued on the stream that it was given
(torchcodec pull request 1634, torchvision issue 9606). Torch's allocator hands out memory again as soon as it is free
on the stream that owns it, though queued kernels still read it: such a decoder overwrites what they read. Three things
together prevent that, and each is needed:

- the images come from the memory of a stream that does nothing else, so the network's memory is never among them;
- that stream is empty when a decoder begins: the host waits for it, and for nothing that the network does;
- who uses the results waits for an event after them, and their memory is not handed out again before that use ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch


class DecodeStream:
    """Work on one device, in a stream of its own; one thread at a time.

    Args:
        device: the device; any other than CUDA has no streams, and the work runs as it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._lock = threading.Lock()

    def run_if_free(self, work: Callable[[], Sequence[torch.Tensor]]) -> Sequence[torch.Tensor] | None:
        """Return what some work returns, ready for the caller's stream; None if another thread is at work here.

        Args:
            work: decodes, and queues what makes small tensors of the images; it must not keep the images.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._run(work) if self._device.type == "cuda" else work()
        finally:
            self._lock.release()

    def _run(self, work: Callable[[], Sequence[torch.Tensor]]) -> Sequence[torch.Tensor]:
        """Run the work on the empty stream, and let the caller's stream wait for it."""
        stream = self._stream = self._stream or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.synchronize()
        with torch.cuda.stream(stream):
            results = work()
            done = stream.record_event()
        user = torch.cuda.current_stream(self._device)
        user.wait_event(done)
        for tensor in results:
            tensor.record_stream(user)
        return results
