"""Queues: what a person should look at, decided by one key, remembered, and taken back."""

import shutil

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from tests.server.conftest import COLORS, running


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
            "label-errors", "near-duplicates", "conflicting-copies", "outliers", "quality", "leaks", "failures",
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
        odd = queue(client, "quality")
        assert [(r["items"][0]["name"], r["reason"]) for r in odd["rows"]] == [
            ("tiny.png", "tiny: 20 x 20 pixels"),
            ("long.png", "an odd shape: 900 x 80 pixels"),
        ]
        failures = queue(client, "failures")
        assert failures["rows"][0]["uri"].endswith("broken.png")
        assert failures["decisions"] == []
        assert len(queue(client, "outliers")["rows"]) == 10


def test_a_decision_is_remembered_and_undone(faulty, tmp_path):
    """What was decided is not asked again, also after a restart; undo brings it back."""
    shutil.copytree(faulty, tmp_path / "s")
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        tiny, long = (r["items"][0]["id"] for r in queue(client, "quality")["rows"])
        decision = {"ids": [tiny], "decision": "keep", "who": "ann"}
        assert client.post("/api/v1/queues/quality/decisions", json=decision).json()["change"]["items"] == 1
        assert names(queue(client, "quality")) == [["long.png"]]
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        assert names(queue(client, "quality")) == [["long.png"]]
        assert client.post("/api/v1/undo", json={"who": "ann"}).status_code == 200
        assert names(queue(client, "quality")) == [["tiny.png"], ["long.png"]]
        assert client.post("/api/v1/redo", json={"who": "ann"}).status_code == 200
        assert names(queue(client, "quality")) == [["long.png"]]
        remove = {"ids": [long], "decision": "remove", "who": "ann"}
        client.post("/api/v1/queues/quality/decisions", json=remove)
        assert client.post("/api/v1/queues/quality/removal").json()["items"] == 1
        assert client.get(f"/api/v1/items/{long}").status_code == 404
        assert client.get(f"/api/v1/items/{tiny}").status_code == 200
        assert client.post("/api/v1/queues/failures/decisions", json=remove | {"ids": [tiny]}).status_code == 400
        assert client.post("/api/v1/queues/quality/decisions", json=remove | {"ids": [9999]}).status_code == 404


def test_an_item_with_a_new_label_leaves_its_queue(faulty, tmp_path):
    """A label that is set takes the item out of the queue without finding the errors again."""
    shutil.copytree(faulty, tmp_path / "s")
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        before = queue(client, "label-errors")
        item = before["rows"][0]["items"][0]["id"]
        body = {"ids": [item], "column": "label", "value": before["rows"][0]["suggested"], "overwrite": True}
        assert client.post("/api/v1/labels", json=body).status_code == 200
        assert queue(client, "label-errors")["total"] == before["total"] - 1
