"""Screening decides from the header which files are safe to decode in this process."""

from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.media.image import screening

PIECES = st.lists(
    st.sampled_from([b"\xff", b"\xda", b"\xff\xda", b"\xff\xff\xda", b"\0", b"ab"]), min_size=3, max_size=60
)


@settings(max_examples=300, deadline=None)
@given(PIECES)
def test_scans_are_counted_at_every_offset(pieces):
    """Markers count at even and odd offsets, at the end, and after a byte that resembles one."""
    data = b"".join(pieces)
    assert screening.count_scans(data) == data.count(b"\xff\xda")


def test_a_jpeg_with_too_many_scans_is_isolated():
    """Sixteen scans are safe in this process, seventeen are not."""
    head = b"\xff\xd8\xff\xc2\x00\x11\x08" + (50).to_bytes(2, "big") * 2 + bytes(12)
    assert screening.is_safe_in_process(head + b"\xff\xda\x00" * 16)
    assert not screening.is_safe_in_process(head + b"\xff\xda\x00" * 17)
