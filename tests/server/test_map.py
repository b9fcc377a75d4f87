"""The map of a server: drawn once with its progress, cancelled, kept, and added to without a move of what is there."""

import json
import shutil

import numpy as np
import pytest

import embedstore as es
from embedstore.operations import point_map
from embedstore.storage.map_file import MapPlaces
from tests.server.conftest import running

ITEMS, ANCHORS = 1000, 300


@pytest.fixture(autouse=True)
def _few_anchors(monkeypatch):
    """Fewer items are projected than there are, so that some are placed among them."""
    monkeypatch.setattr(point_map, "ANCHORS", ANCHORS)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """A store of vectors around five centers."""
    path = tmp_path_factory.mktemp("map") / "s"
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 16))
    X = centers[np.arange(ITEMS) % 5] + 0.2 * rng.normal(size=(ITEMS, 16))
    with es.create(path) as store:
        store.add_vectors(
            X.astype(np.float32), {"uri": [f"{n}" for n in range(ITEMS)], "label": list("abcde") * (ITEMS // 5)}
        )
    return path


@pytest.fixture
def own(clustered, tmp_path):
    """A copy that the test may change."""
    return es.open(shutil.copytree(clustered, tmp_path / "s"))


def read(client, **params) -> MapPlaces:
    answer = client.get("/api/v1/map", params=params)
    assert answer.status_code == 200, answer.text
    return MapPlaces.from_bytes(answer.content)


def map_events(client):
    """Yield the events of maps, after asking for one that does not wait."""
    with client.stream("GET", "/api/v1/events") as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line == "event: state")
        answer = client.get("/api/v1/map", params={"wait": False})
        assert (answer.status_code, answer.json()["state"]) == (202, "running")
        for line in lines:
            if line == "event: map":
                yield json.loads(next(lines).removeprefix("data: "))


def test_a_map_is_drawn_with_progress_and_then_kept(own):
    """Events say how far it is; then the map comes at once, also from another server, and 204 if it is known."""
    with running(own) as server, server.client() as client:
        shares = []
        for event in map_events(client):
            shares.append(event["share"])
            if event["state"] == "done":
                break
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        places = read(client, wait=False)
        assert places.items.tolist() == list(range(1, ITEMS + 1))
        assert client.get("/api/v1/map", params={"known": places.generation}).status_code == 204
    with running(es.open(own.path)) as server, server.client() as client:
        assert (read(client, wait=False).xy == places.xy).all()


def test_items_are_near_those_that_they_resemble(own):
    """Nearly every item has an item of its own cluster as the nearest one on the map."""
    with running(own) as server, server.client() as client:
        places = read(client)
    cluster = (places.items - 1) % 5
    xy = places.xy.astype(np.float64)
    sample = np.arange(0, ITEMS, 10)
    distance = ((xy[sample, None] - xy[None]) ** 2).sum(-1)
    distance[np.arange(len(sample)), sample] = np.inf
    assert (cluster[distance.argmin(axis=1)] == cluster[sample]).mean() > 0.97


def test_a_drawing_is_cancelled_and_begun_again(own, monkeypatch):
    """Nothing is kept of a cancelled map; who waits for it gets a sentence, and the next request draws it."""
    monkeypatch.setattr(point_map, "ANCHORS", ITEMS)  # so that it takes longer than the request that cancels it
    with running(own) as server, server.client() as client:
        assert client.delete("/api/v1/map/work").status_code == 404
        for event in map_events(client):
            if event["state"] == "running":
                assert client.delete("/api/v1/map/work").json()["state"] == "cancelled"
            else:
                break
        assert event["state"] == "cancelled"
        assert not list((own.path / "cache").glob("maps/*.map"))
        assert len(read(client).items) == ITEMS


def test_labels_change_no_map_and_new_items_only_add_to_it(own):
    """An edit leaves the map; after new items the codes fit the map that was shown, until the new one is read."""

    def codes(client) -> tuple[int, int]:
        data = client.get("/api/v1/map/column", params={"name": "label"}).content
        return int.from_bytes(data[8:16], "little"), int.from_bytes(data[16:24], "little")

    with running(own) as server, server.client() as client:
        before = read(client)
        own.edit({"label": "'z'"}, "item < 10")
        assert client.get("/api/v1/map", params={"known": before.generation}).status_code == 204
        add_vectors(own, 50)
        own.delete(items=[7])
        assert codes(client) == (ITEMS, before.generation)
        after = read(client, known=before.generation, wait=False)
        assert codes(client) == (ITEMS + 49, after.generation)
    kept = np.isin(before.items, after.items)
    assert kept.sum() == ITEMS - 1
    assert (after.xy[np.isin(after.items, before.items)] == before.xy[kept]).all()
    new = after.xy[-50:]
    assert np.isfinite(new).all()
    assert ((new > before.xy.min(0) - 0.01) & (new < before.xy.max(0) + 0.01)).all()


def add_vectors(store: es.Store, count: int) -> None:
    """Add vectors to a store."""
    X = np.random.default_rng(1).normal(size=(count, 16)).astype(np.float32)
    store.add_vectors(X, {"uri": [f"new-{n}" for n in range(count)]})
