"""The shell commands of README and documentation run, in order, in one folder per page."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from embedstore.cli import main
from tests.helpers import document_blocks
from tests.helpers.document_blocks import DOCUMENTS, shell_commands

# Commands that do not run here, by how they begin, and why.
SKIPPED = {
    "pip install": "installs packages",
    "python -m pytest": "this suite",
    "embedstore quickstart": "tests/quickstart runs it",
    "embedstore serve": "a server; tests/server starts it",
    "export EMBEDSTORE_TOKEN": "belongs to the server",
    "curl": "asks the server",
    "accelerate launch": "several processes with a GPU each",
    "sbatch": "a cluster",
    "rclone": "a bucket; tests/engines/test_bucket_mount.py mounts one",
    "rm -r pets.store/spaces": "the same bucket",
    "mkdir pets.store/spaces": "the same bucket",
    "embedstore plan-parts pets.store s3": "a bucket; tests/pipeline/distributed has one",
    "embedstore work s3": "the same bucket",
    "embedstore embed pets.store photos/ --engine": "several GPUs, or a cluster",
    "embedstore replicate": "a database server; tests/engines/test_replica_servers.py has one",
    'embedstore search pets.store "a dog on a beach" --where "split = \'val\'" --replica': "the same server",
    "embedstore embed food.store hf:": "the network",
    "embedstore embed food.store food101": "a downloaded data set; tests/sources has one",
    "embedstore embed pets.store photos/ --watch": "does not end; tests/operations/test_watch.py ends it",
    "embedstore create scans.store --backbone clip --preprocess dicom": "a plug-in; tests/sources has one",
    "embedstore bench": "measures for minutes; tests/quickstart runs it",
    "embedstore finetune cifar.store": "a real data set; docs/benchmarks.md has its figures",
    "embedstore finetune ants.store": "a real data set",
    "embedstore compare-strategies": "trains a dozen networks; tests/finetuning/test_strategies.py runs it",
    "embedstore finetune calls.store": "the extra for adapters; tests/finetuning has one",
}
NETWORKS = {  # networks whose weights are not here, and what stands for them
    "clip": "clip",
    "resnet50": "embedstore/tiny",
    "timm/resnet50": "embedstore/tiny",
    "minilm": "text",
    "hf/sentence-transformers/all-MiniLM-L6-v2": "text",
    "hf/openai/whisper-tiny": "sound",
}
CHANGED = {  # what is smaller here than in a document, or has another name
    "/mnt/": "mnt/",
    "added < '2026-11-01'": "item < 60",  # every item was added just now
    "added >= '2026-11-01'": "item >= 60",
    "--parts 400": "--parts 4",
    "17/400": "2/4",
    "--epochs 20": "--epochs 1",
    "finetune pets.store species": "finetune pets.store species --epochs 1",
    "meta.csv --uri-column": "paths.csv --uri-column",
    "report reviews.csv": "report --backbone minilm reviews.csv",
    "finetune reviews.store sentiment": "finetune reviews.store sentiment --epochs 1",
}
WITH_COMMANDS = [name for name in DOCUMENTS if name != "docs/cli.md" and list(shell_commands(name))]


def skip_reason(command):
    """The beginning of a skipped command that a command has, None if it runs."""
    return next((begin for begin in SKIPPED if command.startswith(begin)), None)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Networks with random weights by the names that stand for them, and a factory of networks as a module."""
    import timm

    from tests.helpers.networks import local_clip, resnet20
    from tests.helpers.sound_models import save_sound_model
    from tests.helpers.text_models import save_model

    folder = tmp_path_factory.mktemp("networks")
    names = {
        "clip": local_clip(folder / "clip"),
        "embedstore/tiny": "embedstore/tiny",
        "text": f"hf/{save_model(folder / 'bert', 'bert')}",
        "sound": f"hf/{save_sound_model(folder / 'whisper', 'whisper')}",
    }
    mobile = timm.create_model("mobilenetv2_100", pretrained=False).state_dict()
    for name in ("W.safetensors", "weights.safetensors"):
        save_file(mobile, folder / name)
    save_file(resnet20().state_dict(), folder / "resnet20.safetensors")
    torch.save(resnet20().state_dict(), folder / "mine.pth")
    (folder / "mynets.py").write_text("from tests.helpers.networks import resnet20\n")
    return folder, names


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, networks):
    """A folder with everything that the documents name."""
    folder = tmp_path_factory.mktemp("documents")
    document_blocks.prepare_pets(folder, networks[1]["clip"])
    document_blocks.prepare_files(folder)
    document_blocks.prepare_texts(folder)
    document_blocks.prepare_sounds(folder)
    for path in networks[0].iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


@pytest.fixture
def shell(prepared, networks, tmp_path, monkeypatch, capfdbinary):
    """A function that runs a command in a copy of the prepared folder."""
    folder = tmp_path / "page"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)

    def run(command):
        for written, here in CHANGED.items():
            command = command.replace(written, here)
        command = command.replace("/old/photos/", f"{prepared}/photos/")
        command = re.sub(r"--backbone (\S+)", lambda m: f"--backbone {stand_in(m[1], networks[1])}", command)
        first, _, rest = command.partition(" | ")
        program, *words = [name for word in shlex.split(first) for name in expand(word)]
        if program == "mkdir":
            subprocess.run([program, *words], check=True)
            return
        assert program == "embedstore", f"{command}: run or skip it"
        if words[0] in ("create", "restore", "import"):  # examples of a page may make the same store
            shutil.rmtree(words[2 if words[0] == "restore" else 1], ignore_errors=True)
        status = status_of(words)
        out, err = capfdbinary.readouterr()
        assert status == 0, f"{command}: {err.decode()}"
        if rest:
            subprocess.run(rest, shell=True, input=out, check=True, stdout=subprocess.DEVNULL, timeout=60)

    return run


def expand(word):
    """Return the files that a pattern of the shell names, or the word itself."""
    return sorted(str(path) for path in Path().glob(word)) or [word] if "*" in word else [word]


def stand_in(name, networks):
    """Return the network that stands for one whose weights are not here; others are taken by their names."""
    return shlex.quote(networks[NETWORKS[name]]) if name in NETWORKS else name


def status_of(words):
    """Run a command of embedstore in this process and return its exit status."""
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_shell_commands_of_a_page_run(name, shell):
    """Every command that is not skipped for a reason, in the order of the page."""
    for command in shell_commands(name):
        if not skip_reason(command):
            shell(command)


def test_every_reason_to_skip_and_every_change_is_needed():
    """A command that left the documents leaves these tables too."""
    commands = [command for name in WITH_COMMANDS for command in shell_commands(name)]
    assert {skip_reason(command) for command in commands} - {None} == SKIPPED.keys()
    assert [text for text in CHANGED if not any(text in c for c in commands)] == []
    named = {m for c in commands for m in re.findall(r"--backbone (\S+)", c)}
    assert NETWORKS.keys() - named == set()
