"""A client of ``embedstore serve`` in one file that needs Python alone: it can be copied to where embedstore is not.

::

    from embedstore.client import Client

    client = Client("http://127.0.0.1:8642/#token=…")  # the address that `embedstore serve` printed
    for hit in client.search("a dog on a beach", k=5):
        print(hit["score"], hit["uri"])
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

API = "/api/v1"
TOKEN_VARIABLE = "EMBEDSTORE_TOKEN"  # noqa: S105 - a name
PAGE_ITEMS = 500  # items of one request of :meth:`Client.items`

Json = dict[str, Any]


class ApiError(RuntimeError):
    """The server refused a request, or does not answer.

    Attributes:
        status: the status of the answer; 0 if there was none.
        error: what is wrong.
        cure: what to do about it, or None.
        kind: the name of the error's class in embedstore.
    """

    def __init__(self, status: int, error: str, cure: str | None = None, kind: str = "ApiError") -> None:
        super().__init__(f"{error}; {cure}" if cure else error)
        self.status = status
        self.error = error
        self.cure = cure
        self.kind = kind


class Client:
    """One server.

    Args:
        address: what ``embedstore serve`` printed, with or without ``#token=…``.
        token: the token; by default the one in the address, or the environment variable ``EMBEDSTORE_TOKEN``.
        timeout: seconds that an answer may take.

    Raises:
        ApiError: if there is no token, or the address is not one of a server.
    """

    def __init__(self, address: str, token: str | None = None, *, timeout: float = 60.0) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ApiError(0, f"{address!r} is not the address of a server", "give the one that `serve` printed")
        found = token or parts.fragment.removeprefix("token=") or os.environ.get(TOKEN_VARIABLE)
        if not found:
            raise ApiError(0, "there is no token", f"give token=, or set the environment variable {TOKEN_VARIABLE}")
        self._base = f"{parts.scheme}://{parts.netloc}{API}"
        self._headers = {"authorization": f"Bearer {found}"}
        self._timeout = timeout

    def store(self) -> Json:
        """Return what the store holds: counts, spaces, columns."""
        return self.get("/store")

    def items(
        self, where: str | None = None, *, order: str | None = None, columns: Sequence[str] = ()
    ) -> Iterator[Json]:
        """Yield the items that match a filter, page by page.

        Args:
            where: the filter.
            order: the column to sort by; by default the id.
            columns: further columns of each item.

        Raises:
            ApiError: if the filter or a column cannot be used.
        """
        offset = 0
        while True:
            page = self.get("/items", where=where, order=order, columns=list(columns), offset=offset, limit=PAGE_ITEMS)
            yield from page["items"]
            offset += PAGE_ITEMS
            if offset >= page["total"]:
                return

    def item(self, item: int) -> Json:
        """Return all that is known of one item."""
        return self.get(f"/items/{item}")

    def thumbnail(self, item: int, size: int = 256) -> bytes:
        """Return the image of an item as WebP."""
        return self.request("GET", f"/items/{item}/thumbnail", {"size": size})

    def search(self, words: str | None = None, *, k: int = 10, **options: Any) -> list[Json]:
        """Return the hits of a search, best first.

        Args:
            words: what to search for.
            k: how many hits.
            **options: ``item``, ``more_like``, ``less_like``, ``where``, ``selection``, ``space``, ``hybrid``,
                ``replica`` or ``strictness``.

        Raises:
            ApiError: if the query cannot be used.
        """
        hits: list[Json] = self.post("/search", {"words": words, "k": k, **options})["hits"]
        return hits

    def search_image(self, image: bytes, *, k: int = 10, **options: Any) -> list[Json]:
        """Return the hits for an image file, best first.

        Args:
            image: the bytes of the file.
            k: how many hits.
            **options: ``where``, ``selection``, ``space``, ``replica`` or ``strictness``.

        Raises:
            ApiError: if the image cannot be decoded.
        """
        hits: list[Json] = self.send("/search/image", image, k=k, **options)["hits"]
        return hits

    def label(self, items: Sequence[int], value: Any, *, column: str = "label", **options: Any) -> Json:
        """Set a value for items, and return the change.

        Args:
            items: ids.
            value: the value; None removes it.
            column: the column.
            **options: ``expected``, ``overwrite``, ``create_column``, ``operation``, ``separator`` or ``who``.

        Raises:
            ApiError: if an item has another value than expected by now (status 409), or does not exist.
        """
        body = {"ids": list(items), "column": column, "value": value, **options}
        change: Json = self.post("/labels", body)["change"]
        return change

    def undo(self, who: str = "unknown") -> Json:
        """Take back the last change of a person, and return it.

        Raises:
            ApiError: if there is none (404), or somebody else changed a value since (409).
        """
        change: Json = self.post("/undo", {"who": who})["change"]
        return change

    def encode(self, words: Sequence[str], *, space: str | None = None) -> list[list[float]]:
        """Return the vectors of texts."""
        vectors: list[list[float]] = self.post("/encode", {"words": list(words), "space": space})["vectors"]
        return vectors

    def encode_image(self, image: bytes, *, space: str | None = None) -> list[float]:
        """Return the vector of an image file."""
        vectors: list[list[float]] = self.send("/encode/image", image, space=space)["vectors"]
        return vectors[0]

    def classify(self, image: bytes, head: str) -> list[Json]:
        """Return what a saved classifier says of an image file."""
        records: list[Json] = self.send("/classify/image", image, head=head)["records"]
        return records

    def get(self, path: str, **query: Any) -> Json:
        """Return the answer to a GET request of any route, such as ``/facets``."""
        return _object(self.request("GET", path, query))

    def post(self, path: str, body: Mapping[str, Any]) -> Json:
        """Return the answer to a POST request of any route; values that are None are left out, except ``value``."""
        data = {name: value for name, value in body.items() if value is not None or name == "value"}
        return _object(self.request("POST", path, {}, json.dumps(data).encode(), "application/json"))

    def send(self, path: str, data: bytes, **query: Any) -> Json:
        """Return the answer to bytes that are sent to a route."""
        return _object(self.request("POST", path, query, data, "application/octet-stream"))

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        data: bytes | None = None,
        content_type: str | None = None,
    ) -> bytes:
        """Return the body of an answer.

        Args:
            method: ``GET`` or ``POST``.
            path: the route, without ``/api/v1``.
            query: parameters; None is left out, and a list is repeated.
            data: the body.
            content_type: the type of the body.

        Raises:
            ApiError: if the server refuses, or does not answer.
        """
        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self._base}{path}?{urllib.parse.urlencode(given, doseq=True)}"
        headers = self._headers | ({"content-type": content_type} if content_type else {})
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - checked to be http
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as e:
            raise _refusal(e) from None
        except OSError as e:
            reason = getattr(e, "reason", e)
            raise ApiError(0, f"{self._base} does not answer: {reason}", "start the server with `serve`") from e


def _object(body: bytes) -> Json:
    """Return the JSON object of an answer."""
    found: Json = json.loads(body)
    return found


def _refusal(error: urllib.error.HTTPError) -> ApiError:
    """Return the error of the server."""
    try:
        body = json.loads(error.read())
        return ApiError(error.code, body["error"], body["cure"], body["kind"])
    except (ValueError, KeyError, TypeError):
        return ApiError(error.code, f"the server answered {error.code} {error.reason}")
