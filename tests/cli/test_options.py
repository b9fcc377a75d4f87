"""Options of the command line: the defaults of the Python API, and files that cannot be read or written."""

import inspect
import json
from pathlib import Path

import pytest

import embedstore as es
from embedstore.cli import load_commands
from embedstore.cli.app import app
from embedstore.finetuning.settings import AugmentationSettings, FinetuneSettings
from tests.helpers.clusters import clusters, store_of
from tests.helpers.command_line import command_runner

load_commands()
VERBS = {c.name or c.callback.__name__: c.callback for c in app.registered_commands}
FUNCTIONS = {
    "create": es.create,
    "import": es.import_store,
    "restore": es.restore,
    "repair": es.repair_store,
    "index": es.Store.build_index,
}
OTHER_NAMES = {("knn", "neighbor_weights"): "weights", ("edit", "add_columns"): "create_columns"}
DIFFERENT = {
    ("checkup", "budget"): "60s on the command line are 60 seconds in Python",
    ("duplicates", "threshold"): "auto on the command line is None in Python",
    ("search", "k"): "with --min-score, the command line returns every hit, as k=None does in Python",
    ("embed", "runtime"): "the option is that of embedstore.open, which embed() takes by default",
}
SETTINGS = {
    f.name: f.default for c in (FinetuneSettings, AugmentationSettings) for f in c.__dataclass_fields__.values()
}


