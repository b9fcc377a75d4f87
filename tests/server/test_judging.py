"""Reports whose slices and bins open their items, and comparisons."""

import numpy as np
import pytest

import embedstore as es
from tests.server.conftest import running

ITEMS = 400


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A server of vectors of three classes that overlap, seen by two cameras, one of them worse."""
    path = tmp_path_factory.mktemp("judged") / "s"
    rng = np.random.default_rng(0)
    label, camera = rng.integers(0, 3, ITEMS), rng.integers(0, 2, ITEMS)
    noise = rng.normal(size=(ITEMS, 8)) * np.where(camera, 1.2, 0.5)[:, None]
    X = 2 * np.eye(8)[label] + noise
    table = {
        "uri": [f"{n}" for n in range(ITEMS)],
        "label": [f"c{n}" for n in label],
        "camera": [["good", "bad"][n] if i % 10 else None for i, n in enumerate(camera)],
    }
    store = es.create(path)
    store.add_vectors(X.astype(np.float32), table)
    with running(store) as found, found.client() as client:
        yield store, client


def report(client, name="probe", **params):
    answer = client.get(f"/api/v1/reports/{name}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def opened(client, body, part, **params) -> list[int]:
    """The ids of a part of a report."""
    kept = client.get(f"/api/v1/reports/{body['handle']}/{part}", params=params)
    assert kept.status_code == 200, kept.text
    listed = client.get("/api/v1/items", params={"selection": kept.json()["handle"], "limit": 1000}).json()
    assert listed["total"] == kept.json()["count"]
    return [i["id"] for i in listed["items"]]


@pytest.mark.parametrize("name", ["probe", "knn"])
def test_a_slice_opens_its_items_and_its_mistakes(judged, name):
    """The counts are those of the report, and the items have the value; so have those without one."""
    store, client = judged
    body = report(client, name, by="camera")
    slices = body["report"]["slices"]["slices"]
    assert {s["value"] for s in slices} == {"good", "bad", None}
    camera = dict(store.sql("select item, camera from items").rows)
    for part in slices:
        value = {} if part["value"] is None else {"value": part["value"]}
        items = opened(client, body, "slice", **value)
        wrong = opened(client, body, "slice", wrong=True, **value)
        assert len(items) == part["items"]
        assert {camera[i] for i in items} == {part["value"]}
        assert set(wrong) <= set(items)
        assert 1 - len(wrong) / len(items) == pytest.approx(part["accuracy"])


def test_a_bin_of_the_reliability_diagram_opens_its_items(judged):
    """Bin by bin the counts and the accuracies are those of the report, and every held-out item is in one bin."""
    _, client = judged
    body = report(client)
    bins = body["report"]["reliability"]
    opened_items = [opened(client, body, "bin", number=n) for n in range(len(bins))]
    assert [len(items) for items in opened_items] == [b["rows"] for b in bins]
    for n, items in enumerate(opened_items):
        wrong = opened(client, body, "bin", number=n, wrong=True)
        assert 1 - len(wrong) / len(items) == pytest.approx(bins[n]["accuracy"])
    assert len({i for items in opened_items for i in items}) == body["held_out"]


def test_parts_that_a_report_does_not_have_are_refused(judged):
    """Each refusal is a sentence."""
    _, client = judged
    plain, knn, split = report(client), report(client, "knn"), report(client, by="camera")
    for handle, part, params, status in (
        (plain["handle"], "slice", {"value": "good"}, 400),
        (plain["handle"], "bin", {"number": 99}, 400),
        (knn["handle"], "bin", {"number": 0}, 400),
        (split["handle"], "slice", {"value": "no such"}, 400),
        ("none", "slice", {}, 404),
        ("none", "bin", {"number": 0}, 404),
    ):
        answer = client.get(f"/api/v1/reports/{handle}/{part}", params=params)
        assert (answer.status_code, bool(answer.json()["error"])) == (status, True)
    assert client.get("/api/v1/reports/probe", params={"by": "no_column"}).status_code == 400


def test_a_comparison_has_a_row_per_classifier(judged):
    """The figures are those of `compare_heads`, one row is the best, and the others say how far behind they are."""
    store, client = judged
    body = client.get("/api/v1/comparison", params={"heads": ["logistic", "knn", "prototype"]}).json()
    expected = store.compare_heads("label", heads=["logistic", "knn", "prototype"])
    assert [(r["head"], r["score"]["value"]) for r in body["rows"]] == [
        (r.evaluation.head, r.evaluation.accuracy) for r in expected.results
    ]
    assert (body["metric"], body["held_out"]) == ("accuracy", expected.n_held_out)
    assert sum(r["is_best"] for r in body["rows"]) == 1
    for row in body["rows"]:
        assert row["is_best"] == (row["behind"] is None)
        if row["behind"]:
            assert row["behind"]["low"] <= row["behind"]["value"] <= row["behind"]["high"]


def test_the_forecast_is_that_of_the_library_or_a_sentence(judged):
    """All figures are those of `forecast_labels`; too few labels are a refusal."""
    store, client = judged
    body = client.get("/api/v1/forecast").json()
    expected = store.forecast_labels("label")
    for name in ("accuracy", "at_twice", "gain"):
        figure = getattr(expected, name)
        assert body[name] == {"value": figure.value, "low": figure.low, "high": figure.high}
    assert (body["labels"], body["pays"], body["sentence"]) == (ITEMS, expected.pays, str(expected))
    assert body["labels_for_a_point"] == expected.labels_for_a_point
    few = client.get("/api/v1/forecast", params={"where": "item < 10"})
    assert (few.status_code, few.json()["kind"]) == (400, "LabelError")
