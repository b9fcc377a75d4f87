"""A real server over a socket, for every test of this room."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.server.context import ServerContext
from embedstore.server.replica import served_replica
from embedstore.server.run import listen, new_server
from embedstore.server.security import Access, new_token

ROOT = Path(__file__).resolve().parents[2]
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 60, 220)}
HOSTILE = "<img src=x onerror=alert(1)>'\"; DROP TABLE items; --"


@dataclass
class Running:
    """A server that runs in a thread of this process, and clients of it."""

    store: es.Store
    context: ServerContext
    address: str

    def client(self, **options) -> httpx.Client:
        """A client with the token."""
        headers = {"authorization": f"Bearer {self.context.access.token}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=60, **options)

    def stranger(self) -> httpx.Client:
        """A client without the token."""
        return httpx.Client(base_url=self.address, timeout=60)


@contextmanager
def running(
    store: es.Store, *, read_only: bool = False, host: str = "127.0.0.1", replica: str | None = None
) -> Iterator[Running]:
    """Run a server of a store on a free port until the block ends."""
    listener = listen(host, 0)
    access = Access(host, listener.getsockname()[1], new_token(), read_only=read_only)
    context = ServerContext(store, store._session, access, served_replica(store._session, replica))
    server = new_server(context)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Running(store, context, f"http://127.0.0.1:{access.port}")
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def write_photos(folder: Path, per_color: int = 4) -> Path:
    """Photos of one color each, in a folder per color, one of them with a hostile name."""
    rng = np.random.default_rng(0)
    for color, rgb in COLORS.items():
        (folder / color).mkdir(parents=True)
        for n in range(per_color):
            pixels = np.clip(np.array(rgb) + rng.integers(-25, 25, (80, 120, 3)), 0, 255).astype(np.uint8)
            name = f"{n}.png" if n or color != "red" else HOSTILE.replace("/", "_") + ".png"
            Image.fromarray(pixels).save(folder / color / name)
    return folder


@pytest.fixture(scope="session")
def color_store(tmp_path_factory) -> Path:
    """A store of twelve photos in three colors, embedded by the bundled network; copy it to change it."""
    folder = tmp_path_factory.mktemp("colors")
    store = es.create(folder / "colors.store", "embedstore/tiny")
    store.embed(write_photos(folder / "photos"))
    (folder / "photos" / "broken.png").write_bytes(b"\x89PNG not an image")
    store.embed(folder / "photos")
    return folder / "colors.store"


@pytest.fixture(scope="module")
def server(color_store) -> Iterator[Running]:
    """A server of the store of colors that no test changes."""
    with running(es.open(color_store)) as found:
        yield found


@pytest.fixture
def client(server) -> Iterator[httpx.Client]:
    """A client with the token."""
    with server.client() as found:
        yield found
