"""Results and plans of parts are files that anybody may have written."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from embedstore.errors import StoreDamaged, UnsafeStore
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.part_list import PartFile, decode_list, encode_list
from embedstore.storage.inbox.part_result import decode_result, encode_result, result_digest
from embedstore.storage.inbox.register import Registrar
from embedstore.storage.inbox.work_plan import parse_plan, split_evenly
from embedstore.storage.integrity.verify import verify
from embedstore.storage.storage import Storage
from embedstore.types import ImageRef
from tests.helpers.parts import as_other_part, make_store_with_results, result, write_plan
from tests.helpers.vector_stores import SPACE, expected, make, rows


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A plan of two parts of four items, and the bytes of a result of its first part."""
    path = tmp_path_factory.mktemp("plan") / "s"
    make(path)
    inbox, plan = write_plan(path, parts=2, size=4, first=1)
    return inbox, plan, encode_result(plan, result(1, size=4, first=1, failed=1))


def tampered(data: bytes, **changes) -> bytes:
    """Return a result with other tensors; a function changes the JSON of `facts` or the lines of `rows`."""
    tensors = load(data)
    for name, change in changes.items():
        if name == "facts":
            facts = json.loads(tensors["facts"].tobytes())
            facts |= change
            tensors["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        elif name == "rows":
            lines = change([json.loads(line) for line in tensors["rows"].tobytes().splitlines()])
            tensors["rows"] = np.frombuffer("".join(json.dumps(line) + "\n" for line in lines).encode(), np.uint8)
        else:
            tensors[name] = change(tensors[name])
    return save(tensors)


def first_row(row):
    return lambda lines: [row, *lines[1:]]


CHANGES = {
    "another plan": {"facts": {"plan": "f" * 32}},
    "another space": {"facts": {"space": "f" * 16}},
    "another part": {"facts": {"part": 2}},
    "another list": {"facts": {"list": "f" * 32}},
    "a later format": {"facts": {"format": 2}},
    "a decoder that is no text": {"facts": {"decoder": ["x"]}},
    "a file too few": {"rows": lambda lines: lines[:-1]},
    "a file too many": {"rows": lambda lines: [*lines, lines[0]]},
    "a row that is no list": {"rows": first_row({"a": 1})},
    "a content that is no digest": {"rows": first_row(["../../etc/passwd"])},
    "a content that is a number": {"rows": first_row([7])},
    "a reason that is none": {"rows": first_row([None, "because", "x"])},
    "a detail that is no text": {"rows": first_row([None, "corrupt", 7])},
    "a detail with a lone surrogate": {"rows": first_row([None, "corrupt", "\ud800"])},
    "a width below zero": {"rows": first_row(["0" * 32, -1, 1, "PNG"])},
    "a width that no column holds": {"rows": first_row(["0" * 32, 1 << 40, 1, "PNG"])},
    "a format that is a page": {"rows": first_row(["0" * 32, 1, 1, "x" * 1000])},
    "vectors of another dimension": {"vectors": lambda v: v[:, :3]},
    "vectors of another type": {"vectors": lambda v: v.astype(np.float32)},
    "vectors that are one number": {"vectors": lambda v: v.reshape(-1)},
    "a vector too few": {"vectors": lambda v: v[:-1]},
    "a vector that is not finite": {"vectors": lambda v: np.vstack([v[:1] * np.float16("nan"), v[1:]])},
    "a vector of zeros": {"vectors": lambda v: v * 0},
    "contents of another length": {"contents": lambda c: c[:, :15]},
    "two vectors of one content": {"contents": lambda c: np.repeat(c[:1], len(c), 0)},
    "vectors of contents that no file has": {"contents": lambda c: c + 1},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_that_embedstore_does_not_write_is_refused(planned, change):
    """Whatever one value is changed to, the result is no result of its part."""
    inbox, plan, data = planned
    files = inbox.read_list(plan, 1)
    assert len(decode_result(data, plan, files, part=1).contents) == 3
    other = tampered(data, **CHANGES[change])
    with pytest.raises(StoreDamaged, match="not a result of part 1"):
        decode_result(other, plan, files, part=1)


@given(st.data())
def test_changed_bytes_are_refused_or_still_a_result(planned, data):
    """Any bytes in place of a result raise StoreDamaged, or decode to as many outcomes as the part has files."""
    inbox, plan, original = planned
    files = inbox.read_list(plan, 1)
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(changed), data.draw(st.integers(0, len(changed)))]))
    try:
        found = decode_result(bytes(changed[:cut]), plan, files, part=1)
    except StoreDamaged:
        return
    assert len(found.outcomes) == len(files)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=8), st.integers(0, 1 << 62), st.none() | NAMES), max_size=5))
