"""The collection in the plane: near in the space is near on the map, and the pictures show what they say."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.cli import main
from embedstore.errors import QueryError, UnknownColumn


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three far-apart bundles of 30 vectors; their pictures are red, green and blue."""
    folder = tmp_path_factory.mktemp("map")
    rng = np.random.default_rng(0)
    centres = np.eye(3, 16, dtype=np.float32)
    rows, table = [], {"uri": [], "label": [], "part": []}
    for n in range(90):
        bundle = n % 3
        path = folder / f"{n}.png"
        colour = tuple(255 if c == bundle else 0 for c in range(3))
        Image.new("RGB", (20, 20), colour).save(path)
        rows.append(centres[bundle] + 0.05 * rng.standard_normal(16).astype(np.float32))
        table["uri"].append(str(path))
        table["label"].append(("red", "green", None)[bundle])
        table["part"].append("abc"[bundle])
    store = es.create(folder / "map.store")
    store.add_vectors(np.stack(rows), table)
    return store


def test_what_is_near_in_the_space_is_near_on_the_map(store):
    """The five nearest points of every item belong to its own bundle."""
    p = store.map(colour="part").projection
    assert p.xy.shape == (90, 2)
    assert (p.xy.min(axis=0) == 0).all()
    assert (p.xy.max(axis=0) == 1).all()
    far = np.linalg.norm(p.xy[:, None] - p.xy[None], axis=2)
    near = np.argsort(far, axis=1)[:, 1:6]
    labels = np.array(p.labels)
    assert (labels[near] == labels[:, None]).all()


def test_the_same_seed_gives_the_same_map(store):
    """To the last digit."""
    assert np.array_equal(store.map(seed=3).projection.xy, store.map(seed=3).projection.xy)


def test_a_sample_of_a_large_collection_is_said_to_be_one(store):
    """Twenty of ninety, in the title, without repetition."""
    atlas = store.map(most=20)
    assert atlas.title == "20 of 90 items in space precomputed, colored by label"
    assert len(set(atlas.projection.items.tolist())) == 20


def test_a_filter_chooses_what_is_shown(store):
    """Only the items that match."""
    p = store.map(where="part = 'b'", colour="part").projection
    assert (len(p.items), set(p.labels)) == (30, {"b"})


def test_the_picture_shows_images_and_a_legend(store, tmp_path):
    """All three colours of the images are on it, and the tones of both labels."""
    atlas = store.map()
    atlas.png(tmp_path / "map.png")
    pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    seen = {tuple(int(v) for v in c) for c in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= seen
    assert list(atlas.palette) == ["red", "green"]
    assert set(atlas.palette.values()) <= seen


def test_the_page_holds_every_point_and_needs_nothing_else(store):
    """Ninety points with their label, name and image inside; hostile labels are data, not markup."""
    store.edit({"label": "'</script><b>x'"}, "item = 1")
    page = store.map().html()
    store.edit({"label": "'red'"}, "item = 1")
    points = json.loads(re.search(r"const points = (\[.*?\]);\n", page, re.DOTALL).group(1))
    assert len(points) == 90
    assert {p[3] for p in points} == {"</script><b>x", "red", "green", ""}
    assert all(p[5].startswith("/9j/") for p in points)
    assert page.count("</script>") == 1
    assert "://" not in page


def test_bad_questions_are_one_line(store):
    """An unknown column is named with near ones; too few items are said to be too few."""
    with pytest.raises(UnknownColumn, match=r"labl.*label"):
        store.map(colour="labl")
    with pytest.raises(QueryError, match="a map needs at least 5 items"):
        store.map(where="item < 4")


def test_the_verb_writes_what_it_is_asked_for(store, tmp_path, capsys):
    """A page, a picture and JSON; without any of them a usage error."""
    with pytest.raises(SystemExit) as done:
        main(["map", str(store.path), "--html", str(tmp_path / "m.html"), "--png", str(tmp_path / "m.png"), "--json"])
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["points"]), found["colour"]) == (90, "label")
    assert (tmp_path / "m.html").exists()
    assert Image.open(tmp_path / "m.png").size == (1400, 1000)
    with pytest.raises(SystemExit) as stopped:
        main(["map", str(store.path)])
    assert stopped.value.code == 2