def defaults(function):
    """The defaults of a function by name."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def plain(value):
    """A default as both faces can write it: lists as text with commas, nothing as None."""
    if isinstance(value, str) or value is None:
        return value or None
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or None
    return value or None


PAIRS = [
    (verb, name, default)
    for verb, callback in VERBS.items()
    for name, default in defaults(callback).items()
    if (verb, name) not in DIFFERENT
]


@pytest.mark.parametrize(("verb", "name", "default"), PAIRS, ids=[f"{v}-{n}" for v, n, _ in PAIRS])
def test_an_option_has_the_default_of_the_python_api(verb, name, default):
    """Where the method of the same name has the keyword, or fine-tuning the setting."""
    function = FUNCTIONS.get(verb) or getattr(es.Store, verb.replace("-", "_"), None)
    known = defaults(function) if callable(function) else {}
    if verb in ("finetune", "compare-strategies"):
        known = SETTINGS | known
    name = OTHER_NAMES.get((verb, name), name)
    if name in known:
        assert plain(default) == plain(known[name])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """30 rows of three classes."""
    X, y = clusters(30)
    return store_of(tmp_path_factory.mktemp("options") / "s", X, label=y).path


@pytest.fixture
def run(capsys):
    """Run a command: exit status, and what it printed to standard error."""
    return command_runner(capsys)


def test_missing_parent_folders_of_a_file_are_made(store, tmp_path, run):
    """For every verb that writes a file."""
    new = tmp_path / "a" / "b"
    assert run("search", store, "--item", 1, "-o", new / "1" / "hits.csv")[0] == 0
    assert run("probe", store, "--head", "ridge", "--save", "kept", "-o", new / "2" / "report.html")[0] == 0
    assert run("map", store, "-o", new / "3" / "map.html")[0] == 0
    assert run("export", store, new / "4" / "items.parquet")[0] == 0
    assert run("export-head", store, "kept", new / "5" / "head.npz")[0] == 0
    assert len(list(new.glob("*/*"))) == 5


@pytest.mark.parametrize(
    ("verb", "file"),
    [
        (["search", "STORE", "--item", "1", "-o"], "hits.html"),
        (["probe", "STORE", "--head", "ridge", "-o"], "report.html"),
        (["map", "STORE", "-o"], "map.png"),
        (["export", "STORE"], "items.parquet"),
        (["export", "STORE"], "items.npy"),
        (["export-head", "STORE", "kept"], "head.npz"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(store, tmp_path, run, verb, file):
    """The parent is a file: exit status 1, and the line names the file."""
    run("probe", store, "--head", "ridge", "--save", "kept")
    (tmp_path / "parent").write_text("a file")
    target = tmp_path / "parent" / file
    status, err = run(*[store if a == "STORE" else a for a in verb], target)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"embedstore: cannot write {target}")
    assert (tmp_path / "parent").read_text() == "a file"


@pytest.mark.parametrize("verb", ["search", "probe", "knn", "map", "label-errors", "duplicates", "compare-heads"])
@pytest.mark.parametrize("name", ["folder.html", "report.txt", "report"])
def test_an_output_that_a_verb_cannot_write_is_a_usage_error(tmp_path, run, verb, name):
    """It is refused before the store is opened: here there is none."""
    (tmp_path / "folder.html").mkdir()
    status, err = run(verb, tmp_path / "nowhere", *(["a"] if verb == "search" else []), "-o", tmp_path / name)
    assert status == 2
    assert "Traceback" not in err
    assert "-o" in err


@pytest.mark.parametrize("option", ["--classes", "--templates", "--prompts", "--class-vectors"])
@pytest.mark.parametrize("content", [b"\xfa\xfb\xff\xfe", b""])
def test_a_file_of_classes_that_cannot_be_read_is_a_usage_error(store, tmp_path, run, option, content):
    """The error names the option and the file."""
    file = tmp_path / "classes.bin"
    file.write_bytes(content)
    status, err = run("zero-shot", store, "label", option, file)
    assert status == 2
    assert option in err
    assert "Traceback" not in err


def test_a_file_without_permission_is_a_usage_error(ordinary, run):
    """Class names in a file that the user may not read."""
    X, y = clusters(9)
    store = store_of(ordinary / "s", X, label=y).path
    file = ordinary / "names.txt"
    file.write_text("a\nb\n")
    file.chmod(0)
    status, err = run("zero-shot", store, "label", "--classes", file)
    assert status == 2
    assert "Permission denied" in err


def test_a_long_sentence_is_no_path(store, run):
    """A prompt template that is longer than a file name may be is a template."""
    status, err = run("zero-shot", store, "label", "--templates", "a photo of a {} " + "and more " * 60)
    assert status == 1
    assert "has no text tower" in err


def test_a_prompt_that_is_no_text_is_refused(store, tmp_path, run):
    """One line, no traceback."""
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"c0": 3, "c1": ["a photo"]}))
    status, err = run("zero-shot", store, "label", "--prompts", file)
    assert status in (1, 2)
    assert len(err.strip().splitlines()) <= 4


def test_help_texts_are_sentences():
    """Every verb and every option ends with a full stop, and no default is written twice."""
    import typer

    group = typer.main.get_command(app)
    for verb, command in group.commands.items():
        assert command.help, verb
        for parameter in command.params:
            text = getattr(parameter, "help", "")
            if parameter.name != "help":
                assert text, (verb, parameter.name)
                assert text.rstrip().endswith((".", ".).", "?")) or text.endswith('".'), (verb, parameter.name, text)
                assert "[" not in text or "Cs=[" in text or "[prompts]" in text, (verb, parameter.name, text)


def test_an_output_that_is_a_folder_name_is_not_created(store, tmp_path, run):
    """A refused output leaves nothing behind."""
    run("probe", store, "-o", tmp_path / "x" / "report.txt")
    assert not Path(tmp_path / "x").exists()


@pytest.mark.parametrize("output", ["file", "file/folder"])
def test_a_quickstart_into_a_file_is_one_line(tmp_path, run, output):
    """The folder that is named is a file, or is in one."""
    (tmp_path / "file").write_text("a file")
    status, err = run("quickstart", "-o", tmp_path / output)
    assert status == 1
    assert err.startswith(f"embedstore: cannot write {tmp_path / output}")


def test_a_word_too_many_is_answered_with_quotes_or_the_option_of_a_backbone(tmp_path, run):
    """`search STORE a dog` and `create STORE timm/resnet50`; the first with quotes then only lacks its store."""
    status, said = run("search", tmp_path / "s", "a", "dog")
    assert status == 2
    assert 'put quotes around words that belong together ("a dog")' in said
    assert "--backbone" not in said
    assert run("search", tmp_path / "s", "a dog")[0] == 1
    status, said = run("create", tmp_path / "s", "embedstore/tiny")
    assert status == 2
    assert "a backbone is named with --backbone NAME" in said
    assert run("create", tmp_path / "s", "--backbone", "embedstore/tiny")[0] == 0
