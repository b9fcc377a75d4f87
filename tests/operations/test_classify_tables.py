"""Tables of new texts or of names are classified by the rules of the one reader of tables, as `embed` reads them."""

import csv

import pytest
import typer.testing

import embedstore as es
from embedstore.cli.app import app
from embedstore.errors import BadEncoding, BadManifest, BadOption
from tests.conftest import picture
from tests.helpers.command_line import command_runner
from tests.helpers.text_models import WORDS, save_model

TEXTS = ["the dog runs; caf\xe9", "the stock market fell", "a small\tred house, old", "\xfcber the beach"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A store of texts with a head, which tells whether a text begins with red or blue."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")
    folder = tmp_path_factory.mktemp("texts")
    rows = [f"{('red', 'blue')[n % 2]} {WORDS[n % 7]} {WORDS[n // 7]},{('warm', 'cold')[n % 2]}\n" for n in range(40)]
    (folder / "t.csv").write_text("text,label\n" + "".join(rows))
    store = es.create(folder / "t.store", f"hf/{save_model(folder / 'bert', 'bert')}", device="cpu")
    store.embed(folder / "t.csv", text_column="text")
    store.probe("label", save_as="warmth")
    return store


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A store of pictures with a head, and a folder of new pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(24):
        path = folder / "old" / ("odd" if n % 2 else "even") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    (folder / "new").mkdir()
    picture(100).save(folder / "new" / "caf\xe9.png")
    store = es.create(folder / "p.store", "embedstore/tiny", device="cpu")
    store.embed(folder / "old")
    store.probe("label", save_as="parity")
    return store


@pytest.fixture
def run(capsys):
    """Run a command: exit status, and what it printed to standard error."""
    return command_runner(capsys)


def write_table(path, texts, *, delimiter=",", encoding="utf-8", before=""):
    """Write texts and a number each as a table."""
    with path.open("w", encoding=encoding, newline="") as file:
        file.write(before)
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(["number", "remark"])
        rows.writerows(enumerate(texts))
    return path


@pytest.mark.parametrize(
    ("name", "written", "options"),
    [
        ("latin.csv", {"encoding": "latin-1"}, {"encoding": "latin-1"}),
        ("windows.tsv", {"encoding": "cp1252", "delimiter": "\t"}, {"encoding": "cp1252"}),
        ("semicolons.csv", {"encoding": "latin-1", "delimiter": ";"}, {"encoding": "iso8859-1"}),
        ("mark.csv", {"encoding": "utf-8-sig"}, {}),
        ("mark16.csv", {"encoding": "utf-16"}, {}),
        ("stated.csv", {"delimiter": "|", "before": "sep=|\r\n"}, {}),
        ("pipes.csv", {"delimiter": "|", "encoding": "utf-16-le"}, {"encoding": "utf-16-le"}),
    ],
)
def test_a_table_in_any_encoding_is_classified_as_it_is_embedded(texts, tmp_path, run, name, written, options):
    """The texts are those that were written, each judged as the same text in a file of its own is."""
    path = write_table(tmp_path / name, TEXTS, **written)
    result = texts.classify(path, "warmth", text_column="remark", **options)
    assert [row.text for row in result] == TEXTS
    for text, row in zip(TEXTS, result, strict=True):
        alone = texts.classify([text.encode()], "warmth")[0]
        assert (row.labels, row.failure) == (alone.labels, None)
        assert row.score == pytest.approx(alone.score, abs=1e-4)
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    command = ["classify", texts.path, "warmth", path, "--text-column", "remark", *arguments]
    assert run(*command, "-o", tmp_path / "judged.csv")[0] == 0
    judged = list(csv.DictReader((tmp_path / "judged.csv").open(newline="", encoding="utf-8")))
    assert [row["text"] for row in judged] == TEXTS


def test_a_table_in_another_encoding_is_one_line_whose_cure_works(texts, tmp_path, run):
    """Without --encoding the message names the option; followed, the table is read."""
    path = write_table(tmp_path / "latin.csv", TEXTS, encoding="latin-1")
    code, printed = run("classify", texts.path, "warmth", path, "--text-column", "remark")
    assert (code, printed.count("\n")) == (1, 1)
    assert "--encoding" in printed
    with pytest.raises(BadEncoding):
        texts.classify(path, "warmth", text_column="remark")
    assert run("classify", texts.path, "warmth", path, "--text-column", "remark", "--encoding", "latin-1")[0] == 0
    with pytest.raises(BadOption, match="no-such"):
        texts.classify(path, "warmth", text_column="remark", encoding="no-such")


