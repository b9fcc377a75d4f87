"""The server from outside: what a stranger, a foreign page or a hostile file gets."""

import http.client
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadOption, ServerError
from embedstore.server.run import ServerOptions, listen
from embedstore.server.security import MAX_UPLOAD_BYTES, Access, new_token
from tests.server.conftest import HOSTILE, ROOT, running

ROUTES = ["/store", "/items", "/items/1", "/items/1/thumbnail", "/items/1/image", "/items/1/preview",
          "/items/1/sound", "/facets", "/complete", "/map",
          "/events", "/history", "/suggestions", "/openapi.json", "/selections/x", "/nothing"]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}, {"cookie": "embedstore-1=x; $"}],
    ids=["none", "wrong", "other", "cookie"],
)
def test_nothing_of_the_api_is_told_without_the_token(server, route, headers):
    """Every route answers 401, whatever comes in place of the token."""
    with server.stranger() as stranger:
        answer = stranger.get(f"/api/v1{route}", headers=headers)
    assert (answer.status_code, set(answer.json())) == (401, {"error", "cure", "kind", "position"})


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(server):
    """The cookie is HttpOnly, SameSite=Strict and not the token; with it the API answers."""
    token = server.context.access.token
    assert len(token) >= 43  # 32 bytes in base64
    with server.stranger() as browser:
        assert browser.post("/api/v1/session", json={"token": "x" * 43}).status_code == 401
        answer = browser.post("/api/v1/session", json={"token": token})
        cookie = answer.headers["set-cookie"]
        assert re.search(r"; HttpOnly", cookie) and re.search(r"; SameSite=strict", cookie)  # noqa: PT018
        assert token not in cookie
        assert browser.get("/api/v1/store").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:PORT"}, 403),
        ({"host": "127.0.0.1"}, 403),
        ({"host": "127.0.0.1:1"}, 403),
        ({"host": "127.0.0.1.evil.example:PORT"}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost:PORT"}, 200),
        ({"origin": "http://127.0.0.1:PORT"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "https://127.0.0.1:PORT"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_foreign_names_and_pages_are_refused_even_with_the_token(server, headers, status):
    """A name that was pointed here, another port, or another page gets 403."""
    port = str(server.context.access.port)
    filled = {name: value.replace("PORT", port) for name, value in headers.items()}
    with server.client() as client:
        assert client.get("/api/v1/store", headers=filled).status_code == status
        assert client.post("/api/v1/selections", json={"ids": [1]}, headers=filled).status_code == status


def test_every_answer_has_the_protecting_headers(server):
    """The page, an answer, a refusal and an error: scripts of the page only, no framing, no guessing of types."""
    with server.client() as client:
        answers = [client.get(p) for p in ("/", "/nothing", "/api/v1/store", "/api/v1/items/999", "/api/v1/items/x")]
        answers.append(client.get("/api/v1/store", headers={"host": "evil"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'; script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    ["/../../../etc/passwd", "/..%2f..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/embedstore.json", "/static/../run.py",
     "//etc/passwd", "/api/v1/../../etc/passwd", "/api/v1/items/..%2f..%2fetc%2fpasswd/image", "/index.html%00.png",
     "/\\..\\..\\secrets", "/run.py", "/security.py"],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(server, path):
    """A path with dots, escapes, backslashes or NUL gives no file of the machine."""
    connection = http.client.HTTPConnection("127.0.0.1", server.context.access.port)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", f"127.0.0.1:{server.context.access.port}")
    connection.putheader("Authorization", f"Bearer {server.context.access.token}")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    assert b"root:" not in body
    assert b"import" not in body
    assert b'"format"' not in body
    assert answer.status in (400, 404, 405, 422, 503)


def test_a_hundred_megabytes_are_refused_while_they_arrive(server):
    """The answer is 413, and the server takes hardly more than the limit, in bytes and in memory."""
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(1600):
            sent += 1 << 16
            yield bytes(1 << 16)

    before = _peak_memory()
    with server.client() as client:
        for path in ("/api/v1/search/image", "/api/v1/encode/image"):
            try:
                status = client.post(path, content=chunks()).status_code
            except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                status = 413  # the connection was closed while the client still sent
            assert status == 413
        answer = client.post("/api/v1/items", content=b'{"ids": [' + b"1," * (3 << 20) + b"1]}")
        assert answer.status_code == 413
        assert client.get("/api/v1/store").status_code == 200
    assert sent < 2 * (MAX_UPLOAD_BYTES + (8 << 20))
    assert _peak_memory() - before < 150 << 20


def _peak_memory() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "data", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS\n", b"\x89PNG\r\n\x1a\n" * 9]
)
def test_an_upload_that_is_no_image_is_an_error_in_words(client, data):
    """Other files are refused with the reason of the decoder."""
    answer = client.post("/api/v1/search/image", content=data)
    assert (answer.status_code, bool(answer.json()["error"])) == (400, True)


def test_hostile_names_are_text_of_json(client):
    """A name with markup comes back as it is, in JSON that no browser takes for a page."""
    answer = client.get("/api/v1/items", params={"where": "contains(uri, 'onerror')"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["items"][0]["name"] == HOSTILE + ".png"


@pytest.mark.parametrize(
    "where",
    ["true); DROP TABLE items; --", "item in (SELECT item FROM items)", "read_text('/etc/passwd') <> ''",
     "getenv('HOME') <> ''", "1 = 1) UNION SELECT (1", "nextval('x') = 1", "label = 'a' COLLATE NOCASE; COMMIT"],
)  # fmt: skip
def test_a_filter_writes_nothing_and_reads_no_file(client, where):
    """What is not a condition over the items is refused by every route that takes a filter."""
    for route in ("/items", "/facets", "/map/mask"):
        assert client.get(f"/api/v1{route}", params={"where": where}).status_code == 400
    assert client.post("/api/v1/selections", json={"where": where}).status_code == 400
    assert client.post("/api/v1/search", json={"item": 1, "where": where}).status_code == 400
    assert client.get("/api/v1/store").json()["counts"]["items"] == 12


def test_a_slow_filter_ends_with_an_error(color_store, tmp_path, monkeypatch):
    """A filter that would run for long ends at the limit of the page, and other requests are answered after it."""
    monkeypatch.setattr("embedstore.server.app.FILTER_SECONDS", 0.2)
    shutil.copytree(color_store, tmp_path / "s")
    store = es.open(tmp_path / "s")
    count = 50_000
    vectors = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    store.add_vectors(vectors, {"uri": [f"{n}-{'x' * 300}" for n in range(count)]}, space="many")
    long_text = "concat(uri, uri, uri)"
    where = " or ".join(f"levenshtein({long_text}, reverse({long_text})) = {n}" for n in range(-8, 0))
    with running(store) as server, server.client() as client:
        begin = time.monotonic()
        answer = client.get("/api/v1/items", params={"where": where})
        assert (answer.status_code, answer.json()["kind"]) == (400, "QueryTimeout")
        assert "EMBEDSTORE_FILTER_TIMEOUT" in answer.json()["cure"]
        assert time.monotonic() - begin < 30
        assert client.get("/api/v1/items").json()["total"] == count + 12


def test_other_machines_need_a_token_of_the_user():
    """An address that others can reach is refused without a token, and so is a short one."""
    with pytest.raises(BadOption, match="EMBEDSTORE_TOKEN"):
        ServerOptions(host="0.0.0.0")
    with pytest.raises(BadOption, match="at least 32"):
        ServerOptions(token="short")
    assert ServerOptions(host="0.0.0.0", token="x" * 32).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "asked", "known"),
    [
        ("0.0.0.0", "192.168.7.9:8642", True),
        ("0.0.0.0", f"{socket.gethostname()}:8642", True),
        ("0.0.0.0", "evil.example:8642", False),
        ("0.0.0.0", "192.168.7.9:80", False),
        ("127.0.0.1", "192.168.7.9:8642", False),
        ("127.0.0.1", "[::1]:8642", True),
        ("::1", "[::1]:8642", True),
        ("127.0.0.1", "LOCALHOST:8642", True),
        ("127.0.0.1", "localhost:8642@evil:8642", False),
    ],
)
def test_the_names_that_a_server_answers_to(host, asked, known):
    """Its own names and, where it listens at every address, any number: only names can be pointed elsewhere."""
    assert Access(host, 8642, new_token()).knows_host(asked) is known


def test_a_port_in_use_is_one_line():
    """The error names the port and the option."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} of 127.0.0.1 is in use .*--port 0"):
            listen("127.0.0.1", port)
    with pytest.raises(ServerError, match=r"nowhere\.invalid"):
        listen("nowhere.invalid", 0)


def _start(arguments) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "embedstore", "serve", *arguments, "--port", "0", "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    return process, process.stdout.readline()


def test_the_command_serves_prints_its_address_and_ends_with_ctrl_c(color_store, tmp_path):
    """The printed token opens the API; SIGINT ends it with status 0, quickly, and nothing is left running."""
    import signal

    shutil.copytree(color_store, tmp_path / "s")
    process, line = _start([str(tmp_path / "s")])
    try:
        address, token = re.search(r"at (http://127\.0\.0\.1:\d+)/#token=(\S+)", line).groups()
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            assert client.get("/api/v1/items/1/thumbnail").status_code == 200
            with client.stream("GET", "/api/v1/events") as stream:
                next(stream.iter_lines())
                begin = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
        assert time.monotonic() - begin < 15
    finally:
        process.kill()


def test_what_is_wrong_with_serve_is_one_line(color_store, tmp_path):
    """No store, or an address for others without a token: one line and status 1."""
    for arguments in ([str(tmp_path / "none")], [str(color_store), "--host", "0.0.0.0"]):
        done = subprocess.run(
            [sys.executable, "-m", "embedstore", "serve", *arguments, "--no-open"],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (1, 1, "")


def test_a_cache_folder_that_is_a_link_is_not_followed(color_store, tmp_path):
    """A store of a stranger whose cache leads elsewhere writes and reads nothing there."""
    shutil.copytree(color_store, tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "cache", ignore_errors=True)
    outside = tmp_path / "outside"
    (outside / "thumbnails").mkdir(parents=True)
    (tmp_path / "s" / "cache").symlink_to(outside)
    with running(es.open(tmp_path / "s")) as server, server.client() as client:
        assert client.get("/api/v1/items/1/thumbnail").status_code == 200
        assert client.get("/api/v1/map").status_code == 200
    assert [p for p in outside.rglob("*") if p.is_file()] == []


def test_purged_images_leave_no_thumbnail(color_store, tmp_path):
    """What was purged is not in the cache any more."""
    shutil.copytree(color_store, tmp_path / "s")
    store = es.open(tmp_path / "s")
    with running(store) as server, server.client() as client:
        for item in (1, 2):
            assert client.get(f"/api/v1/items/{item}/thumbnail").status_code == 200
        contents = {i: client.get(f"/api/v1/items/{i}/thumbnail").headers["etag"][1:33] for i in (1, 2)}
    store.purge(items=[1])
    left = {p.name[:32] for p in (tmp_path / "s" / "cache" / "thumbnails").iterdir()}
    assert contents[1] not in left
    assert contents[2] in left


def test_the_cache_of_thumbnails_has_a_limit(tmp_path):
    """Above the limit the files that were used longest ago are removed."""
    import os

    from embedstore.storage.thumbnail_cache import ThumbnailCache

    cache = ThumbnailCache(tmp_path / "cache" / "thumbnails", max_bytes=1000)
    data = b"RIFF\0\0\0\0WEBP" + bytes(88)
    for n in range(9):
        cache.put(f"{n:032x}", 64, data)
        os.utime(tmp_path / "cache" / "thumbnails" / f"{n:032x}-64.webp", (n, n))
    assert cache.get(f"{0:032x}", 64) == data  # used now
    for n in range(9, 12):
        cache.put(f"{n:032x}", 64, data)
    names = {int(p.name[:32], 16) for p in (tmp_path / "cache" / "thumbnails").iterdir()}
    assert sum(p.stat().st_size for p in Path(tmp_path / "cache" / "thumbnails").iterdir()) <= 1000
    assert 0 in names
    assert 1 not in names
    with pytest.raises(es.UnsafeStore):
        cache.put("../" + "a" * 29, 64, data)