def test_a_list_keeps_every_name(files):
    """Names that are not UTF-8, labels with any character and large numbers survive."""
    listed = [
        PartFile(ImageRef(uri, uri + os.fsdecode(tail), n, -n, label, None, label), n if n % 2 else None)
        for uri, tail, n, label in files
    ]
    data = encode_list(listed)
    assert decode_list(data, where="x", files=len(listed), xxh3=result_digest(data)) == listed


def test_a_list_of_another_part_is_refused(planned):
    """A list is compared with the checksum in the plan, and holds the values that a list has."""
    inbox, plan, _ = planned
    data = encode_list(inbox.read_list(plan, 1))
    for other in (data[:-3], data + data, b"[]\n" * 4, b'["a",null,"b",0,null,null,null,null]\n' * 4):
        with pytest.raises(StoreDamaged, match="not the list of its part"):
            decode_list(other, where="x", files=4, xxh3=result_digest(data))
        with pytest.raises(StoreDamaged, match="not the list of its part"):
            decode_list(other, where="x", files=3, xxh3=result_digest(other))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda s: st.lists(s, max_size=3))


@given(st.sampled_from(["format", "plan", "space", "source", "files", "counts", "parts", "engine"]), JSON)
def test_a_plan_with_another_value_is_refused(planned, name, value):
    """Whatever a field of a plan holds, it is the plan's own type or the plan is damaged."""
    _, plan, _ = planned
    values = json.loads(json.dumps(plan.to_json())) | {name: value}
    try:
        parse_plan(values, "plan.json", SPACE.key)
    except StoreDamaged:
        return
    assert name in ("engine", "format", "plan"), (name, value)


def test_the_unit_of_the_counts_is_a_known_word(planned):
    """A plan counts files, rows or items; one without the word counts files, and another word is damage."""
    _, plan, _ = planned
    values = json.loads(json.dumps(plan.to_json()))
    for unit in ("file", "row", "item"):
        assert parse_plan(values | {"counts": {"found": 3, "unit": unit}}, "p", SPACE.key).counts["unit"] == unit
    assert parse_plan(values | {"counts": {"found": 3}}, "p", SPACE.key).counts["unit"] == "file"
    for unit in ("\x1b[2J", 3, None, ["file"]):
        with pytest.raises(StoreDamaged):
            parse_plan(values | {"counts": {"found": 3, "unit": unit}}, "p", SPACE.key)


def test_a_plan_of_another_space_is_refused(planned):
    """A plan belongs to the folder that it is in."""
    _, plan, _ = planned
    with pytest.raises(StoreDamaged, match="another space"):
        parse_plan(plan.to_json(), "plan.json", "0" * 16)


def test_a_link_in_the_inbox_is_not_followed(tmp_path):
    """A store whose inbox holds a link is not opened."""
    inbox = make_store_with_results(tmp_path / "s")
    (tmp_path / "secret").write_text("x")
    (inbox.folder / "000000002-00.part").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeStore):
        Storage.open(tmp_path / "s")


def test_the_result_of_a_part_under_the_name_of_another_is_refused(tmp_path):
    """A result names its part itself; under another name it is quarantined and counted."""
    make(tmp_path / "s", 8)
    inbox, plan = write_plan(tmp_path / "s", parts=2, size=8, first=9)
    path = inbox.folder / inbox.put_result(plan, result(1, size=8, first=9))
    path.rename(path.with_name(path.name.replace("000000001", "000000002")))
    inbox.put_result(plan, as_other_part(result(1, size=8, first=9), 1))
    (inbox.folder / "000000009-00000000000000000000000000000000.part").write_bytes(b"")
    storage = Storage.open(tmp_path / "s")
    with storage.writer("test") as writer:
        registrar = Registrar(writer, inbox)
        assert registrar.register_waiting() == 1
    assert (registrar.left, len(registrar.total.torn)) == ([2], 2)
    assert rows(storage) == expected(16)
    assert verify(storage).ok


def test_a_failure_and_a_vector_arrive_from_one_part(tmp_path):
    """Failures of a part are rows of `failures`, with the decoder of the worker."""
    make(tmp_path / "s", 8)
    inbox, plan = write_plan(tmp_path / "s", parts=1, size=4, first=9)
    inbox.put_result(plan, result(1, size=4, first=9, failed=3))
    storage = Storage.open(tmp_path / "s")
    with storage.writer("test") as writer:
        registrar = Registrar(writer, Inbox(storage.layout, SPACE.key))
        registrar.register_waiting()
        assert registrar.finish()
    assert rows(storage) == expected(9)
    assert storage.sql("SELECT reason, decoder, count(*) FROM failures GROUP BY ALL")[1] == [("corrupt", "decoder", 3)]


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_parts_are_even(files, parts):
    """Every file is in one part, no part is empty, and sizes differ by one at most."""
    sizes = split_evenly(files, parts)
    assert sum(sizes) == files
    assert len(sizes) == min(files, parts)
    assert max(sizes) - min(sizes) <= 1
