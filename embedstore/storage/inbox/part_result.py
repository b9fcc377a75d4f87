"""The result of one part: a safetensors file with the vectors, the outcome of every file, and what it belongs to.

The name of the file is the number of the part and the XXH3-128 of its bytes, so a torn or changed file does not match
its own name. Tensors: ``facts`` and ``rows`` (uint8: JSON, and one JSON array per line), ``contents`` (uint8
``(n, 16)``) and ``vectors`` (``(n, dim)`` in the type of the space). Whatever is read here may come from anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from embedstore.errors import StoreDamaged
from embedstore.json_objects import parse_json_object
from embedstore.modality import SOUND_FORMATS, TEXT_FORMAT
from embedstore.storage.commit import CommitBatch, storable_rows
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.work_plan import WorkPlan
from embedstore.storage.shard import DTYPES, hex_digests
from embedstore.types import ContentInfo, Failure, FailureReason

FORMAT = 1
MAX_DETAIL = 2000  # characters of the message of a failure
MAX_SIDE = 1 << 31
UNIT_TOLERANCE = 0.01  # of the length of a vector in a space of unit vectors


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file.

    Attributes:
        content: the digest of its bytes, "" if it failed.
        image: facts about the image, if it was decoded.
        failure: why it has no vector.
    """

    content: str
    image: ContentInfo | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class PartResult:
    """The result of one part.

    Attributes:
        part: its number, from 1.
        decoder: the version of the decoder that the worker used.
        outcomes: the outcomes of the files of the part, in their order.
        contents: the contents of the vectors, 32 hexadecimal digits each.
        vectors: ``(len(contents), dim)`` in the type of the space.
    """

    part: int
    decoder: str
    outcomes: list[FileOutcome]
    contents: list[str] = field(default_factory=list)
    vectors: NDArray[np.floating[Any]] | None = None


def result_of_batch(
    part: int, files: Sequence[PartFile], batch: CommitBatch, *, decoder: str, dtype: str
) -> PartResult:
    """Return the result of a part from what the stages of a run collected.

    Args:
        part: the number of the part.
        files: its files.
        batch: what a local run would commit.
        decoder: the version of the decoder.
        dtype: the type of the space.
    """
    failures = {row.failure.uri: row.failure for row in batch.failures}
    contents = {row.ref.uri: row.content for row in batch.items}
    outcomes = [_outcome(ref.uri, contents, failures, batch) for ref, _ in files]
    vectors = np.concatenate([np.atleast_2d(v) for v in batch.vectors]) if batch.vectors else None
    return PartResult(
        part, decoder, outcomes, list(batch.digests), None if vectors is None else vectors.astype(DTYPES[dtype])
    )


def _outcome(uri: str, contents: Mapping[str, str], failures: Mapping[str, Failure], batch: CommitBatch) -> FileOutcome:
    """Return what became of one file."""
    if uri in failures:
        return FileOutcome("", failure=failures[uri])
    content = contents[uri]
    return FileOutcome(content, batch.content_info.get(content, (0, None))[1])


def join_results(part: int, results: Sequence[PartResult]) -> PartResult:
    """Return the result of a part from those of consecutive ranges of its files, each content once."""
    contents: dict[str, Any] = {}
    for result in results:
        for content, vector in zip(result.contents, [] if result.vectors is None else result.vectors, strict=True):
            contents.setdefault(content, vector)
    outcomes = [outcome for result in results for outcome in result.outcomes]
    vectors = np.stack(list(contents.values())) if contents else None
    return PartResult(part, results[0].decoder, outcomes, list(contents), vectors)


def encode_result(plan: WorkPlan, result: PartResult) -> bytes:
    """Return the bytes of a result's file."""
    facts = {
        "format": FORMAT, "plan": plan.id, "space": plan.space.key, "part": result.part,
        "list": plan.parts[result.part - 1].xxh3, "decoder": result.decoder,
    }  # fmt: skip
    rows = "".join(f"{json.dumps(_row(outcome))}\n" for outcome in result.outcomes)
    vectors = result.vectors
    if vectors is None:
        vectors = np.empty((0, plan.space.space.dim), DTYPES[plan.space.dtype])
    digests = np.frombuffer(bytes.fromhex("".join(result.contents)), np.uint8).reshape(-1, 16)
    return bytes(
        save(
            {
                "facts": np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8),
                "rows": np.frombuffer(rows.encode("ascii"), np.uint8),
                "contents": digests,
                "vectors": np.ascontiguousarray(vectors),
            }
        )
    )


