"""Numbers in messages."""

import pytest

from embedstore.wording import per_second


@pytest.mark.parametrize(
    ("rate", "text"),
    [(2345.6, "2,346 clips/s"), (10, "10 clips/s"), (1, "1.0 clips/s"), (0.486, "0.5 clips/s"), (0, "0 clips/s")],
)
def test_a_slow_rate_has_a_digit_after_the_point(rate, text):
    """Half a clip per second is neither 0 nor 1."""
    assert per_second(rate, "clips") == text
