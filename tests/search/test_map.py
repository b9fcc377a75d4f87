"""Maps: items near in the space are near on the map, and the PNG and the page show them."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from embedstore.cli import main
from embedstore.errors import QueryError, UnknownColumn
from embedstore.operations import point_map
from embedstore.search import projection


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


@pytest.fixture
def clusters(tmp_path):
    """Three hundred rows in six groups far from each other, three of them equal; each has the group as its label."""
    rng = np.random.default_rng(0)
    group = np.arange(300) % 6
    X = rng.standard_normal((6, 16))[group] * 4 + rng.standard_normal((300, 16)) * 0.3
    X[[30, 60, 90]] = X[0]
    store = es.create(tmp_path / "clusters")
    store.add_vectors(X.astype(np.float32), {"uri": [f"u{n}" for n in range(300)], "label": [f"{g}" for g in group]})
    return store


def same_group_share(p):
    """The share of the five nearest points on the map that have the label of a point."""
    near = np.argsort(np.linalg.norm(p.xy[:, None] - p.xy[None], axis=2), axis=1)[:, 1:6]
    labels = np.array(p.labels)
    return (labels[near] == labels[:, None]).mean()


def test_items_beyond_the_landmarks_are_placed_in_their_group(clusters, monkeypatch):
    """With sixty landmarks all three hundred items have a place, next to items of their group; equal rows share one."""
    monkeypatch.setattr(projection, "LANDMARKS", 60)
    p = clusters.map(max_items=None, seed=1).projection
    assert p.xy.shape == (300, 2)
    assert np.isfinite(p.xy).all()
    assert same_group_share(p) > 0.99
    assert same_group_share(clusters.map(max_items=60).projection) > 0.9
    assert np.abs(p.xy[[30, 60, 90]] - p.xy[0]).max() < 1e-3
    assert np.array_equal(p.xy, clusters.map(max_items=None, seed=1).projection.xy)


def test_every_block_size_gives_the_same_places(clusters, monkeypatch):
    """Memory is that of a block: a place depends on the landmarks and the row alone."""
    monkeypatch.setattr(projection, "LANDMARKS", 60)
    whole = clusters.map(max_items=None, seed=1).projection.xy
    monkeypatch.setattr(projection, "BLOCK_ROWS", 7)
    assert np.allclose(whole, clusters.map(max_items=None, seed=1).projection.xy, atol=1e-5)


@pytest.mark.parametrize("anchors", [60, 2000])
def test_the_map_of_all_items_is_kept_and_grows_without_moving(clusters, monkeypatch, anchors):
    """Added items get places in their group, removed ones leave, labels change nothing, and no other item moves."""
    monkeypatch.setattr(point_map, "ANCHORS", anchors)
    first = clusters.map(max_items=None).projection
    assert first.matching_count == len(first.items) == 300
    assert same_group_share(first) > 0.95
    new = np.random.default_rng(0).standard_normal((6, 16)) * 4  # the centers of the groups
    clusters.add_vectors(new.astype(np.float32), {"uri": [f"new{n}" for n in range(6)], "label": list("012345")})
    clusters.edit({"label": "'other'"}, "uri = 'u7'")
    clusters.delete(where="uri = 'u11'")
    again = es.open(clusters.path).map(max_items=None).projection
    assert (len(again.items), len(set(again.items.tolist()))) == (305, 305)
    stays = np.isin(first.items, again.items)
    assert np.array_equal(first.xy[stays], again.xy[np.isin(again.items, first.items)])
    assert again.labels[list(again.uris).index("u7")] == "other"
    assert same_group_share(again) > 0.95


def test_a_kept_map_is_not_projected_again(clusters, monkeypatch):
    """The second map of all items needs no t-SNE, in another process neither; a filter and another seed do."""
    first = clusters.map(max_items=None).projection
    monkeypatch.setattr(projection, "_place_landmarks", lambda *_: pytest.fail("projected again"))
    assert np.array_equal(es.open(clusters.path).map(max_items=None).projection.xy, first.xy)
    for options in ({"seed": 1}, {"where": "label <> '0'"}):
        with pytest.raises(pytest.fail.Exception):
            clusters.map(max_items=None, **options)


@settings(deadline=None)
@given(n=st.integers(2, 30), dim=st.integers(1, 6), seed=st.integers(0, 99), is_constant=st.booleans())
def test_a_row_is_placed_within_the_landmarks(n, dim, seed, is_constant):
    """Every place is within the rectangle of the landmarks, a landmark is at its own place, and nothing is NaN."""
    rng = np.random.default_rng(seed)
    landmarks = np.ones((n, dim)) if is_constant else rng.standard_normal((n, dim))
    landmarks = (landmarks / np.linalg.norm(landmarks, axis=1, keepdims=True)).astype(np.float32)
    places = rng.standard_normal((n, 2))
    rows = rng.standard_normal((9, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    placed = projection.place_among(landmarks, places, np.concatenate([rows, landmarks]))
    assert (placed >= places.min(axis=0) - 1e-9).all()
    assert (placed <= places.max(axis=0) + 1e-9).all()
    distinct = np.array([(np.abs(landmarks - row).max(axis=1) < 1e-2).sum() == 1 for row in landmarks])
    assert np.abs(placed[9:][distinct] - places[distinct]).max(initial=0) < 0.05


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
