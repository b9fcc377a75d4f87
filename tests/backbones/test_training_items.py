"""How many images one pass with gradients has."""

import pytest

from embedstore.backbones.base import training_items


@pytest.mark.parametrize(
    ("device", "size", "items"),
    [
        ("cpu", (224, 224), 8), ("cpu", (448, 448), 2), ("cpu", (1344, 1344), 1), ("cpu", (112, 224), 16),
        ("cuda", (224, 224), None), ("mps", (32, 32), None),
    ],
)  # fmt: skip
def test_a_pass_on_the_cpu_has_a_bounded_number_of_pixels(device, size, items):
    """8 images of 224 by 224, fewer of larger ones, at least one; a graphics card is tried with a whole batch."""
    assert training_items(device, size) == items


def test_small_images_are_trained_in_whole_batches():
    """The default batch of 32 images of 64 by 64 is one pass."""
    assert training_items("cpu", (64, 64)) >= 32
