"""The bodies of requests and answers of the API. They are the source of its OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

MAX_IDS = 100_000  # ids in one request; larger sets are selections
MAX_TEXT = 10_000  # characters of a filter, a query or a value
MAX_PAGE = 1000  # items of one page
_MAX_ID = 2**63 - 1

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
Id = Annotated[int, Field(ge=0, le=_MAX_ID)]
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class Model(BaseModel):
    """Base of all bodies: unknown names are refused."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(Model):
    """An error: the sentence of the command line, and where it is."""

    error: str = Field(description="What is wrong, and what was expected.")
    cure: str | None = Field(default=None, description="What to do about it.")
    kind: str = Field(description="The name of the error's class.")
    position: int | None = Field(default=None, description="The place in the filter, in characters from 0.")


class LoginRequest(Model):
    """The token of the server."""

    token: Annotated[str, Field(max_length=256)]


class Done(Model):
    """The request was carried out."""

    ok: Literal[True] = True


class Counts(Model):
    """Counts of a store."""

    items: int
    contents: int
    failures: int
    unlabelled: int


class SpaceBody(Model):
    """A space of vectors."""

    name: str
    key: str
    backbone: str | None
    modality: str
    dim: int
    can_search_words: bool
    is_default: bool


class ColumnBody(Model):
    """A column that a filter can name."""

    name: str
    kind: Literal["text", "number", "boolean", "date", "other"]
    origin: Literal["own", "label", "store", "computed", "prediction"]


class WriterBody(Model):
    """The process that writes to the store."""

    pid: int
    since: str
    operation: str
    done: int | None = Field(description="Files that its run has read; null if that is not known.")
    total: int | None = Field(description="Files that its run has to read.")


class ReplicaBody(Model):
    """The copy of the default space in a vector database that searches go by."""

    name: str
    kind: str
    rows: int = Field(description="How many items it holds.")
    behind: int = Field(description="How many transactions the store had since.")
    written: str


class ReplicaLag(Model):
    """How far the copy that searches go by is behind the store."""

    name: str
    lacks: int = Field(description="How many items it does not hold as they are; they are searched in the store.")


class StoreBody(Model):
    """What a store holds."""

    id: str
    name: str
    version: str
    generation: int
    counts: Counts
    spaces: list[SpaceBody]
    columns: list[ColumnBody]
    read_only: bool
    writer: WriterBody | None
    replica: ReplicaBody | None = Field(description="What searches go by; null if that is the store itself.")


class ItemBody(Model):
    """One item of a list."""

    id: int
    uri: str
    name: str = Field(description="The last part of the uri.")
    label: str | None
    split: str | None
    columns: dict[str, Any] = Field(default_factory=dict, description="The columns that were requested.")


class ItemsBody(Model):
    """A part of the items in an order."""

    total: int
    generation: int
    offset: int
    items: list[ItemBody]


class ImageFacts(Model):
    """Facts about the image of an item."""

    width: int | None
    height: int | None
    format: str | None
    bytes: int | None


class PredictionBody(Model):
    """What a head predicted."""

    head: str
    label: str | None
    score: float | None


class FailureBody(Model):
    """Why an image could not be embedded."""

    reason: str
    detail: str | None


class ItemDetails(Model):
    """All that is known of one item."""

    id: int
    uri: str
    name: str
    label: str | None
    split: str | None
    columns: dict[str, Any]
    image: ImageFacts
    predictions: list[PredictionBody]
    failures: list[FailureBody]


class ItemPreview(Model):
    """What the page shows of an item in place of a picture."""

    kind: Literal["image", "text", "sound"]
    text: str | None = Field(default=None, description="The begin of a text; null for images and sounds.")
    is_cut: bool = Field(default=False, description="Whether the text goes on.")


class ValueCount(Model):
    """A value, and how many items have it."""

    value: Any
    count: int


class FacetBody(Model):
    """The values of one column."""

    column: str
    values: list[ValueCount]
    distinct: int
    absent: int
    low: Any = None
    high: Any = None


class FacetsBody(Model):
    """The values of several columns."""

    facets: list[FacetBody]


class CompletionBody(Model):
    """A continuation of a filter: ``text`` takes the place of everything from ``start`` on."""

    text: str
    kind: Literal["column", "value", "function"]
    start: int


class CompletionsBody(Model):
    """The continuations of a filter."""

    completions: list[CompletionBody]


