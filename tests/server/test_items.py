"""What a person looks at: the store, pages of items, one item, facets, completion."""

import io
import shutil

import pytest
from PIL import Image

import embedstore as es
from embedstore.server.routes.items import item_name
from tests.server.conftest import HOSTILE, running


def test_the_store_says_what_it_holds(client):
    """Counts, spaces and columns are those of the store."""
    body = client.get("/api/v1/store").json()
    assert body["counts"] == {"items": 12, "contents": 12, "failures": 1, "unlabelled": 0}
    assert [(s["dim"], s["can_search_words"], s["is_default"]) for s in body["spaces"]] == [(256, True, True)]
    columns = {c["name"]: (c["kind"], c["origin"]) for c in body["columns"]}
    assert columns["label"] == ("text", "label")
    assert columns["size"] == ("number", "store")
    assert columns["present"] == ("boolean", "store")
    assert columns["added"] == ("date", "store")
    assert "path" not in columns
    assert body["writer"] is None
    assert body["read_only"] is False


def test_pages_fit_together_in_any_order(client):
    """The pages of an order are the order, whatever their size, and the total is what matches."""
    whole = client.get("/api/v1/items", params={"order": "label", "descending": True}).json()
    assert [i["label"] for i in whole["items"]] == ["red"] * 4 + ["green"] * 4 + ["blue"] * 4
    pages = []
    for offset in range(0, 15, 5):
        page = client.get(
            "/api/v1/items", params={"order": "label", "descending": True, "offset": offset, "limit": 5}
        ).json()
        assert page["total"] == 12
        pages += page["items"]
    assert pages == whole["items"]


def test_a_filter_selects_and_columns_are_added(client):
    """A filter is that of the command line, and requested columns come with each item."""
    body = client.get("/api/v1/items", params={"where": "label = 'red'", "columns": ["size", "present"]}).json()
    assert body["total"] == 4
    assert all(i["label"] == "red" and i["columns"]["present"] is True for i in body["items"])
    assert all(set(i["columns"]) == {"size", "present"} for i in body["items"])


def test_items_by_ids_keep_their_order(client):
    """Ids are answered in the order of the request, without those that do not exist."""
    body = client.post("/api/v1/items", json={"ids": [7, 2, 999, 5]}).json()
    assert [i["id"] for i in body["items"]] == [7, 2, 5]


def test_one_item_has_its_facts(client):
    """All columns, the image's size and format; a hostile name is text."""
    found = client.get("/api/v1/items", params={"where": "contains(uri, 'onerror')"}).json()["items"][0]
    assert found["name"] == HOSTILE + ".png"
    item = client.get(f"/api/v1/items/{found['id']}").json()
    assert item["image"]["width"], item["image"]["height"] == (120, 80)
    assert item["image"]["format"] == "PNG"
    assert item["name"] == HOSTILE + ".png"
    assert "path" not in item["columns"]
    assert client.get("/api/v1/items/12345").status_code == 404


