"""Processes that begin warm: one interpreter imports everything once, and every job is a fork of it.

A fresh interpreter spends a second and more on imports for milliseconds of work. A fork is a process of its own, with
its own files, locks and connections, and ends as any other does; the one that it comes from does no work, has one
thread and holds nothing. What it is loaded with (the recorder) does nothing until a job says which folder it watches.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}  # fmt: skip

CLI = "from embedstore.cli import main\nmain()"


@dataclass(frozen=True)
class Done:
    """How a job ended: the status as ``subprocess`` gives it, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Process:
    """One job that runs."""

    def __init__(self, server: "Warm", pid: int, folder: Path) -> None:
        self.server, self.pid, self.folder = server, pid, folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        if self.returncode is None:
            self.returncode = self.server.ask({"ended": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As ``kill`` does."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = 120.0) -> int:
        """Its status.

        Raises:
            TimeoutError: it runs still, and was killed.
        """
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} ran for more than {timeout} s")
            time.sleep(0.002)
        return status

    def done(self, timeout: float = 120.0) -> Done:
        """Its end, and what it said."""
        status = self.wait(timeout)
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return Done(status, out, err)


class Warm:
    """An interpreter that has imported modules, and forks.

    Args:
        modules: to import.
        preload: a library that is loaded before libc.
    """

    def __init__(self, *modules: str, preload: Path | None = None) -> None:
        self.preload = preload
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0
        loaded = {"LD_PRELOAD": str(preload)} if preload else {}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.fork_server", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent.parent,
            env={**os.environ, **ONE_THREAD, **loaded},
        )

    def start(self, code: str, *arguments: object, env: Mapping[str, str] | None = None) -> Process:
        """Run code in a process of its own, with ``sys.argv[1:]`` and more environment."""
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        folder.mkdir()
        job = {"code": code, "arguments": [*map(str, arguments)], "env": dict(env or {}), "folder": str(folder)}
        pid = self.ask(job)
        assert pid is not None
        return Process(self, pid, folder)

    def run(self, code: str, *arguments: object, env: Mapping[str, str] | None = None, timeout: float = 120.0) -> Done:
        """The same, to its end."""
        return self.start(code, *arguments, env=env).done(timeout)

    def ask(self, what: dict[str, object]) -> int | None:
        """One question, one number."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()
        answer: int | None = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        """End the interpreter."""
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._folder.cleanup()


def serve(modules: list[str]) -> str:
    """Import, then fork for every job; returns in the forks, with the code that they are to run."""
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork would lack all but one"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        if "ended" in job:
            pid, status = os.waitpid(job["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif pid := os.fork():
            answer = pid
        else:
            _become(job)
            return str(job["code"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)


def _become(job: dict) -> None:
    """Be the job: its arguments, environment, input and outputs."""
    sys.argv = ["-c", *job["arguments"]]
    os.environ.update(job["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where all of this runs in the background
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0)
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(job["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), fd)


def do(code: str) -> int:
    """Run a job as a script; its exit status."""
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        exec(compile(code, "<job>", "exec"), names)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        names.clear()  # as at an interpreter's end: what the job held is closed
    return 0


if __name__ == "__main__":
    status = do(serve(sys.argv[1:]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without taking apart, copy by copy, what was imported
