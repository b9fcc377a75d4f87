"""Switch off what libraries report or leave behind: usage statistics, device ids, caches in the home folder.

The package imports this module first, because a library reads its environment when it is imported. A variable that the
user has set stays. The variables are those that the libraries document:

- ``ORT_DISABLE_TELEMETRY``: onnxruntime writes a device id and a database of events below ``~/.cache/Microsoft``.
- ``RAY_USAGE_STATS_ENABLED``: a cluster that Ray starts reports facts about itself.
- ``HF_HUB_DISABLE_TELEMETRY``: huggingface_hub adds facts about this machine to its requests.
"""

from __future__ import annotations

import os
import sys

from embedstore.temporary import new_folder

_OFF = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
_MATPLOTLIB_FOLDER = "MPLCONFIGDIR"


def switch_off_telemetry() -> None:
    """Set the environment variables that switch it off, for this process and those that it starts."""
    for name, value in _OFF.items():
        os.environ.setdefault(name, value)


def use_temporary_matplotlib_folder() -> None:
    """Keep the list of fonts that matplotlib writes in a folder that this process removes, not in the home folder."""
    if _MATPLOTLIB_FOLDER in os.environ or "matplotlib" in sys.modules:
        return
    os.environ[_MATPLOTLIB_FOLDER] = str(new_folder("matplotlib-"))