class SearchBody(Model):
    """A search by words, by an item, or by examples."""

    words: Text | None = None
    item: Id | None = None
    more_like: Annotated[list[Id], Field(max_length=100)] = []
    less_like: Annotated[list[Id], Field(max_length=100)] = []
    k: Annotated[int, Field(ge=1, le=10_000)] = 100
    where: Text | None = None
    selection: str | None = None
    space: str | None = None
    replica: Annotated[str, Field(max_length=100)] | None = Field(
        default=None,
        description="Search by this copy of the space in a vector database, see `embedstore replicate`. By default "
        "what `serve --replica` names; an empty text searches the store itself.",
    )
    hybrid: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="A column of texts: the ranking by vectors is joined with one by the words in it. Scores are then "
        "sums of reciprocal ranks, which no cut-off fits.",
    )
    strictness: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="From 0 (everything fits) to 1; at 0.5 words for what is absent have a hit in 5% of cases at most. "
        "By default 0.5, and 0 among texts.",
    )


class HitBody(Model):
    """One hit of a search."""

    id: int
    rank: int
    score: float
    uri: str
    name: str
    label: str | None
    split: str | None
    fits: bool = Field(description="Whether the score reaches the cut-off of this query.")


class HitsBody(Model):
    """The hits of a search, best first."""

    query: str
    space: str
    replica: str | None = Field(description="The copy that was searched by; null for the store itself.")
    seconds: float
    hits: list[HitBody]
    nothing_fits: bool = Field(description="Whether no item reaches the cut-off.")
    cut_off: float | None = Field(
        description="The least score that fits words; null for images, items and examples, with `hybrid`, and at "
        "strictness 0."
    )
    notes: list[str]


class Point(Model):
    """A point of the map."""

    x: Coordinate
    y: Coordinate


class SelectionRequest(Model):
    """What to select: ids, a filter, the hits of a search, or what lies inside a polygon on the map."""

    ids: Ids | None = None
    where: Text | None = None
    hits: SearchBody | None = None
    polygon: Annotated[list[Point], Field(min_length=3, max_length=10_000)] | None = None
    space: str | None = Field(default=None, description="The space of the map that the polygon was drawn on.")
    within: str | None = Field(default=None, description="A selection that the new one is part of.")


class SelectionBody(Model):
    """A selection, which the server keeps in memory."""

    handle: str
    count: int
    generation: int


class LegendEntry(Model):
    """What a code of a map's column means."""

    code: int
    value: str
    count: int


class MapColumnLegend(Model):
    """What the codes of a map's column mean. Code 0 is no value, or one that is not listed."""

    column: str
    entries: list[LegendEntry]


class LabelRequest(Model):
    """A value for a column of some items.

    Attributes:
        expected: what the items showed before, in the order of ``ids``. If the store has another value by now, nothing
            is changed and the answer is 409.
        digest: the digest of the values that a selection showed, from ``GET /selections/{handle}/values``.
        overwrite: whether to set the value whatever the items have now.
    """

    ids: Ids | None = None
    selection: str | None = None
    column: Annotated[str, Field(min_length=1, max_length=200)]
    value: Scalar
    operation: Literal["set", "add", "remove"] = Field(
        default="set", description="Set the value, or add it to or remove it from several labels in one text."
    )
    separator: Annotated[str, Field(min_length=1, max_length=8)] = Field(
        default=";", description="What separates several labels of one item."
    )
    create_column: bool = False
    expected: list[Scalar] | None = None
    digest: str | None = None
    overwrite: bool = False
    who: Annotated[str, Field(max_length=100)] = "unknown"


class UndoRequest(Model):
    """Which change to undo or redo: the last one of a person, or the one with a number."""

    who: Annotated[str, Field(max_length=100)] = "unknown"
    change: Id | None = None


class ChangeBody(Model):
    """A change of labels or decisions."""

    change: int = Field(description="The number of the run that recorded it.")
    operation: str
    column: str
    items: int
    who: str
    when: str
    value: Scalar = None
    undone: bool = False


class ChangeDone(Model):
    """A change that was made."""

    change: ChangeBody
    generation: int


class HistoryBody(Model):
    """Changes, the newest first."""

    changes: list[ChangeBody]


class SelectionValues(Model):
    """The values of a column within a selection, and a digest of them for ``POST /labels``."""

    column: str
    values: list[ValueCount]
    absent: int
    digest: str
