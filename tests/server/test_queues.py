"""Queues: what a person should look at, decided by one key, remembered, and taken back."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter

import embedstore as es
from embedstore.media.image.quality import Fault
from embedstore.operations.picture_queues import Pictures
from embedstore.storage.map_file import MapPlaces
from tests.server.conftest import COLORS, running


def save_faults(folder):
    """Write a dark, a bright, an empty and a blurred picture of the same noise as the others."""
    noise = np.random.default_rng(2).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    Image.fromarray(noise // 6).save(folder / "dark.png")
    Image.fromarray(250 + noise // 52).save(folder / "bright.png")
    Image.new("RGB", (96, 96), (120, 140, 90)).save(folder / "empty.png")
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4)).point(lambda v: min(255, max(0, 4 * v - 384))).save(
        folder / "blurred.png"
    )


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A store of 60 photos in three colors with one fault of every kind."""
    folder = tmp_path_factory.mktemp("faulty")
    rng = np.random.default_rng(1)
    for color, rgb in COLORS.items():
        for n in range(20):
            split = "val" if n % 4 == 3 else "train"
            path = folder / "photos" / split / color / f"{color}-{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(np.array(rgb) + rng.integers(-40, 40, (96, 96, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    photos = folder / "photos"
    shutil.copy(photos / "train" / "red" / "red-0.png", photos / "train" / "blue" / "copy.png")  # conflicting copy
    shutil.copy(photos / "train" / "red" / "red-1.png", photos / "val" / "red" / "leak.png")
    Image.new("RGB", (900, 80), (30, 200, 40)).save(photos / "train" / "green" / "long.png")
    Image.new("RGB", (20, 20), (30, 200, 40)).save(photos / "train" / "green" / "tiny.png")
    save_faults(photos / "train" / "green")
    (photos / "train" / "green" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    store = es.create(folder / "s", "embedstore/tiny")
    store.embed(photos)
    store.edit({"label": "'blue'"}, "uri like '%/green-5.png'")
    return folder / "s"


def queue(client, kind, **params) -> dict:
    answer = client.get(f"/api/v1/queues/{kind}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(body) -> list[list[str]]:
    return [[item["name"] for item in row["items"]] for row in body["rows"]]


def test_each_queue_holds_its_fault(faulty):
    """Every fault that was put in is in its queue, with a reason."""
    with running(es.open(faulty)) as server, server.client() as client:
        assert {q["kind"] for q in client.get("/api/v1/queues").json()["queues"]} == {
            "label-errors", "near-duplicates", "conflicting-copies", "outliers", "leaks", "failures",
            "blurred", "dark", "bright", "empty", "odd-shape", "tiny",
        }  # fmt: skip
        errors = queue(client, "label-errors")
        flagged = [issue for issue in server.store.label_errors("label").issues if issue.flagged]
        assert flagged
        assert [(r["items"][0]["id"], r["suggested"], r["reason"]) for r in errors["rows"]] == [
            (issue.item, issue.suggested_label, issue.description) for issue in flagged
        ]
        assert ["copy.png", "red-0.png"] in [sorted(n) for n in names(queue(client, "conflicting-copies"))]
        assert any({"copy.png", "red-0.png"} <= set(n) for n in names(queue(client, "near-duplicates", limit=1000)))
        leaks = [sorted(n) for n in names(queue(client, "leaks", limit=1000))]
        assert ["leak.png", "red-1.png"] in leaks
        for kind, name, reason in (
            ("tiny", "tiny.png", "tiny: 20 x 20 pixels"),
            ("odd-shape", "long.png", "an odd shape: 900 x 80 pixels"),
            ("dark", "dark.png", "dark"),
            ("bright", "bright.png", "bright"),
            ("blurred", "blurred.png", "blurred, or without detail"),
        ):
            found = queue(client, kind)
            assert [(r["items"][0]["name"], r["reason"]) for r in found["rows"]] == [(name, reason)]
            assert found["note"] is None
        assert {"empty.png", "tiny.png", "long.png"} == {n for (n,) in names(queue(client, "empty"))}
        failures = queue(client, "failures")
        assert failures["rows"][0]["uri"].endswith("broken.png")
        assert failures["decisions"] == []
        assert len(queue(client, "outliers")["rows"]) == 10


DECIDED = ["label-errors", "outliers", "leaks", "near-duplicates", "conflicting-copies", "blurred", "dark", "bright",
           "empty", "odd-shape", "tiny"]  # fmt: skip


def test_a_decision_is_remembered_and_undone(faulty, tmp_path):
    """In every queue: what was decided is not asked again, also after a restart; undo brings it back."""
    shutil.copytree(faulty, tmp_path / "s")
    first = {}
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        for kind in DECIDED:
            before = queue(client, kind)
            first[kind] = [item["id"] for item in before["rows"][0]["items"]], before["total"]
            decision = {"ids": first[kind][0], "decision": "keep", "who": kind}
            assert client.post(f"/api/v1/queues/{kind}/decisions", json=decision).status_code == 200
            assert queue(client, kind)["total"] == before["total"] - 1
        assert client.post("/api/v1/queues/failures/decisions", json=decision).status_code == 400
        assert client.post("/api/v1/queues/tiny/decisions", json=decision | {"ids": [9999]}).status_code == 404
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        for kind in DECIDED:
            items, total = first[kind]
            assert queue(client, kind)["total"] == total - 1
            assert client.post("/api/v1/undo", json={"who": kind}).status_code == 200
            assert [item["id"] for item in queue(client, kind)["rows"][0]["items"]] == items
            assert client.post("/api/v1/redo", json={"who": kind}).status_code == 200
            assert queue(client, kind)["total"] == total - 1


def test_removed_items_are_gone_until_an_undo(faulty, tmp_path):
    """They are in no list, search, map or queue; undo brings them back with their labels, and redo removes them."""
    store = es.open(shutil.copytree(faulty, tmp_path / "s"))

    def visible(client) -> list[bool]:
        listed = {i["id"] for i in client.get("/api/v1/items", params={"limit": 1000}).json()["items"]}
        hits = {h.item for h in store.search(other, k=1000)}
        mapped = MapPlaces.from_bytes(client.get("/api/v1/map").content).items
        return [long in listed, long in hits, long in mapped]

    with running(store) as server, server.client() as client:
        (long,) = (i["id"] for i in queue(client, "odd-shape")["rows"][0]["items"])
        other = next(i["id"] for i in client.get("/api/v1/items").json()["items"] if i["id"] != long)
        facts = client.get(f"/api/v1/items/{long}").json()
        remove = {"ids": [long], "decision": "remove", "who": "ann"}
        client.post("/api/v1/queues/odd-shape/decisions", json=remove)
        removed = client.post("/api/v1/queues/odd-shape/removal", json={"who": "ann"}).json()
        assert (removed["items"], removed["change"]["operation"]) == (1, "remove")
        assert visible(client) == [False] * 3
        again = client.post("/api/v1/queues/odd-shape/removal", json={"who": "ann"}).json()
        assert (again["items"], again["change"]) == (0, None)
        assert client.post("/api/v1/undo", json={"who": "ann"}).json()["change"]["items"] == 1
        assert visible(client) == [True] * 3
        assert client.get(f"/api/v1/items/{long}").json() == facts
        assert queue(client, "odd-shape")["total"] == 0  # the decision stays until it is undone itself
        assert client.post("/api/v1/redo", json={"who": "ann"}).status_code == 200
        assert visible(client) == [False] * 3
        assert store.delete("NOT present").items == 1
        assert client.post("/api/v1/undo", json={"who": "ann"}).status_code == 200  # of what is there still
        assert visible(client) == [False] * 3
        history = client.get("/api/v1/history", params={"column": "removal:odd-shape"}).json()["changes"]
        assert [c["operation"] for c in history] == ["undo", "redo", "undo", "remove"]


def test_pictures_are_measured_as_far_as_time_allows(faulty, tmp_path):
    """A look that ends early says so, and looking again goes on until every picture was measured."""
    session = es.open(faulty)._session
    pictures = Pictures(session, seconds=0.0)
    found = pictures.with_fault(Fault.DARK, None)
    assert (found.measured, found.pictures) == (0, ())
    assert found.note.startswith("0 of ")
    pictures = Pictures(session, seconds=0.05)
    looks = [pictures.with_fault(Fault.DARK, None) for _ in range(20)]
    assert [look.measured for look in looks] == sorted(look.measured for look in looks)
    assert looks[-1].note is None
    assert len(looks[-1].pictures) == 1


def test_a_fault_of_most_pictures_is_how_they_are(tmp_path):
    """A collection of night photos has no queue of dark pictures, and a note says why."""
    (tmp_path / "night").mkdir()
    rng = np.random.default_rng(3)
    for n in range(80):
        Image.fromarray(rng.integers(0, 40, (64, 64, 3)).astype(np.uint8)).save(tmp_path / "night" / f"{n}.png")
    store = es.create(tmp_path / "s", "embedstore/tiny")
    store.embed(tmp_path / "night")
    found = Pictures(store._session).with_fault(Fault.DARK, None)
    assert (found.pictures, found.is_common) == ((), True)
    assert "this collection is like that" in found.note


def test_an_item_with_a_new_label_leaves_its_queue(faulty, tmp_path):
    """A label that is set takes the item out of the queue without finding the errors again; an undo brings it back."""
    shutil.copytree(faulty, tmp_path / "s")
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        before = queue(client, "label-errors")
        item = before["rows"][0]["items"][0]["id"]
        body = {"ids": [item], "column": "label", "value": before["rows"][0]["suggested"], "overwrite": True}
        assert client.post("/api/v1/labels", json=body).status_code == 200
        assert queue(client, "label-errors")["total"] == before["total"] - 1
        steps = {"undo": 0, "redo": -1}
        for step in ("undo", "redo", "undo", "redo", "undo"):
            assert client.post(f"/api/v1/{step}", json={}).status_code == 200
            assert queue(client, "label-errors")["total"] == before["total"] + steps[step]
