"""Write the description of the HTTP API as JSON: ``python -m tools.openapi [FILE]``; the page has its types from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import embedstore as es
from embedstore.server.app import create_app
from embedstore.server.context import ServerContext
from embedstore.server.security import Access
from embedstore.temporary import temporary_folder


def render() -> str:
    """Return the description; that of an empty store is that of every store."""
    with temporary_folder() as folder:
        store = es.create(folder / "empty.store", "embedstore/tiny")
        context = ServerContext(store, store._session, Access("127.0.0.1", 0, ""))
        try:
            return json.dumps(create_app(context).openapi(), indent=1, ensure_ascii=False) + "\n"
        finally:
            context.close()


if __name__ == "__main__":
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(render(), encoding="utf-8")
    else:
        sys.stdout.write(render())