def test_what_was_noticed_about_the_table_is_said(texts, tmp_path, run):
    """A delimiter that the suffix does not promise, and texts that were cut, are in the notices and on the screen."""
    path = write_table(tmp_path / "t.csv", ["the dog " * 100, "a cat"], delimiter=";")
    result = texts.classify(path, "warmth", text_column="remark")
    separated, cut = result.notices
    assert "separated by semicolons" in separated
    assert cut.startswith("1 of 2 texts is longer than")
    printed = run("classify", texts.path, "warmth", path, "--text-column", "remark")[1]
    assert separated in printed
    assert cut in printed
    assert result.to_json()["notices"] == [separated, cut]


def test_files_of_other_kinds_in_a_folder_are_counted(texts, tmp_path):
    """A folder of texts and other files: what was left out is named with its number."""
    (tmp_path / "a.txt").write_text("a red dog")
    for n in range(3):
        (tmp_path / f"{n}.exe").write_bytes(b"")
    result = texts.classify(tmp_path, "warmth")
    assert (len(result), result.notices) == (1, ("3 skipped (3 .exe)",))


@pytest.mark.parametrize("encoding", [None, "latin-1"])
def test_a_table_of_names_is_classified(pictures, tmp_path, run, encoding):
    """A column of another name, relative to another folder, in another encoding: as `embed` reads a manifest."""
    folder = pictures.path.parent / "new"
    (tmp_path / "t.csv").write_text("photo;n\ncaf\xe9.png;1\nnot-there.png;2\n", encoding=encoding or "utf-8")
    options = ["--uri-column", "photo", "--root", folder, *(["--encoding", encoding] if encoding else [])]
    assert run("classify", pictures.path, "parity", tmp_path / "t.csv", *options, "-o", tmp_path / "j.csv")[0] == 0
    result = pictures.classify(tmp_path / "t.csv", "parity", uri_column="photo", root=folder, encoding=encoding)
    alone = pictures.classify(folder / "caf\xe9.png", "parity")[0]
    assert (result[0].labels, result[0].score) == (alone.labels, pytest.approx(alone.score, abs=1e-4))
    assert result[1].failure.startswith("missing")


def test_classified_rows_are_added_by_the_same_rules(texts, tmp_path, run):
    """--add reads the table as it was classified: encoding and delimiter too."""
    path = write_table(tmp_path / "t.csv", ["a very caf\xe9"], encoding="latin-1", delimiter=";")
    command = ["classify", texts.path, "warmth", path, "--text-column", "remark", "--encoding", "latin-1", "--add"]
    assert run(*command)[0] == 0
    rows = es.open(texts.path).sql("SELECT remark, number FROM items WHERE remark IS NOT NULL").rows
    assert rows == (("a very caf\xe9", 0),)


@pytest.mark.parametrize("option", [["--encoding", "latin-1"], ["--uri-column", "a"], ["--root", "/"]])
def test_options_of_tables_go_with_a_table(texts, tmp_path, run, option):
    """For files, for standard input and for texts in memory they are refused."""
    (tmp_path / "a.txt").write_text("a red dog")
    code, printed = run("classify", texts.path, "warmth", tmp_path / "a.txt", *option)
    assert (code, printed.count("\n")) == (1, 1)
    assert "is not a table" in printed
    done = typer.testing.CliRunner().invoke(app, ["classify", str(texts.path), "warmth", "-", *option], input="a dog")
    assert done.exit_code == 2
    keyword = {option[0].removeprefix("--").replace("-", "_"): option[1]}
    with pytest.raises(BadOption, match="file of a table"):
        texts.classify([b"a dog"], "warmth", **keyword)
    with pytest.raises(BadManifest):
        texts.classify([tmp_path / "a.txt"], "warmth", **keyword)


def test_a_report_reads_a_table_by_the_same_options(tmp_path, run):
    """`report` on a table in another encoding: one line without --encoding, a page with it."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")
    rows = [f"{('red', 'blue')[n % 2]} {WORDS[n % 7]} {WORDS[n // 7]} caf\xe9;{'wc'[n % 2]}\n" for n in range(40)]
    (tmp_path / "t.csv").write_text("text;label\n" + "".join(rows), encoding="latin-1")
    model = save_model(tmp_path / "bert", "bert")
    command = ["report", tmp_path / "t.csv", "--text-column", "text", "--backbone", f"hf/{model}"]
    command += ["-o", tmp_path / "r.html"]
    code, printed = run(*command)
    assert code == 1
    assert "--encoding latin-1" in printed.splitlines()[-1]
    assert run(*command, "--encoding", "latin-1")[0] == 0
    assert "red the the caf\xe9" in {
        text for (text,) in es.open(tmp_path / "t.store").sql("SELECT text FROM items").rows
    }