def _row(outcome: FileOutcome) -> list[Any]:
    """Return one outcome as JSON values."""
    if outcome.failure is not None:
        return [None, outcome.failure.reason.value, outcome.failure.detail[:MAX_DETAIL]]
    image = outcome.image
    return [outcome.content, *([image.width, image.height, image.format] if image else [])]


def result_digest(data: bytes) -> str:
    """Return the digest that names a result's file."""
    return xxhash.xxh3_128_hexdigest(data)


def decode_result(data: bytes, plan: WorkPlan, files: Sequence[PartFile], *, part: int) -> PartResult:
    """Return the result in a file's bytes, checked against the plan.

    Args:
        data: the bytes; their digest was compared with the file's name.
        plan: the plan.
        files: the files of the part.
        part: the number of the part that the name states.

    Raises:
        StoreDamaged: if it is not a result of this part that embedstore writes.
    """
    try:
        tensors = load(data)
        facts = parse_json_object(tensors["facts"].tobytes())
        _require_part(facts, plan, part)
        lines = tensors["rows"].tobytes().splitlines()
        if len(lines) != len(files):
            raise ValueError(f"{len(lines)} files instead of {len(files)}")
        outcomes = [_parse_row(json.loads(line), file) for line, file in zip(lines, files, strict=True)]
        contents = _contents(tensors["contents"])
        vectors = _vectors(tensors["vectors"], plan, len(contents))
        if set(contents) - {outcome.content for outcome in outcomes}:
            raise ValueError("vectors of contents that no file has")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise StoreDamaged(f"it is not a result of part {part} ({type(e).__name__}: {e!s:.120})") from e
    return PartResult(part, str(facts["decoder"])[:200], outcomes, contents, vectors)


def _require_part(facts: Mapping[str, Any], plan: WorkPlan, part: int) -> None:
    """Require that a result belongs to a part of a plan."""
    expected = {"format": FORMAT, "plan": plan.id, "space": plan.space.key, "part": part}
    expected["list"] = plan.parts[part - 1].xxh3
    wrong = [name for name, value in expected.items() if facts[name] != value]
    if wrong or not isinstance(facts["decoder"], str):
        raise ValueError(f"another {', '.join(wrong) or 'decoder'} than in the plan")


def _parse_row(row: Any, file: PartFile) -> FileOutcome:
    """Return what became of a file."""
    if row[0] is None:
        _, reason, detail = row
        detail.encode("utf-8")
        return FileOutcome("", failure=Failure.from_ref(file.ref, FailureReason(reason), detail[:MAX_DETAIL]))
    content, *image = row
    if len(content) != 32 or set(content) - set("0123456789abcdef"):
        raise ValueError(f"{content!r:.40} is not a digest")
    return FileOutcome(content, _parse_image(*image) if image else None)


def _parse_image(width: Any, height: Any, name: Any) -> ContentInfo:
    """Return the facts about an image, or about a text or sound, which has no size."""
    if type(width) is not int or type(height) is not int:
        raise ValueError("an image without a size")
    if not (0 <= width < MAX_SIDE and 0 <= height < MAX_SIDE) and (
        (width, height) != (0, 0) or name not in (TEXT_FORMAT, *SOUND_FORMATS)
    ):
        raise ValueError("an image without a size")
    if not isinstance(name, str) or not name.isascii() or len(name) > 40:
        raise ValueError("an image without a format")
    return ContentInfo(width, height, name)


def _contents(digests: NDArray[Any]) -> list[str]:
    """Return the contents of the vectors."""
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != 16:
        raise ValueError("contents that are no digests")
    contents = hex_digests(digests)
    if len(set(contents)) != len(contents):
        raise ValueError("two vectors of one content")
    return contents


def _vectors(vectors: NDArray[Any], plan: WorkPlan, count: int) -> NDArray[Any]:
    """Return the vectors, of the type and length of the space, all of which can be stored."""
    space = plan.space.space
    if vectors.dtype != DTYPES[plan.space.dtype] or vectors.shape != (count, space.dim):
        raise ValueError(f"vectors {vectors.dtype} {vectors.shape} instead of {plan.space.dtype} {(count, space.dim)}")
    exact = vectors.astype(np.float32)
    if not storable_rows(exact, plan.space.dtype).all():
        raise ValueError("a vector that is zero or not finite")
    if space.unit and count and np.abs(np.linalg.norm(exact, axis=1) - 1).max() > UNIT_TOLERANCE:
        raise ValueError("a vector that is not of unit length")
    return vectors
