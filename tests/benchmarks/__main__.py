"""Run every benchmark, each in its own process: ``python -m tests.benchmarks [RESULTS.json]``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "timm", "open_clip_torch", "onnxruntime", "faiss-cpu", "scikit-learn", "numpy", "duckdb", "pillow")

ARGUMENTS = {"bench_probe": ["--synthetic", "2000,512,5"]}  # of the benchmarks that need some


def main(results: Path) -> None:
    """Print each table when it is ready, and write the tables so far with the machine and the versions."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }
    versions = {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}}
    tables: dict[str, Any] = {}
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"\n== {path.stem}", flush=True)
        run = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{path.stem}", *ARGUMENTS.get(path.stem, [])],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(run.stdout, end="", flush=True)
        tables[path.stem] = {"status": run.returncode, "table": run.stdout.splitlines()}
        document = {"machine": machine, "versions": versions, "benchmarks": tables}
        results.write_text(json.dumps(document, indent=1) + "\n")  # after each: all of them take hours
    print(f"\nwrote {results}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks.json"))
