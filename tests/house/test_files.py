"""Only sources open the file of an item: every other module that opens, asks for or lists files says whose they are."""

import ast

from tests.house.test_architecture import MODULES, PACKAGE

CALLS = {
    *("open", "open_code", "read_bytes", "read_text", "stat", "lstat", "scandir", "iterdir", "glob", "rglob", "walk"),
    *("listdir", "exists", "lexists", "isfile", "isdir", "is_file", "is_dir", "getsize", "getmtime", "imread"),
    *("memmap", "fromfile", "load_file", "safe_open", "PdfDocument", "ZipFile", "SoundFile", "copyfile", "copytree"),
}
# What else is opened: a store, an inbox, an index of the package's own, bytes in memory, standard streams.
OWNERS = {
    *("es", "Storage", "SHARDS", "PartJob", "WorkerInbox", "_Target", "workers", "place", "self", "self._watched"),
    *("reading", "webbrowser", "image_format"),
}
WHOSE = {  # the modules by whose files they open, ask for or list
    "the files of a store, which storage checks first": {
        "classify/head_folder.py",
        "classify/heads/head_files.py",
        "classify/purged_heads.py",
        "classify/registry.py",
        "finetuning/checkpoint.py",
        "finetuning/publish.py",
        "finetuning/resume_state.py",
        "finetuning/tensor_files.py",
        "operations/finetune.py",
        "operations/query_encoder.py",
        "operations/spaces.py",
        "operations/untrusted.py",
        "backbones/runtimes/export.py",
        "backbones/runtimes/onnx_encoder.py",
        "search/index/files.py",
        "search/index/short_rows.py",
    },
    "weights, tokenizers and code of networks": {
        "backbones/custom.py",
        "backbones/open_clip_models.py",
        "backbones/registry.py",
        "backbones/runtimes/bpe.py",
        "backbones/transformers_models/folder.py",
        "backbones/weights.py",
        "classify/heads/linear/backend.py",
        "classify/heads/pretrained_tabular.py",
    },
    "what an export or a report writes": {
        "cli/error_report.py",
        "cli/options.py",
        "exports/arrow_files.py",
        "exports/fiftyone.py",
        "exports/webdataset.py",
        "pipeline/distributed/plan_parts.py",
    },
    "what the user names on the command line: a list of classes, arrays of vectors, a new store": {
        "cli/option_groups.py",
        "quickstart/folder_report.py",
    },
    "the folder or table of an earlier run, whether it is still there": {"operations/checkup.py"},
    "drawn pictures": {
        "quickstart/run.py",
        "quickstart/scenes/collection.py",
        "quickstart/scenes/glyphs.py",
    },
    "a PDF file or a video that sources/parts names, in a process of its own": {
        "media/extraction/pdf.py",
        "media/extraction/video.py",
        "media/extraction/worker.py",
    },
    "what the system says of the machine and the process": {
        "cgroups.py",
        "cli/process_limits.py",
        "cli/streams.py",
        "devices.py",
        "media/worker_process.py",
        "resources.py",
        "timing.py",
    },
    "bytes in memory that have a name": {
        "finetuning/augment.py",
        "quickstart/scenes/paint.py",
        "server/sounds.py",
    },
    "the built page": {"server/app.py"},
    "temporary folders of this process": {"temporary.py"},
}


def opens_a_file(call: ast.Call) -> bool:
    """Return whether a call opens a path, asks for it or lists it; bytes in memory are no path."""
    owner, _, name = ast.unparse(call.func).rpartition(".")
    first = ast.unparse(call.args[0]) if call.args else ""
    in_memory = first.startswith("io.BytesIO(") or (
        name == "open" and owner in ("Image", "tarfile", "wave") and not first
    )
    return name in CALLS and owner not in OWNERS and not in_memory


def modules_with_files():
    """Return the modules outside of sources and storage that open, ask for or list files."""
    return {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] not in ("sources", "storage")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_a_file(node)
    }


def test_only_sources_open_the_file_of_an_item():
    """A module that begins to open files is named here with whose files these are, and they are no items."""
    assert modules_with_files() == set().union(*WHOSE.values())
