"""The faults of pictures against those that cleanvision finds."""

import pytest

from embedstore.media.image.quality import Fault
from tests.benchmarks.bench_quality import FAULTS, ours, shares, theirs, write_pictures
from tests.helpers.natural_images import natural_image

pytest.importorskip("cleanvision", reason="cleanvision is not installed; it is what the faults are compared with")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both find in 24 good pictures and 12 with each fault."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(map(natural_image, range(24)), folder, faulty=12)
    return ours(folder), theirs(folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_as_many_are_found_with_no_more_false_reports(found, fault: Fault):
    """For each fault, at least as many faulty pictures are found as by cleanvision, and at most as many good ones."""
    (share, false), (their_share, their_false) = (shares(way, fault) for way in found)
    assert share >= their_share
    assert false <= their_false
