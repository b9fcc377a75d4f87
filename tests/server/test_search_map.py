"""Search, selections, the map, reports, events and encoding, as a browser or program uses them."""

import io
import json
import shutil
import threading

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from embedstore.errors import QueryError
from embedstore.operations.point_map import points_inside
from embedstore.server.batching import Batcher
from embedstore.storage.map_file import MapPlaces
from tests.server.conftest import running


def png(rgb, size=(96, 96)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, rgb).save(data, "PNG")
    return data.getvalue()


def ids(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def test_words_items_and_images_find_what_the_command_line_finds(client, server):
    """The hits are those of `store.search`, in its order."""
    expected = [h.item for h in server.store.search("a red square", k=5)]
    assert ids(client.post("/api/v1/search", json={"words": "a red square", "k": 5})) == expected
    expected = [h.item for h in server.store.search(3, k=4, where="label <> 'red'")]
    assert ids(client.post("/api/v1/search", json={"item": 3, "k": 4, "where": "label <> 'red'"})) == expected
    expected = [h.item for h in server.store.search(like=[1], unlike=[9], k=4)]
    assert ids(client.post("/api/v1/search", json={"more_like": [1], "less_like": [9], "k": 4})) == expected
    answer = client.post("/api/v1/search/image", params={"k": 4}, content=png((30, 60, 220)))
    assert {hit["label"] for hit in answer.json()["hits"]} == {"blue"}
    assert [h["rank"] for h in answer.json()["hits"]] == [1, 2, 3, 4]


def test_words_of_a_column_count_where_a_request_says_so(client, server):
    """The hits and scores of `hybrid` are those of `store.search`; ranks have no cut-off; a picture has no words."""
    expected = [(h.item, round(h.score, 6)) for h in server.store.search("blue", k=6, hybrid="label")]
    found = client.post("/api/v1/search", json={"words": "blue", "k": 6, "hybrid": "label"}).json()
    assert [(h["id"], h["score"]) for h in found["hits"]] == expected
    assert {h["label"] for h in found["hits"][:4]} == {"blue"}
    assert (found["cut_off"], found["nothing_fits"]) == (None, False)
    notes = client.post("/api/v1/search", json={"words": "zeppelin", "hybrid": "label"}).json()["notes"]
    assert notes == ["no text of label has 'zeppelin'"]
    for body, kind in (
        ({"item": 1, "hybrid": "label"}, "QueryError"),
        ({"words": "blue", "hybrid": "no_column"}, "UnknownColumn"),
        ({"words": "blue", "hybrid": "label", "replica": "copy"}, "QueryError"),
    ):
        refused = client.post("/api/v1/search", json=body)
        assert (refused.status_code, refused.json()["kind"]) == (400, kind)


def test_a_search_says_from_which_score_on_hits_fit(client):
    """The cut-off grows with the strictness; at 0, and for items, everything fits."""

    def search(strictness):
        return client.post("/api/v1/search", json={"words": "a lighthouse", "k": 12, "strictness": strictness}).json()

    lax, usual, strict = (search(s) for s in (0.1, 0.5, 1.0))
    assert lax["cut_off"] < usual["cut_off"] < strict["cut_off"]
    for body in (lax, usual, strict):
        assert [h["fits"] for h in body["hits"]] == [h["score"] >= body["cut_off"] for h in body["hits"]]
        assert body["nothing_fits"] == (not any(h["fits"] for h in body["hits"]))
    assert (search(0)["cut_off"], search(0)["nothing_fits"]) == (None, False)
    assert search(None)["cut_off"] == usual["cut_off"]
    by_item = client.post("/api/v1/search", json={"item": 1, "k": 3}).json()
    assert (by_item["cut_off"], all(h["fits"] for h in by_item["hits"])) == (None, True)


def test_a_search_inside_a_selection_gives_k_of_it(client, server):
    """If k items of a selection match, k hits come back, best first, also with a filter."""
    blue = client.post("/api/v1/selections", json={"where": "label = 'blue'"}).json()["handle"]
    found = client.post("/api/v1/search", json={"words": "red", "k": 3, "selection": blue}).json()["hits"]
    assert [hit["label"] for hit in found] == ["blue"] * 3
    every = client.post("/api/v1/search", json={"words": "red", "k": 12}).json()["hits"]
    assert [hit["id"] for hit in found] == [h["id"] for h in every if h["label"] == "blue"][:3]
    narrowed = {"words": "red", "k": 9, "selection": blue, "where": f"item <> {found[0]['id']}"}
    assert ids(client.post("/api/v1/search", json=narrowed)) == [
        h["id"] for h in every if h["label"] == "blue" and h["id"] != found[0]["id"]
    ]


def test_a_selection_by_ids_filter_or_hits(client):
    """A selection holds known ids once, and can be a part of another one."""
    made = client.post("/api/v1/selections", json={"ids": [3, 1, 3, 77]}).json()
    assert made["count"] == 2
    listed = client.get("/api/v1/items", params={"selection": made["handle"]}).json()
    assert [i["id"] for i in listed["items"]] == [1, 3]
    hits = client.post("/api/v1/selections", json={"hits": {"words": "red", "k": 5}}).json()
    assert hits["count"] == 5
    part = client.post("/api/v1/selections", json={"where": "item <= 2", "within": made["handle"]}).json()
    assert part["count"] == 1
    assert client.get("/api/v1/selections/nothing").status_code == 404
    assert client.post("/api/v1/selections", json={"ids": [1], "where": "true"}).status_code == 400


def read_map(client) -> MapPlaces:
    places = MapPlaces.from_bytes(client.get("/api/v1/map").content)
    assert places is not None
    return places


def test_the_map_has_a_place_a_code_and_a_bit_per_item(client):
    """Geometry, codes and masks are in one order; a polygon around a point selects its item."""
    places = read_map(client)
    assert places.items.tolist() == list(range(1, 13))
    legend = client.get("/api/v1/map/legend", params={"name": "label"}).json()["entries"]
    assert [(e["code"], e["value"], e["count"]) for e in legend] == [(1, "blue", 4), (2, "green", 4), (3, "red", 4)]
    data = client.get("/api/v1/map/column", params={"name": "label"}).content
    assert (data[:8], int.from_bytes(data[8:16], "little")) == (b"ESCOD001", 12)
    codes = dict(zip(places.items.tolist(), np.frombuffer(data, "<u2", 12, 24).tolist(), strict=True))
    listed = client.get("/api/v1/items").json()["items"]
    assert codes == {i["id"]: {"blue": 1, "green": 2, "red": 3}[i["label"]] for i in listed}
    mask = client.get("/api/v1/map/mask", params={"where": "item in (1, 4, 12)"}).content
    bits = np.unpackbits(np.frombuffer(mask, np.uint8, offset=24), bitorder="little")[:12]
    assert (np.flatnonzero(bits) + 1).tolist() == [1, 4, 12]
    x, y = (float(v) for v in places.xy[4])
    corners = [{"x": x + dx, "y": y + dy} for dx, dy in ((-1e-6, -1e-6), (1e-6, -1e-6), (1e-6, 1e-6), (-1e-6, 1e-6))]
    inside = client.post("/api/v1/selections", json={"polygon": corners}).json()
    found = client.get("/api/v1/items", params={"selection": inside["handle"]}).json()["items"]
    assert 5 in [i["id"] for i in found]


def test_new_items_get_places_and_no_other_item_moves(color_store, tmp_path):
    """After more photos were embedded the old places are the same, also for a server that starts then."""
    shutil.copytree(color_store, tmp_path / "s")
    store = es.open(tmp_path / "s")
    with running(store) as server, server.client() as client:
        before = read_map(client)
        folder = tmp_path / "more"
        folder.mkdir()
        for n in range(5):
            (folder / f"{n}.png").write_bytes(png((200 + n, 20, 30)))
        store.embed(folder)
        after = read_map(client)
    assert after.items.tolist() == list(range(1, 18))
    assert (after.xy[:12] == before.xy).all()
    assert np.isfinite(after.xy).all()
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        assert (read_map(client).xy == after.xy).all()
    for damaged in (b"", b"ESMAP001", after.to_bytes()[:-1], after.to_bytes()[::-1]):
        (tmp_path / "s" / "cache" / "maps" / f"{store.spaces[0].key}.map").write_bytes(damaged)
        with running(es.open(tmp_path / "s")) as server, server.client() as client:
            assert read_map(client).items.tolist() == list(range(1, 18))


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=7),
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), min_size=1, max_size=10),
)
def test_inside_a_polygon_is_what_the_winding_of_its_edges_says(corners, cells):
    """For points off the grid of the corners, the parity equals that of a ray in another direction."""
    polygon = np.array(corners, float)
    points = np.array(cells, float) + np.array([0.37, 0.41])
    upward = np.array([[y, x] for x, y in polygon])
    assert (points_inside(points, polygon) == points_inside(points[:, ::-1], upward)).all()


