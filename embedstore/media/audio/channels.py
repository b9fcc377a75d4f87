"""Whether the channels of a sound cancel each other out, so that their mean has nothing of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CANCELLED = 0.1  # of the power that the mean of unrelated channels has: two with a correlation below -0.9


class ChannelLevels:
    """The power of each channel and of their mean, without what is constant.

    The mean of two channels of which one is the other with its sign changed, as by a cable that is wired wrongly, is
    silence, or what a codec changed (Ogg Vorbis: a correlation of -0.96). Sounds of two microphones do not come near.

    Args:
        channels: how many there are.
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sums = np.zeros(channels + 1)
        self._squares = np.zeros(channels + 1)

    def add(self, block: NDArray[np.float32], mean: NDArray[np.float32]) -> None:
        """Count some frames.

        Args:
            block: ``(F, C)``.
            mean: ``(F,)``, the mean of the channels.
        """
        if block.shape[1] == 1:
            return
        values = np.column_stack((block, mean)).astype(np.float64)
        self._count += len(values)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite samples are refused later
            self._sums += values.sum(axis=0)
            self._squares += np.square(values).sum(axis=0)

    def replacement(self) -> int | None:
        """Return the channel with the most power if the channels cancel each other out; otherwise None."""
        if not self._count:
            return None
        with np.errstate(invalid="ignore"):
            power = self._squares / self._count - np.square(self._sums / self._count)
        channels, mean = power[:-1], power[-1]
        if not np.isfinite(power).all() or mean >= CANCELLED * channels.sum() / len(channels) ** 2:
            return None
        return int(np.argmax(channels))
