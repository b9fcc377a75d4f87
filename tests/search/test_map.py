"""Maps: items near in the space are near on the map, and the PNG and the page show them."""

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
    """Three distant groups of 30 vectors; their images are red, green and blue."""
    folder = tmp_path_factory.mktemp("map")
    rng = np.random.default_rng(0)
    centers = np.eye(3, 16, dtype=np.float32)
    rows, table = [], {"uri": [], "label": [], "part": []}
    for n in range(90):
        group = n % 3
        path = folder / f"{n}.png"
        color = tuple(255 if c == group else 0 for c in range(3))
        Image.new("RGB", (20, 20), color).save(path)
        rows.append(centers[group] + 0.05 * rng.standard_normal(16).astype(np.float32))
        table["uri"].append(str(path))
        table["label"].append(("red", "green", None)[group])
        table["part"].append("abc"[group])
    store = es.create(folder / "map.store")
    store.add_vectors(np.stack(rows), table)
    return store


def test_items_near_in_the_space_are_near_on_the_map(store):
    """The five nearest points of every item belong to its own group."""
    p = store.map(color_by="part").projection
    assert p.xy.shape == (90, 2)
    assert (p.xy.min(axis=0) == 0).all()
    assert (p.xy.max(axis=0) == 1).all()
    far = np.linalg.norm(p.xy[:, None] - p.xy[None], axis=2)
    near = np.argsort(far, axis=1)[:, 1:6]
    labels = np.array(p.labels)
    assert (labels[near] == labels[:, None]).all()


def test_the_same_seed_gives_the_same_map(store):
    """Two maps with one seed are equal to the last digit."""
    assert np.array_equal(store.map(seed=3).projection.xy, store.map(seed=3).projection.xy)


def test_the_title_of_a_sampled_map_names_the_sample(store):
    """A map of twenty of ninety items has twenty different items and says so in its title."""
    atlas = store.map(max_items=20)
    assert atlas.title == "20 of 90 items in space precomputed, colored by label"
    assert len(set(atlas.projection.items.tolist())) == 20


def test_a_map_shows_only_items_that_match_the_filter(store):
    """A filter on a column leaves the thirty items with that value."""
    p = store.map(where="part = 'b'", color_by="part").projection
    assert (len(p.items), set(p.labels)) == (30, {"b"})


def test_the_png_shows_images_and_a_legend(store, tmp_path):
    """The PNG has the colors of all three images and of both labels."""
    atlas = store.map()
    atlas.png(tmp_path / "map.png")
    pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    seen = {tuple(int(v) for v in c) for c in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= seen
    assert list(atlas.palette) == ["red", "green"]
    assert set(atlas.palette.values()) <= seen


def test_the_page_holds_every_point_and_loads_nothing(store):
    """The page has ninety points with label, name and image; a label with markup is data."""
    store.edit({"label": "'</script><b>x'"}, "item = 1")
    page = store.map().html()
    store.edit({"label": "'red'"}, "item = 1")
    points = json.loads(re.search(r"const points = (\[.*?\]);\n", page, re.DOTALL).group(1))
    assert len(points) == 90
    assert {p[3] for p in points} == {"</script><b>x", "red", "green", ""}
    assert all(p[5].startswith("/9j/") for p in points)
    assert page.count("</script>") == 1
    assert "://" not in page


def test_an_impossible_map_is_refused(store):
    """An unknown column is named with a near one, and a map of fewer than five items raises QueryError."""
    with pytest.raises(UnknownColumn, match=r"labl.*label"):
        store.map(color_by="labl")
    with pytest.raises(QueryError, match="a map needs at least 5 items"):
        store.map(where="item < 4")


def test_the_map_command_writes_a_page_a_png_and_json(store, tmp_path, capsys):
    """The command writes each requested output; without any, it is a usage error."""
    with pytest.raises(SystemExit) as done:
        main(["map", str(store.path), "-o", str(tmp_path / "m.html"), "-o", str(tmp_path / "m.png"), "--json"])
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["points"]), found["colour"]) == (90, "label")
    assert (tmp_path / "m.html").exists()
    assert Image.open(tmp_path / "m.png").size == (1400, 1000)
    with pytest.raises(SystemExit) as stopped:
        main(["map", str(store.path)])
    assert stopped.value.code == 2