def test_suggestions_probe_and_reports(color_store, tmp_path):
    """From few labels on there are suggestions, a report with an interval, and the items of its cells."""
    shutil.copytree(color_store, tmp_path / "s")
    store = es.open(tmp_path / "s")
    store.edit({"label": "NULL"}, "item % 4 = 0")
    with running(store) as server, server.client() as client:
        found = client.get("/api/v1/suggestions", params={"n": 2}).json()
        assert found["unlabelled"] == 3
        assert {s["item"]["id"] for s in found["suggestions"]} <= {4, 8, 12}
        report = client.post("/api/v1/probe", json={"column": "label"}).json()
        assert report["metric"] == "accuracy"
        assert report["score"]["low"] <= report["score"]["value"] <= report["score"]["high"]
        assert report["classes"] == ["blue", "green", "red"]
        cells = {
            (t, p): client.get(f"/api/v1/reports/{report['handle']}/cell", params={"true": t, "predicted": p}).json()
            for t in report["classes"]
            for p in report["classes"]
        }
        assert sum(cell["count"] for cell in cells.values()) == report["held_out"]
        for (true, _), cell in cells.items():
            listed = client.get("/api/v1/items", params={"selection": cell["handle"]}).json()["items"]
            assert {i["label"] for i in listed} <= {true}
        assert client.get(f"/api/v1/reports/{report['handle']}/cell", params={"true": "x"}).status_code == 400
        assert client.get("/api/v1/reports/none/cell").status_code == 404
        for name in ("knn", "zero-shot"):
            assert client.get(f"/api/v1/reports/{name}").json()["score"]["value"] == 1.0
        assert client.get("/api/v1/reports/probe", params={"column": "split"}).status_code == 400
        compared = client.get("/api/v1/comparison", params={"heads": ["ridge", "prototype"]}).json()
        assert compared["comparison"]


