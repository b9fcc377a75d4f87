"""Write the types of the page from the description of the API: ``python -m tools.page_types [FILE]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from embedstore.temporary import temporary_folder
from tools.openapi import render

WEB = Path(__file__).parents[1] / "web"
TYPES = WEB / "src" / "api.d.ts"
PROGRAM = WEB / "node_modules" / "openapi-typescript" / "bin" / "cli.js"


def write_types(path: Path) -> None:
    """Write the types of every body and route; `hatch_build.py` installs the program that makes them.

    Args:
        path: of the file.
    """
    with temporary_folder() as folder:
        description = folder / "openapi.json"
        description.write_text(render(), encoding="utf-8")
        # a value with a default may be left out of a request
        options = ["--default-non-nullable=false", "--output", str(path.resolve())]
        command = ["node", str(PROGRAM), str(description), *options]
        subprocess.run(command, cwd=WEB, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    write_types(Path(sys.argv[1]) if sys.argv[1:] else TYPES)
