"""The store as tools of the Model Context Protocol: search, sql, show, label and probe for a language model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from embedstore.errors import EmbedstoreError, ImageError, MissingExtra, QueryError
from embedstore.operations import change_values
from embedstore.operations.browse import Browser
from embedstore.operations.change_values import Expectation, NewValue
from embedstore.operations.session import Session
from embedstore.server.thumbnails import Thumbnails
from embedstore.tables import to_json_value

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from embedstore.store import Store

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

IMAGE_PIXELS = 512  # of an image that is shown: what language models look at
MAX_ROWS = 200  # of an SQL query
_INSTRUCTIONS = (
    "Tools over one collection of images. `search` finds items by words or by an item, `sql` reads the tables (items, "
    "contents, failures, runs, predictions), `show` returns the image and all facts of an item, `label` sets a value "
    "and can be undone on the page, `probe` judges a classifier of a label."
)


def serve_tools(store: Store, session: Session, *, read_only: bool) -> None:
    """Answer requests on stdin and stdout until the client closes them.

    Args:
        store: the verbs.
        session: the open store behind them.
        read_only: whether there is no tool that changes the store.

    Raises:
        MissingExtra: if the package ``mcp`` is not installed.
    """
    thumbnails = Thumbnails(session.storage.layout)
    try:
        create_tools(store, session, thumbnails, read_only=read_only).run("stdio")
    finally:
        thumbnails.close()


def create_tools(store: Store, session: Session, thumbnails: Thumbnails, *, read_only: bool) -> MCPServer:
    """Return the server with its tools.

    Args:
        store: the verbs.
        session: the open store behind them.
        thumbnails: makes the images that are shown.
        read_only: whether there is no tool that changes the store.

    Raises:
        MissingExtra: if the package ``mcp`` is not installed.
    """
    try:
        from mcp.server.mcpserver import Image, MCPServer
    except ImportError as e:
        raise MissingExtra("mcp is not installed; run `pip install embedstore[mcp]`") from e
    server = MCPServer("embedstore", instructions=_INSTRUCTIONS, log_level="ERROR")
    browser = Browser(session)

    @server.tool()
    @_with_own_errors
    def search(
        words: str | None = None,
        item: int | None = None,
        where: str | None = None,
        k: int = 10,
        hybrid: str | None = None,
    ) -> dict[str, Any]:
        """Find the k items nearest to words, or to an item; `where` is an SQL condition such as "year >= 2020".

        `hybrid` names a column of texts: a search by words then counts the words of this column, too, which finds names
        and numbers that the meaning of a text does not hold.
        """
        if words is not None and item is not None:
            raise QueryError("a search is by words or by an item, not by both; leave one out")
        hits = store.search(words if words is not None else item, k=k, where=where, hybrid=hybrid)
        return {"hits": hits.records(), "notes": list(hits.notes)}

    @server.tool()
    @_with_own_errors
    def sql(query: str) -> dict[str, Any]:
        """Run one SELECT on the tables of the store; at most 200 rows are returned."""
        rows = store.sql(query).to_json()
        return {"rows": rows[:MAX_ROWS], "total": len(rows)}

    @server.tool(structured_output=False)
    @_with_own_errors
    def show(item: int) -> list[Any]:
        """Return the image of an item, where it has one, and all that is known of it."""
        facts = browser.facts(item)
        try:
            image: list[Any] = [Image(data=thumbnails.read(browser, item, IMAGE_PIXELS), format="webp")]
            problem = {}
        except ImageError as e:  # a text, a sound, or a file that is not where it was
            image, problem = [], {"no image": str(e)}
        return [*image, to_json_value(facts.columns | {"image": facts.image} | problem)]

    @server.tool()
    @_with_own_errors
    def probe(column: str = "label", where: str | None = None) -> dict[str, Any]:
        """Fit a classifier on the labels of a column, and judge it on items that it did not learn from."""
        found: dict[str, Any] = to_json_value(store.probe(column, where=where).to_json())
        return found

    if not read_only:

        @server.tool()
        @_with_own_errors
        def label(items: list[int], value: str | float | bool | None, column: str = "label") -> dict[str, Any]:
            """Set a value of a column for items; null removes it. The page can undo it."""
            new = NewValue(column, np.array(items, np.int64), value)
            change = change_values.set_value(session, new, Expectation(), "mcp")
            return {"change": change.number, "items": change.items}

    return server


def _with_own_errors(tool: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a tool whose errors of ours reach the model in their own words."""

    @functools.wraps(tool)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        from mcp.server.mcpserver.exceptions import ToolError

        try:
            return tool(*args, **kwargs)
        except EmbedstoreError as e:
            raise ToolError(str(e)) from e

    return run
