"""A text that is longer than the network reads is said, wherever a text is encoded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from embedstore.backbones.runtimes import bpe
from embedstore.cli import main

LONG = "a photo of a dog " * 30
LENGTH = 77


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four pictures of two classes, embedded by the bundled network."""
    folder = tmp_path_factory.mktemp("cut")
    for n in range(8):
        path = folder / "photos" / ("ab"[n % 2]) / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (30 * n, 255 * (n % 2), 9)).save(path)
    made = es.create(folder / "s", "embedstore/tiny")
    made.embed(folder / "photos")
    return made


def test_a_search_notes_a_text_that_is_cut_in_any_part(store):
    """Query, plus, minus, like, unlike, and a template; short texts have no note."""
    assert store.search("a dog").notes == ()
    for parts in (
        {"query": LONG},
        {"query": "a dog", "plus": [LONG]},
        {"query": "a dog", "minus": [(LONG, 0.5)]},
        {"like": [LONG]},
        {"like": ["a dog"], "unlike": [LONG]},
        {"query": "a dog", "templates": f"{LONG} {{}}"},
    ):
        (note,) = store.search(**parts).notes
        assert "longer than the network reads" in note
        assert "a photo of a dog a photo of a dog" in note
    assert store.search(LONG).to_json()["notes"] == list(store.search(LONG).notes)


def test_classes_and_templates_that_are_cut_are_noted(store):
    """In the classifier, and in the notices of the store."""
    assert store.zero_shot(["a cat", "a dog"]).notes == ()
    two = [f"{LONG} one", f"{LONG} two"]
    for classes, templates in ((two, "name"), ({"a": two[0], "b": [two[1]]}, "photo"), (["a", "b"], [f"{LONG} {{}}"])):
        (note,) = store.zero_shot(classes, templates=templates).notes
        assert "(and 1 other)" in note
        assert note in store.notices


@pytest.mark.parametrize(
    "words",
    [["search", "STORE", LONG], ["zero-shot", "STORE", "--classes", f"{LONG},b"], ["few-shot", "STORE", "--classes",
     f"{LONG},a", "--shots", "1"]],
)  # fmt: skip
def test_the_command_line_prints_the_note(store, capsys, words):
    """On the error output; the result is printed as ever."""
    with pytest.raises(SystemExit):
        main([str(store.path) if w == "STORE" else w for w in words])
    assert "longer than the network reads" in capsys.readouterr().err


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=150), st.integers(0, 80))
def test_a_text_is_cut_if_its_end_changes_nothing(store, text, words):
    """With and without PyTorch; the number of tokens decides, not that of characters."""
    text += " dog" * words
    backbone = store.backbone()
    merges = backbone.bpe_merges
    is_cut = bpe.is_cut(text, LENGTH, merges)
    assert is_cut == (len(bpe.load_vocabulary(merges).encode(text)) > LENGTH - 2)
    if backbone.tokenize([text]).shape[1] == LENGTH:
        assert (backbone.cut_texts([text]) == [text]) == is_cut