def test_events_tell_what_changed(color_store, tmp_path):
    """A listener gets the state at first, and again after a change."""
    shutil.copytree(color_store, tmp_path / "s")
    store = es.open(tmp_path / "s")
    states = []
    with running(store) as server, server.client() as client, client.stream("GET", "/api/v1/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line.removeprefix("data: ")))
                if len(states) == 1:
                    threading.Thread(target=store.edit, args=({"label": "NULL"}, "item = 1")).start()
                if states[-1]["counts"]["unlabelled"] == 1:
                    break
    assert states[0]["counts"] == {"items": 12, "contents": 12, "failures": 1, "unlabelled": 0}
    assert states[-1]["generation"] > states[0]["generation"]


def test_vectors_of_words_and_images_are_those_of_the_space(client, server):
    """What a client gets is what `store.encode` gives, also where many ask at once."""
    words = ["a red square", "stripes", "three circles"]
    body = client.post("/api/v1/encode", json={"words": words}).json()
    expected = server.store.encode(texts=words)
    assert np.allclose(body["vectors"], expected, atol=1e-5)
    assert body["key"] == server.store.spaces[0].key
    image = png((10, 200, 30))
    vector = client.post("/api/v1/encode/image", content=image).json()["vectors"][0]
    assert np.allclose(vector, server.store.encode(images=[image])[0], atol=1e-5)
    assert client.post("/api/v1/encode/image", content=b"not an image").status_code == 400
    answers: dict[int, list] = {}

    def ask(n: int) -> None:
        answers[n] = client.post("/api/v1/encode", json={"words": [words[n % 3]]}).json()["vectors"][0]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(answers[n], expected[n % 3], atol=1e-5) for n in range(12))


def test_queries_of_many_threads_are_encoded_together_and_fail_alone():
    """Queries that wait while a batch runs form the next batch; a bad one raises its own error only."""
    sizes: list[int] = []
    release = threading.Event()

    def encode(queries):
        sizes.append(len(queries))
        if len(sizes) == 1:
            release.wait(10)
        if "bad" in queries:
            raise QueryError("bad")
        return np.array([[float(q)] for q in queries], np.float32)

    batcher = Batcher(encode)
    results: dict[str, object] = {}

    def ask(query: str) -> None:
        try:
            results[query] = float(batcher.encode([query])[0, 0])
        except QueryError as e:
            results[query] = str(e)

    threads = [threading.Thread(target=ask, args=(q,)) for q in ("0", "1", "2", "bad", "3")]
    for thread in threads:
        thread.start()
        while not sizes:
            pass
    while batcher._waiting.qsize() < 4:
        pass
    release.set()
    for thread in threads:
        thread.join()
    batcher.close()
    assert results == {"0": 0.0, "1": 1.0, "2": 2.0, "bad": "bad", "3": 3.0}
    assert sizes[:2] == [1, 4]
    with pytest.raises(es.ServerError):
        batcher.encode(["1"])


def test_an_image_is_classified_by_a_saved_head(color_store, tmp_path):
    """The answer is that of `store.classify`."""
    shutil.copytree(color_store, tmp_path / "s")
    store = es.open(tmp_path / "s")
    store.probe("label", head="ridge", save_as="colors")
    with running(store) as server, server.client() as client:
        answer = client.post("/api/v1/classify/image", params={"head": "colors"}, content=png((220, 30, 30)))
        assert "red" in json.dumps(answer.json()["records"])
        assert client.post("/api/v1/classify/image", params={"head": "no"}, content=png((1, 2, 3))).status_code == 400
