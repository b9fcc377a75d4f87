"""Errors as answers: the same sentence as on the command line, with the place in the filter where it is known."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from embedstore.errors import (
    EditConflict,
    EmbedstoreError,
    ItemNotFound,
    MissingExtra,
    StoreBusy,
    StoreError,
)
from embedstore.server.models import ErrorBody

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ItemNotFound, 404),
    (EditConflict, 409),
    (StoreBusy, 409),
    (StoreError, 503),
    (MissingExtra, 501),
    (EmbedstoreError, 400),
)

RESPONSES: dict[int | str, dict[str, Any]] = {  # what any route may answer, for the description of the API
    400: {"model": ErrorBody, "description": "A value or a filter that cannot be used"},
    401: {"model": ErrorBody, "description": "No token"},
    403: {"model": ErrorBody, "description": "A foreign page or name, or a server that is read-only"},
    404: {"model": ErrorBody, "description": "No such item or selection"},
    409: {"model": ErrorBody, "description": "The store changed meanwhile, or another process is writing"},
    413: {"model": ErrorBody, "description": "A body that is too large"},
    422: {"model": ErrorBody, "description": "A body or parameter of another form"},
    501: {"model": ErrorBody, "description": "An optional package that is not installed"},
    503: {"model": ErrorBody, "description": "A store that cannot be read or written"},
}


class Refusal(Exception):
    """A request that the server does not carry out.

    Args:
        status: the status of the answer.
        error: what is wrong.
        cure: what to do about it.
    """

    def __init__(self, status: int, error: str, cure: str | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.body = ErrorBody(error=error, cure=cure, kind="Refused")


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error as JSON of one form."""

    @app.exception_handler(EmbedstoreError)
    def _ours(request: Request, error: EmbedstoreError) -> JSONResponse:
        status = next(code for kind, code in _STATUS if isinstance(error, kind))
        return _answer(status, error_body(error))

    @app.exception_handler(Refusal)
    def _refused(request: Request, refusal: Refusal) -> JSONResponse:
        return _answer(refusal.status, refusal.body)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return _answer(422, ErrorBody(error=f"{place}: {first['msg']}", kind="BadRequest"))

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        what = f"unexpected error, a defect of embedstore ({type(error).__name__})"
        return _answer(500, ErrorBody(error=what, cure="the terminal of the server has more", kind="Defect"))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        return _answer(error.status_code, ErrorBody(error=str(error.detail), kind="HttpError"), error.headers)


def error_body(error: EmbedstoreError) -> ErrorBody:
    """Return an error of ours as the body of an answer; error and cure together are the line of the command line."""
    text, _, cure = str(error).partition("; ")
    return ErrorBody(
        error=text, cure=cure or None, kind=type(error).__name__, position=getattr(error, "position", None)
    )


def _answer(status: int, body: ErrorBody, headers: object = None) -> JSONResponse:
    """Return an error as an answer."""
    return JSONResponse(body.model_dump(), status_code=status, headers=headers if isinstance(headers, dict) else None)
