"""Stage "decode": several files in a task, in the order of the plan, and an early end."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.pipeline.decode import TASK_FILES, DecodeTasks, PreparedFile, decode_files, in_chunks
from embedstore.pipeline.plan import PlannedFile
from embedstore.pipeline.read import FileContent
from embedstore.pipeline.unstored import ListedFiles
from embedstore.types import Failure, FailureReason, ImageRef


class UpperCase:
    """Decodes bytes to upper case, and fails for ``bad``."""

    def __init__(self):
        self.decoded = []

    def decode_together(self, files):
        """Nothing is decoded at once."""
        return {}

    def decode(self, file, data):
        self.decoded.append(data)
        if data == b"bad":
            return replace(file, failure=Failure.from_ref(file.planned.ref, FailureReason.CORRUPT, "bad"))
        return replace(file, input=data.upper())

    def close(self):
        """Nothing is left running."""


def content(number, data):
    """A file that was read; empty data are a file that could not be."""
    ref = ImageRef(f"{number}", f"{number}", 1, 1, None, None, None)
    failure = None if data else Failure.from_ref(ref, FailureReason.MISSING, "gone")
    return FileContent(PlannedFile(ref, None), data, data.decode(), failure)


names = st.sampled_from([b"", b"bad", *(f"c{n}".encode() for n in range(30))])


@settings(deadline=None)
@given(groups=st.lists(st.lists(names, max_size=60), max_size=4), threads=st.integers(1, 3))
def test_files_keep_their_order_and_each_content_is_decoded_once_per_group(groups, threads):
    """Whatever the sizes of groups: every file is there once, in order, with its own input or its own failure."""
    wanted = [data for group in groups for data in group]
    numbered = iter(range(len(wanted)))
    decoder = UpperCase()
    with ThreadPoolExecutor(threads) as pool:
        read = iter([[content(next(numbered), data) for data in group] for group in groups])
        found = list(decode_files(read, ListedFiles([]), DecodeTasks(decoder, pool, threads)))
    assert [f.planned.ref.uri for f in found] == [str(n) for n in range(len(wanted))]
    assert [f.digest.encode() for f in found] == wanted
    assert all((f.failure is not None) == (f.digest in ("", "bad")) for f in found)
    assert sorted(decoder.decoded) == sorted(data for group in groups for data in set(group) - {b""})
    inputs = [f.input for f in found if f.input is not None]
    assert len(inputs) == sum(len(set(group) - {b"", b"bad"}) for group in groups)


@given(count=st.integers(0, 40), size=st.integers(1, 9), fails=st.booleans())
def test_chunks_lose_nothing_before_an_error(count, size, fails):
    """An error is raised after everything that came before it."""

    def files():
        yield from range(count)
        if fails:
            raise OSError

    found = []
    try:
        for chunk in in_chunks(files(), size):
            assert 1 <= len(chunk) <= size
            found += chunk
    except OSError:
        assert fails
    assert found == list(range(count))


def test_every_thread_has_work_where_files_are_few():
    """Nine files on three threads are nine tasks; hundreds are tasks of several."""
    tasks_of = {}
    with ThreadPoolExecutor(3) as pool:
        for count in (9, 500):
            files = [(PreparedFile(content(n, b"x").planned, f"{n}"), b"x") for n in range(count)]
            running = DecodeTasks(UpperCase(), pool, 3).start(files)
            tasks_of[count] = len(set(running.values()))
            tasks = dict.fromkeys(running.values())
            assert [file.digest for task in tasks for file in task.result()] == list(running)
    assert tasks_of == {9: 9, 500: -(-500 // TASK_FILES)}


def test_a_task_ends_after_the_file_that_it_is_decoding():
    """A run that stops does not wait for the other files of a task."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(UpperCase):
        def decode(self, file, data):
            begun.set()
            go_on.wait(60)
            return super().decode(file, data)

    decoder = Slow()
    with ThreadPoolExecutor(1) as pool:
        tasks = DecodeTasks(decoder, pool, 1)
        files = [(PreparedFile(content(n, b"x").planned, f"{n}"), b"x") for n in range(64)]
        task = tasks.start(files)["0"]
        assert begun.wait(60)
        tasks.stop()
        go_on.set()
        with pytest.raises(CancelledError):
            task.result(60)
        pool.shutdown(cancel_futures=True)
    assert len(decoder.decoded) == 1
