"""Both errors of duplicates are measured on copies of the store's own images."""

import shlex

import numpy as np
import pytest

import embedstore as es
from embedstore.cli import main
from embedstore.errors import BadBackbone, BadOption
from embedstore.operations.copy_errors import CopiedImages
from tests.helpers.clusters import clusters, store_of
from tests.helpers.natural_images import natural_image


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Forty-five pictures, embedded with the bundled network."""
    folder = tmp_path_factory.mktemp("errors")
    (folder / "images").mkdir()
    for n in range(45):
        natural_image(n).save(folder / "images" / f"{n}.png")
    store = es.create(folder / "s", "tiny")
    store.embed(folder / "images")
    return store


@pytest.fixture(scope="module")
def measured(store):
    """Both errors, of all pictures."""
    return store.copy_errors(max_images=45)


def test_pixels_find_every_copy_and_no_other_pair(measured):
    """45 copies of each of four kinds, and 22 pairs of different pictures, with Wilson's intervals."""
    pixels = [s for s in measured.shares if s.way == "pixels"]
    assert [(s.pairs, s.counted) for s in pixels] == [(45, 45)] * 4 + [(22, 0)]
    assert [s.is_copy for s in pixels] == [True] * 4 + [False]
    assert (pixels[0].high, pixels[-1].low) == (1, 0)
    assert 0.92 < pixels[0].low < 0.93, "Wilson: 45 of 45 is at least 0.921"
    assert 0.14 < pixels[-1].high < 0.15, "Wilson: 0 of 22 is at most 0.149"


def test_the_threshold_moves_the_cosine_alone(store):
    """At a cosine of 1 no crop and no other pair counts, at a low one all do, and the pixels say the same."""
    high, low = (store.copy_errors(t, max_images=8) for t in (1.0, 0.01))
    assert [s.counted for s in high.shares if s.way == "cosine"][-2:] == [0, 0]
    assert all(s.counted == s.pairs for s in low.shares if s.way == "cosine")
    assert [s for s in high.shares if s.way == "pixels"] == [s for s in low.shares if s.way == "pixels"]
    assert {s.way for s in high.shares} == {"cosine", "pixels"}, "eight images are too few to measure a cosine"
    assert high.measured_threshold is None


def test_the_measured_cosine_is_the_one_that_95_percent_of_the_copies_reach():
    """By hand: 60 copies of 20 images have the cosines 0.41 to 1.00, and the third lowest is 0.43, without crops."""
    cosines = np.arange(41, 101, dtype=np.float32).reshape(3, 20) / 100
    vectors = np.zeros((20, 1), np.float32)
    seen = CopiedImages((np.zeros((20, 32, 32)),) * 5, (*cosines, np.zeros(20, np.float32)), vectors)
    assert seen.measured_threshold() == pytest.approx(0.43, abs=1e-4)
    assert (cosines >= seen.measured_threshold()).sum() == 58


def test_the_measured_cosine_is_judged_on_other_images(measured):
    """Of 45 images 23 choose it and 22 judge it, next to 22 pairs of all 45 drawn at random."""
    rows = {s.kind: s for s in measured.shares if s.way == "measured cosine"}
    assert [s.pairs for s in rows.values()] == [22] * 5
    whole = [s for s in rows.values() if s.is_copy and "cropped" not in s.kind]
    assert sum(s.counted for s in whole) >= 58, "of 66, of which 95% are expected: fewer are 1 in 200 draws"


def test_the_command_line_says_how_to_use_the_measured_cosine(store, capsys):
    """The command that is printed runs, with the measured cosine and the filter."""
    with pytest.raises(SystemExit, match="0"):
        main(["duplicates", str(store.path), "--errors", "45", "--where", "item <= 44"])
    err = capsys.readouterr().err
    words = shlex.split(err.split("`")[1])
    assert words[-2:] == ["--where", "item <= 44"]
    with pytest.raises(SystemExit, match="0"):
        main(words[1:])
    assert f"cosine {words[4]}; 44 contents" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(store, tmp_path):
    """One image makes no pair, and vectors without a network have no copies."""
    with pytest.raises(BadOption, match="two images"):
        store.copy_errors(max_images=1)
    X, y = clusters(30)
    with pytest.raises(BadBackbone):
        store_of(tmp_path / "s", X, label=y).copy_errors()
