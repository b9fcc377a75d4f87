"""The client in one file, and the tools of a language model, each against the real server."""

import asyncio
import io
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

import embedstore as es
from embedstore.client import ApiError, Client
from tests.server.conftest import ROOT, running


@pytest.fixture
def own(color_store, tmp_path):
    """A server of a copy of the store of colors."""
    shutil.copytree(color_store, tmp_path / "s")
    with running(es.open(tmp_path / "s")) as found:
        yield found


def test_the_client_does_what_the_page_does(own):
    """Items, searches, labels with undo, vectors and images; a refusal is an error with the server's sentence."""
    client = Client(f"{own.address}/#token={own.context.access.token}")
    assert client.store()["counts"]["items"] == 12
    assert [i["id"] for i in client.items("label = 'red'", order="item", columns=["size"])] == [
        i for (i,) in own.store.sql("select item from items where label = 'red' order by item").rows
    ]
    assert [h["id"] for h in client.search("red", k=3)] == [h.item for h in own.store.search("red", k=3)]
    image = client.thumbnail(1)
    with Image.open(io.BytesIO(image)) as decoded:
        assert decoded.format == "WEBP"
    assert client.search_image(image, k=1)[0]["score"] > 0.9
    before = client.item(1)["label"]
    assert client.label([1, 2], "x", expected=[before, client.item(2)["label"]], who="ann")["items"] == 2
    with pytest.raises(ApiError, match="look again") as raised:
        client.label([1], "y", expected=[before])
    assert (raised.value.status, raised.value.kind) == (409, "EditConflict")
    client.undo("ann")
    assert client.item(1)["label"] == before
    client.label([1], None, overwrite=True)
    assert client.item(1)["label"] is None
    assert len(client.encode(["red", "blue"])) == 2
    assert len(client.encode_image(image)) == own.store.spaces[0].space.dim
    with pytest.raises(ApiError, match="no column 'lable'"):
        list(client.items("lable = 1"))


def test_the_client_needs_python_alone(own, tmp_path):
    """A copy of the file works where embedstore is not installed, and imports nothing but the standard library."""
    shutil.copy(ROOT / "embedstore" / "client.py", tmp_path / "one_file.py")
    code = (
        "import sys, one_file; c = one_file.Client(sys.argv[1]); print(c.store()['counts']['items']); "
        "print([m for m in ('embedstore', 'numpy', 'httpx') if m in sys.modules])"
    )
    address = f"{own.address}/#token={own.context.access.token}"
    done = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, check=True, cwd=tmp_path, env={}
    )
    assert done.stdout.split("\n")[:2] == ["12", "[]"]


def test_what_a_client_gets_wrong_is_said(own):
    """No token, a wrong one, no server, or no address of a server."""
    with pytest.raises(ApiError, match="EMBEDSTORE_TOKEN"):
        Client(own.address)
    with pytest.raises(ApiError, match="token is missing or wrong"):
        Client(own.address, "x" * 43).store()
    with pytest.raises(ApiError, match="does not answer"):
        Client("http://127.0.0.1:9", "x").store()
    for address in ("file:///etc/passwd", "127.0.0.1:8642", ""):
        with pytest.raises(ApiError, match="not the address"):
            Client(address, "x")


def in_a_thread(work):
    """Run a coroutine in a thread of its own: a browser of another test may have an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def test_a_language_model_uses_the_store_by_its_tools(color_store, tmp_path):
    """A session over stdin and stdout of the real command: every tool answers, and an error is one in words."""
    pytest.importorskip("mcp", reason="mcp is not installed: `pip install embedstore[mcp]`")
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    shutil.copytree(color_store, tmp_path / "s")
    environment = {"PYTHONPATH": str(ROOT)}
    (tmp_path / "more").mkdir()
    Image.new("RGB", (30, 30), (9, 9, 9)).save(tmp_path / "more" / "gone.png")
    with es.open(tmp_path / "s") as store:
        store.embed(tmp_path / "more")
        store.edit({"note": "CASE WHEN item = 7 THEN 'an odd one' ELSE 'plain' END"}, where="true", create_columns=True)
    (tmp_path / "more" / "gone.png").unlink()

    async def use(*options: str) -> dict:
        parameters = StdioServerParameters(
            command=sys.executable, args=["-m", "embedstore", "mcp", str(tmp_path / "s"), *options], env=environment
        )
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            tools = sorted(tool.name for tool in (await session.list_tools()).tools)
            if options:
                return {"tools": tools}
            answers = {
                "search": await session.call_tool("search", {"words": "red", "k": 2}),
                "sql": await session.call_tool("sql", {"query": "select count(*) as n from items"}),
                "show": await session.call_tool("show", {"item": 1}),
                "probe": await session.call_tool("probe", {}),
                "label": await session.call_tool("label", {"items": [1], "value": "seen"}),
                "bad": await session.call_tool("sql", {"query": "drop table items"}),
                "both": await session.call_tool("search", {"words": "red", "item": 1}),
                "hybrid": await session.call_tool("search", {"words": "odd zeppelin", "k": 1, "hybrid": "note"}),
                "no column": await session.call_tool("search", {"words": "odd", "hybrid": "nope"}),
                "gone": await session.call_tool("show", {"item": 13}),
            }
            return {"tools": tools} | answers

    found = in_a_thread(use())
    assert found["tools"] == ["label", "probe", "search", "show", "sql"]
    assert [h["item"] for h in found["search"].structured_content["hits"]] == [
        h.item for h in es.open(tmp_path / "s").search("red", k=2)
    ]
    assert found["sql"].structured_content == {"rows": [{"n": 13}], "total": 1}
    assert [part.type for part in found["show"].content] == ["image", "text"]
    assert es.open(tmp_path / "s").sql("select label from items where item = 1").rows == (("seen",),)
    assert "accuracy" in str(found["probe"].structured_content)
    hybrid = found["hybrid"].structured_content
    assert [h["item"] for h in hybrid["hits"]] == [7]
    assert hybrid["notes"] == ["no text of note has 'zeppelin'"]
    assert "no column 'nope'" in found["no column"].content[0].text
    assert "by words or by an item" in found["both"].content[0].text
    assert [part.type for part in found["gone"].content] == ["text"]
    assert "gone.png" in found["gone"].content[0].text
    assert found["bad"].is_error
    assert "SELECT" in found["bad"].content[0].text
    assert in_a_thread(use("--read-only"))["tools"] == ["probe", "search", "show", "sql"]
