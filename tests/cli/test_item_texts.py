"""Printed tables of items that are rows of a table of texts show the texts."""

import pytest

import embedstore as es
from embedstore.cli import main
from tests.helpers.parquet_files import IMAGE, hf_rows, png, write_hf
from tests.helpers.text_models import WORDS, save_model


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Forty texts of two labels, the last of them a copy of the one before it, and one without a label."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")
    folder = tmp_path_factory.mktemp("texts")
    rows = [f"{('red', 'blue')[n % 2]}   {WORDS[n % 7]} {WORDS[n // 7]},{('warm', 'cold')[n % 2]}" for n in range(39)]
    long = "very old house " * 9
    table = ["The Text,label", "a small dog,cold", *rows, rows[-1], f"{long},"]
    (folder / "t.csv").write_text("\n".join(table))
    store = es.create(folder / "t.store", f"hf/{save_model(folder / 'bert', 'bert')}", device="cpu")
    store.embed(folder / "t.csv", text_column="The Text")
    return store.path


@pytest.fixture
def printed(capsys):
    """Run a command and return what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        assert end.value.code == 0
        return capsys.readouterr().out

    return run


def test_hits_show_their_texts(texts, printed):
    """The first hit of a text is that text; a long one is cut, on one line."""
    header, first = printed("search", texts, "a small dog", "-k", "1").splitlines()
    assert header.split() == ["rank", "score", "item", "label", "split", "text", "uri"]
    assert "  a small dog  " in first
    assert f"  {('very old house ' * 9)[:59]}…  " in printed("search", texts, "dog", "--where", "label is null")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["duplicates", "--threshold", "1"], "red cat sleeps"),
        (["label-errors", "--all", "--limit", "100"], "a small dog"),
        (["suggest-labels", "-k", "5"], "very old house"),
    ],
)
def test_other_tables_of_items_show_them_too(texts, printed, command, text):
    """Copies, doubtful labels and suggestions are judged by their texts."""
    verb, *options = command
    assert f" {text}" in printed(verb, texts, *options)


def test_images_in_rows_have_no_text(printed, tmp_path):
    """Their uris name a column too, of bytes, which the items do not have."""
    write_hf(tmp_path / "i.parquet", {"image": hf_rows([png(0), png(0)])}, {"image": IMAGE})
    images = es.create(tmp_path / "i.store", "embedstore/tiny", device="cpu")
    images.embed(tmp_path / "i.parquet")
    for command in (["search", images.path, "--item", "1"], ["duplicates", images.path]):
        header, first, *_ = printed(*command).splitlines()
        assert "text" not in header.split()
        assert "#column=" in first
