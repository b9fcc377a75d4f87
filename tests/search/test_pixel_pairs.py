"""Pairs of images that show one picture are told from images that only look alike to the network."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from embedstore import create
from embedstore.media.image.gray_thumbnails import gray_thumbnail
from embedstore.search.picture_match import crop_matches, local_contrast, whole_matches
from embedstore.search.pixel_limit import SAME_CROP, SAME_PICTURE
from embedstore.search.same_picture import compare_pictures
from tests.helpers.natural_images import COPIES, natural_image

COUNT = 40


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def compared(one, others):
    """Return what the pixels of pairs of images say, and the highest of both scores as a share of what it needs."""
    thumbnails = np.stack([gray_thumbnail(image) for image in [*one, *others]])
    a, b = np.arange(len(one)), np.arange(len(one)) + len(one)
    contrast = local_contrast(thumbnails)
    whole = whole_matches(contrast, a, b)["score"] / SAME_PICTURE
    scores = np.maximum(whole, crop_matches(thumbnails, a, b)["score"] / SAME_CROP)
    return compare_pictures(thumbnails, contrast, (a, b), np.ones(len(a), np.float32), SAME_PICTURE), scores


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_every_kind_show_one_picture(kind):
    """All of forty copies are above the limits, in both orders."""
    images = [natural_image(seed) for seed in range(COUNT)]
    copies = [COPIES[kind](image) for image in images]
    assert compared(images, copies)[0].is_same.all()
    assert compared(copies, images)[0].is_same.all()


def test_other_pictures_do_not():
    """Forty pairs of different pictures all score far below the limit."""
    _, scores = compared([natural_image(s) for s in range(COUNT)], [natural_image(s + 1000) for s in range(COUNT)])
    assert scores.max() < 0.9


def test_empty_pictures_are_no_evidence():
    """Two white images, or gray ones with nothing in them, have the score 0, not that of equal pictures."""
    thumbnails = np.stack([np.full((32, 32), level, np.uint8) for level in (255, 255, 80)])
    matches = whole_matches(local_contrast(thumbnails), np.array([0, 0]), np.array([1, 2]))
    assert matches["score"] == pytest.approx(0, abs=1e-6)


@pytest.fixture
def folder(tmp_path):
    """Forty pictures, a copy of each of the first seven in another split, and a vector of every file.

    The vectors of copies are far apart (cosine about 0.7); those of pictures 20 and 21 are near, and so are those of 22
    and of a file that is missing.
    """
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((COUNT, 32)))
    copied = unit(vectors[:7] + unit(rng.standard_normal((7, 32))))
    vectors[21] = vectors[20] + 0.01 * rng.standard_normal(32)
    uris = []
    for seed in range(COUNT):
        uris.append(str(tmp_path / f"{seed}.png"))
        natural_image(seed).save(uris[-1])
    for seed, kind in enumerate(COPIES):
        uris.append(str(tmp_path / f"copy{seed}.png"))
        COPIES[kind](natural_image(seed)).save(uris[-1])
    uris.append(str(tmp_path / "gone.png"))
    lost = vectors[22] + 0.01 * rng.standard_normal(32)
    split = ["train"] * COUNT + ["test"] * 7 + ["train"]
    store = create(tmp_path / "s")
    store.add_vectors(unit(np.vstack([vectors, copied, lost])).astype(np.float32), {"uri": uris, "split": split})
    return store


def names(found):
    """Return the groups as sets of the names of files."""
    groups = {}
    for item in found.items:
        groups.setdefault(item.group, set()).add(item.uri.rsplit("/", 1)[1])
    return sorted(map(sorted, groups.values()))


def test_pixels_decide(folder):
    """Copies that the cosine misses are found, look-alikes are not in a group, and the missing file is counted."""
    found = folder.duplicates(0.95, check_pixels=True)
    assert names(found) == sorted([["22.png", "gone.png"], *([f"{n}.png", f"copy{n}.png"] for n in range(7))])
    assert (found.pixels.same, found.pixels.different, found.pixels.unread) == (7, 1, 1)
    assert found.pixels.crops == 2
    assert [p.pixels is not None and p.pixels >= SAME_PICTURE for p in found.cross_split_pairs] == [True] * 7
    by_name = {i.uri.rsplit("/", 1)[1]: i for i in found.items}
    assert by_name["copy0.png"].pixels > 0.9 > by_name["copy0.png"].cosine
    assert by_name["gone.png"].pixels is None
    assert names(folder.duplicates(0.95)) == [["20.png", "21.png"], ["22.png", "gone.png"]]


def test_the_threshold_is_chosen_from_the_vectors(tmp_path):
    """Copies at a cosine of about 0.9, which 0.95 misses, are found by the chosen threshold, and no other pair."""
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((500, 64)))
    rows = np.concatenate([rows, unit(rows[:50] + 0.45 * unit(rng.standard_normal((50, 64))))]).astype(np.float32)
    store = create(tmp_path / "s")
    store.add_vectors(rows, {"uri": [f"/{n}" for n in range(550)]})
    found = store.duplicates()
    assert found.is_threshold_chosen
    assert 0.6 < found.threshold < 0.9
    assert found.pair_count == 50
    assert store.duplicates(0.95).pair_count < 5


def test_few_vectors_have_the_fixed_threshold(tmp_path):
    """Nineteen vectors show no law: the threshold is 0.95."""
    store = create(tmp_path / "s")
    store.add_vectors(np.eye(19, dtype=np.float32), {"uri": [f"/{n}" for n in range(19)]})
    assert store.duplicates().threshold == 0.95


@pytest.mark.parametrize("seed", [None, 1, 5])
def test_scans_of_digits_are_not_one_picture(tmp_path, seed):
    """Of 300 small scans, which look alike, the 20 that were saved again are found and no others, in any order."""
    scans = load_digits().images[:300]
    for n, scan in enumerate(scans):
        image = Image.fromarray(np.uint8(np.minimum(scan * 16, 255))).resize((28, 28), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{n}.png")
        if n < 20:
            image.save(tmp_path / f"copy{n}.jpg", quality=90)
    files = [*(f"{n}.png" for n in range(300)), *(f"copy{n}.jpg" for n in range(20))]
    vectors = unit(np.concatenate([scans, scans[:20]]).reshape(320, -1) + 0.01 * np.eye(320, 64)).astype(np.float32)
    order = np.arange(320) if seed is None else np.random.default_rng(seed).permutation(320)
    store = create(tmp_path / "s")
    store.add_vectors(vectors[order], {"uri": [str(tmp_path / files[n]) for n in order]})
    found = store.duplicates(check_pixels=True)
    assert 0.966 < found.pixels.least_score < 0.98  # 0.966 is the highest score of two scans of one digit
    assert names(found) == sorted(sorted([f"{n}.png", f"copy{n}.jpg"]) for n in range(20))