def test_thumbnails_are_new_files_with_a_tag(client):
    """A thumbnail is a WebP of the next larger size, and a browser that has it gets nothing."""
    answer = client.get("/api/v1/items/1/thumbnail", params={"size": 64})
    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 43))
    again = client.get(
        "/api/v1/items/1/thumbnail", params={"size": 64}, headers={"if-none-match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    with Image.open(io.BytesIO(client.get("/api/v1/items/1/image").content)) as image:
        assert (image.format, image.size) == ("WEBP", (120, 80))


def test_facets_count_values_of_what_matches(client):
    """Values with counts, how many are absent, and the ends of numbers."""
    facets = client.get("/api/v1/facets", params={"columns": ["label", "split", "item"]}).json()["facets"]
    label, split, item = facets
    assert [(v["value"], v["count"]) for v in label["values"]] == [("blue", 4), ("green", 4), ("red", 4)]
    assert (split["values"], split["absent"]) == ([], 12)
    assert (item["low"], item["high"], item["distinct"]) == (1, 12, 12)
    body = client.get("/api/v1/facets", params={"columns": ["label"], "where": "label > 'c'"}).json()
    assert [v["value"] for v in body["facets"][0]["values"]] == ["green", "red"]


def test_facets_of_a_selection(client):
    """Values are counted among the items of a selection, those of a filter among its own part."""
    handle = client.post("/api/v1/selections", json={"ids": [1, 2, 3, 4]}).json()["handle"]
    ask = {"columns": ["label", "item"], "selection": handle}
    label, item = client.get("/api/v1/facets", params=ask).json()["facets"]
    assert sum(v["count"] for v in label["values"]) == 4
    assert (item["low"], item["high"], item["distinct"]) == (1, 4, 4)
    filtered = client.get("/api/v1/facets", params=ask | {"where": "item > 2"}).json()["facets"][1]
    assert (filtered["low"], filtered["high"]) == (3, 4)
    assert client.get("/api/v1/facets", params=ask | {"selection": "gone"}).status_code == 404


def test_each_tag_is_a_value_of_its_own(color_store, tmp_path):
    """An item with two tags counts for both; the same text in another column is one value."""
    shutil.copytree(color_store, tmp_path / "s")
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        for name in ("tags", "other"):
            for item, value in ((1, "old;odd"), (2, "old"), (3, "odd;odd;")):
                body = {"ids": [item], "column": name, "value": value, "create_column": True, "overwrite": True}
                assert client.post("/api/v1/labels", json=body).status_code == 200
        facets = client.get("/api/v1/facets", params={"columns": ["tags", "other"]}).json()["facets"]
        where = "list_contains(string_split(tags, ';'), 'old')"
        found = client.get("/api/v1/items", params={"where": where}).json()
    counts = [{v["value"]: v["count"] for v in f["values"]} for f in facets]
    assert counts[0] == {"odd": 2, "old": 2, "": 1}
    assert counts[1] == {"old;odd": 1, "old": 1, "odd;odd;": 1}
    assert [(f["distinct"], f["absent"]) for f in facets] == [(3, 9), (3, 9)]
    assert [row["id"] for row in found["items"]] == [1, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lab", ("label", "column", 0)),
        ("label = 'g", ("'green'", "value", 8)),
        ("size > 3 and label in ('red', 'b", ("'blue'", "value", 30)),
        ("lower(lab", ("label", "column", 6)),
        ("upp", ("upper(", "function", 0)),
        ("label = 'green' and spl", ("split", "column", 20)),
    ],
)
def test_completion_offers_columns_values_and_functions(client, text, expected):
    """The first continuation of a filter, and where it begins."""
    found = client.get("/api/v1/complete", params={"text": text}).json()["completions"]
    assert (found[0]["text"], found[0]["kind"], found[0]["start"]) == expected


@pytest.mark.parametrize(
    ("where", "kind", "position"),
    [
        ("label = ", "BadFilter", 8),
        ("lable = 'red'", "UnknownColumn", 0),
        ("label = 'red' and sizes > 3", "UnknownColumn", 18),
        ("label = 'red' and and", "BadFilter", 18),
        ("read_text('/etc/passwd') = 'x'", "BadFilter", 0),
        ("(select 1) = 1", "BadFilter", 0),
    ],
)
def test_errors_of_a_filter_are_those_of_the_command_line(client, server, where, kind, position):
    """Error and cure together are the sentence of the command line; the place is known where there is one."""
    answer = client.get("/api/v1/items", params={"where": where})
    body = answer.json()
    assert (answer.status_code, body["kind"], body["position"]) == (400, kind, position)
    with pytest.raises(es.QueryError) as raised:
        server.store.search(1, where=where)
    assert "; ".join(filter(None, (body["error"], body["cure"]))) == str(raised.value)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/photos/cat.jpg", "cat.jpg"),
        ("/data/notes.csv#column=the%20text&row=17", "row 17 of notes.csv"),
        ("/data/notes.csv.gz#encoding=cp1252&column=text&row=0", "row 0 of notes.csv.gz"),
        ("/data/scan.pdf#page=3", "scan.pdf#page=3"),
        ("/photos/a#column=b", "a#column=b"),
    ],
)
def test_an_item_is_called_by_what_tells_it_from_others(uri, name):
    """The rows of one table differ in the number, which comes first: a name is cut at its end."""
    assert item_name(uri) == name
