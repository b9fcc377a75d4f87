"""Run jobs as forks of one process that has imported everything once.

A new interpreter spends more than a second on imports for milliseconds of work. A fork is a separate process with its
own files, locks and connections, and it ends like any other process. The server itself does no work, has one thread and
holds no files. The recorder that is loaded with it does nothing until a job names the folder to watch.
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
class ProcessResult:
    """How a job ended: the exit status as ``subprocess`` reports it, and its output."""

    returncode: int
    stdout: str
    stderr: str


class Process:
    """A running job."""

    def __init__(self, server: "ForkServer", pid: int, folder: Path) -> None:
        self.server, self.pid, self.folder = server, pid, folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the job runs."""
        if self.returncode is None:
            self.returncode = self.server.request({"ended": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = 120.0) -> int:
        """Wait for the end and return the exit status.

        Raises:
            TimeoutError: if the job still runs after ``timeout`` seconds; it is killed.
        """
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} ran for more than {timeout} s")
            time.sleep(0.002)
        return status

    def result(self, timeout: float = 120.0) -> ProcessResult:
        """Wait for the end and return the exit status and the output."""
        status = self.wait(timeout)
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return ProcessResult(status, out, err)


class ForkServer:
    """A process that imports modules and forks jobs.

    Args:
        modules: names of the modules to import.
        preload: a shared library to load before libc.
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
        """Start code in a new process, with ``sys.argv[1:]`` and additional environment variables."""
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        folder.mkdir()
        job = {"code": code, "arguments": [*map(str, arguments)], "env": dict(env or {}), "folder": str(folder)}
        pid = self.request(job)
        assert pid is not None
        return Process(self, pid, folder)

    def run(
        self, code: str, *arguments: object, env: Mapping[str, str] | None = None, timeout: float = 120.0
    ) -> ProcessResult:
        """Run code in a new process and wait for its end."""
        return self.start(code, *arguments, env=env).result(timeout)

    def request(self, what: dict[str, object]) -> int | None:
        """Send one request to the server and return its answer."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()
        answer: int | None = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        """Stop the server."""
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._folder.cleanup()


def serve(modules: list[str]) -> str:
    """Import the modules and fork for every job; return in the forks, with the code to run."""
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
            _set_up_job(job)
            return str(job["code"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)


def _set_up_job(job: dict) -> None:
    """Set the arguments, environment, input and outputs of the job in the fork."""
    sys.argv = ["-c", *job["arguments"]]
    os.environ.update(job["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores SIGINT
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0)
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(job["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), fd)


def execute(code: str) -> int:
    """Run a job as a script and return its exit status."""
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        exec(compile(code, "<job>", "exec"), names)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        names.clear()  # as at the end of an interpreter: close what the job had open
    return 0


if __name__ == "__main__":
    status = execute(serve(sys.argv[1:]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # skip the clean-up of the imported modules
