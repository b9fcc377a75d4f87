"""Networks of texts by `hf/FOLDER`: pooling by their nature, and vectors that do not depend on the batch."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from embedstore.backbones import load, resolve_name
from embedstore.errors import (
    BadBackbone,
    BadOption,
    MissingExtra,
    TextError,
    UnknownBackbone,
    WeightsMismatch,
    WeightsNotFound,
)
from embedstore.modality import Modality
from embedstore.space import Recipe, Space
from tests.helpers.text_models import FAMILIES, WORDS, items, library_vectors, load_folder, save_model

pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")

MIN_COSINE = 0.99999
texts_of_words = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=70).map(" ".join), min_size=1, max_size=9
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder per family."""
    root = tmp_path_factory.mktemp("models")
    return {family: save_model(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def backbones(folders):
    """One loaded backbone per family."""
    return {family: load_folder(folder) for family, folder in folders.items()}


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


NATURE = {  # by hand: the first, the last, the mean, or the mean weighted by position
    "bert": lambda h: h.mean(axis=0),
    "distilbert": lambda h: h.mean(axis=0),
    "roberta": lambda h: h.mean(axis=0),
    "t5": lambda h: h.mean(axis=0),
    "gpt2": lambda h: (h * np.arange(1, len(h) + 1)[:, None]).sum(axis=0) / np.arange(1, len(h) + 1).sum(),
    "xlnet": lambda h: h[-1],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_vector_of_the_library_pooled_by_the_nature_of_the_network(family, folders, backbones):
    """Alone and in a batch with longer ones, the vector is transformers' own for the text alone, pooled by hand."""
    texts = ["the dog runs", "a cat", "the big old dog sleeps on the beach and the stock market fell very"]
    vectors = items(backbones[family], texts)
    expected = np.stack([NATURE[family](library_vectors(folders[family], text)) for text in texts])
    assert cosines(vectors, expected).min() >= MIN_COSINE
    assert np.abs(cosines(vectors[:1], expected[1:2])) < 0.999, "the comparison can tell two texts apart"


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(texts=texts_of_words, rows=st.integers(1, 4), pass_length=st.integers(1, 200))
def test_a_vector_does_not_depend_on_its_batch(family, backbones, texts, rows, pass_length):
    """Whatever the lengths, the number of texts and the size of a pass, every text has the vector that it has alone."""
    backbone = backbones[family]
    alone = np.concatenate([items(backbone, [text]) for text in texts])
    before = backbone._runner.batch_size, backbone._pass_length
    backbone._runner.batch_size, backbone._pass_length = rows, pass_length
    try:
        together = items(backbone, texts)
    finally:
        backbone._runner.batch_size, backbone._pass_length = before
    assert cosines(alone, together).min() >= MIN_COSINE


@pytest.mark.parametrize("family", ["gpt2", "xlnet", "bert"])
def test_the_side_on_which_a_tokenizer_pads_does_not_matter(family, tmp_path):
    """A tokenizer that pads left gives the vectors of one that pads right."""
    texts = ["the dog", "a very old cat sleeps in the big red house"]
    left, right = (
        items(load_folder(save_model(tmp_path / side, family, padding_side=side)), texts) for side in ("left", "right")
    )
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("pool", "by_hand"),
    [
        ("cls", lambda h: h[0]),
        ("last", lambda h: h[-1]),
        ("max", lambda h: h.max(axis=0)),
        ("mean", lambda h: h.mean(axis=0)),
        ("mean-sqrt", lambda h: h.sum(axis=0) / np.sqrt(len(h))),
        ("cls+mean", lambda h: np.concatenate([h[0], h.mean(axis=0)])),
    ],
)
def test_every_pooling_is_over_the_real_tokens(pool, by_hand, folders):
    """`--pool` gives what numpy gives for the tokens of the text alone, next to a longer text."""
    texts = ["the dog runs", "the big old dog sleeps on the beach and the stock market fell"]
    vectors = items(load_folder(folders["bert"], pool=pool), texts)
    expected = np.stack([by_hand(library_vectors(folders["bert"], text)) for text in texts])
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-4)


def test_a_layer_is_the_hidden_state_of_that_number(folders):
    """`--layer 1` is the output of the first block; -1 and the last number are `last`."""
    from transformers import AutoModel, AutoTokenizer

    folder = folders["bert"]
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(
            **AutoTokenizer.from_pretrained(folder)("the dog runs", return_tensors="pt"), output_hidden_states=True
        )
    for layer in ("3", "--1", "²"):
        with pytest.raises(BadBackbone, match="has the layers 0 to 2"):
            load_folder(folder, layer=layer)
    for layer, index in (("0", 0), ("1", 1), ("-2", 1), ("2", 2), ("-1", 2)):
        backbone = load_folder(folder, layer=layer)
        expected = states.hidden_states[index][0].mean(dim=0).numpy()
        np.testing.assert_allclose(items(backbone, ["the dog runs"])[0], expected, rtol=1e-3, atol=1e-4)
        assert backbone.space.layer == ("last" if index == 2 else str(index))


def test_the_space_records_how_texts_are_read_and_can_be_read_again(folders, backbones):
    """Pooling, layer, tokenizer, length and prompts are facts of the space; its JSON gives the same key."""
    space = backbones["bert"].space
    assert (space.modality, space.text, space.preprocess) == (Modality.TEXT, True, None)
    assert (space.layer, space.pool, space.input.max_length) == ("last", "mean", 64)
    assert space.input.tokenizer.startswith("sha256:")
    assert Space.from_json(space.to_json()) == space
    assert Space.from_json(space.to_json()).key == space.key
    assert load_folder(folders["bert"]).space.key == space.key
    keys = {space.key}
    for change in ({"max_length": 32}, {"long": "windows"}, {"prompt": "a "}, {"query_prompt": "a "}):
        keys.add(load_folder(folders["bert"], preprocess=change).space.key)
    keys.add(load_folder(folders["bert"], pool="cls").space.key)
    assert len(keys) == 6


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_long_text_is_cut_or_read_in_windows(family, folders):
    """Cut, a text has the vector of its first tokens; in windows, the mean of theirs weighted by their tokens."""
    cut = load_folder(folders[family], preprocess={"max_length": 12})
    special = 2 if family == "bert" else 0
    words = (WORDS * 3)[:50]
    text, beginning = " ".join(words), " ".join(words[: 12 - special])
    assert cosines(items(cut, [text]), items(cut, [beginning])).min() >= MIN_COSINE
    whole = load_folder(folders[family], preprocess={"max_length": 12, "long": "windows"})
    prepared = whole.prepare(text.encode())[0]
    assert not prepared.is_cut
    parts = [" ".join(words[at : at + 12 - special]) for at in range(0, len(words), 12 - special)]
    weights = np.array([len(part.split()) + special for part in parts], float)
    expected = (items(whole, parts) * weights[:, None]).sum(axis=0, keepdims=True) / weights.sum()
    assert cosines(whole.encode([prepared]), expected).min() >= MIN_COSINE


def test_texts_that_are_not_read_to_their_end_are_counted(folders):
    """A notice says how many and what to do."""
    backbone = load_folder(folders["bert"], preprocess={"max_length": 8})
    for text in ("the dog", " ".join(WORDS), " ".join(WORDS[::-1])):
        backbone.prepare(text.encode())
    assert backbone.notices == [
        "2 of 3 texts are longer than the 8 tokens that are read of a text: their ends were not read; read them in "
        "windows in a space of --preprocess long=windows"
    ]
    assert backbone.cut_texts(["the dog", " ".join(WORDS)]) == [" ".join(WORDS)]
    backbone.start_run()
    assert backbone.notices == []


@pytest.mark.parametrize("long", ["cut", "windows"])
def test_a_million_characters_take_bounded_work(long, folders):
    """Only as many characters are read as the windows may need; the text counts as cut."""
    backbone = load_folder(folders["bert"], preprocess={"long": long})
    for text in ("dog " * 250_000, "d" * 1_000_000):
        prepared = backbone.prepare(text.encode())[0]
        assert len(prepared.windows) <= 64
        assert prepared.is_cut
    assert np.isfinite(backbone.encode([prepared])).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n\t\xc2\xa0", "blank"),
        (b"\xef\xbb\xbf", "blank"),
        (b"caf\xe9", "not_a_text"),
        (b"abc\0def", "not_a_text"),
        ("dog".encode("utf-16-le"), "not_a_text"),
    ],
)
def test_what_is_no_text_has_a_reason(data, reason, backbones):
    """Empty, blank and undecodable texts are failures with a reason."""
    with pytest.raises(TextError) as caught:
        backbones["bert"].prepare(data)
    assert caught.value.reason == reason


def test_a_text_of_which_the_tokenizer_leaves_nothing_is_blank(folders, tmp_path):
    """Characters that a tokenizer drops give no tokens, and no vector of [CLS] and [SEP] alone."""
    from tokenizers import Tokenizer, normalizers

    folder = shutil.copytree(folders["bert"], tmp_path / "strict")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(TextError, match="no token"):
        load_folder(folder).prepare("\u200b\u200d\ufeff".encode())


def test_texts_with_marks_of_byte_order_are_read(backbones):
    """UTF-8 and UTF-16 with a mark have the vector of the plain text."""
    plain = items(backbones["bert"], ["the dog"])
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        marked = backbones["bert"].encode([backbones["bert"].prepare("the dog".encode(encoding))[0]])
        np.testing.assert_array_equal(marked, plain)


def test_what_is_missing_offline_is_named_in_one_line(tmp_path, folders):
    """Folder, configuration, weights, tokenizer or hub: the error says which, and what to do."""
    with pytest.raises(WeightsNotFound, match=r"no weights on this machine.*HF_HUB_OFFLINE"):
        load(Recipe("hf/nobody/no-such-model"), device="cpu")
    with pytest.raises(UnknownBackbone, match="there is no folder"):
        resolve_name("hf/./nothing/here")
    for missing, message in (
        ("config.json", "no config.json"),
        ("model.safetensors", "no model.safetensors"),
        ("tokenizer.json", "no tokenizer in"),
    ):
        folder = shutil.copytree(folders["bert"], tmp_path / missing)
        (folder / missing).unlink()
        with pytest.raises(WeightsNotFound, match=message) as caught:
            load_folder(folder)
        assert "\n" not in str(caught.value)
    assert load_folder(tmp_path / "model.safetensors", random_init=True).space.has_random_weights


def test_weights_that_leave_a_parameter_random_are_refused(tmp_path, folders):
    """A missing tensor, a tensor of another shape and a damaged file are errors, not warnings."""

    state = load_file(folders["bert"] / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    for label, changed in {
        "missing": {k: v for k, v in state.items() if k != name},
        "shape": state | {name: state[name][:, :3].contiguous()},
    }.items():
        folder = shutil.copytree(folders["bert"], tmp_path / label)
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsMismatch):
            load_folder(folder)
    folder = shutil.copytree(folders["bert"], tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsMismatch):
        load_folder(folder)


def test_a_tokenizer_of_another_network_is_refused(tmp_path, folders):
    """Tokens beyond the network's embeddings are an error at once, not in the middle of a run."""
    folder = save_model(tmp_path / "small", "bert")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"word{n}": 1000 + n for n in range(200)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(WeightsMismatch, match="the tokenizer has"):
        load_folder(folder)


def test_the_same_weights_from_a_file_are_the_same_space(folders, tmp_path):
    """`--weights FILE` with the names of a whole network, with a prefix, gives the key of the folder."""

    state = load_file(folders["bert"] / "model.safetensors")
    save_file({f"bert.{k}": v for k, v in state.items()}, tmp_path / "mlm.safetensors")
    folder = shutil.copytree(folders["bert"], tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    assert (
        load_folder(folder, weights=str(tmp_path / "mlm.safetensors")).space.key
        == load_folder(folders["bert"]).space.key
    )


def test_options_that_a_network_of_texts_lacks_are_refused(folders):
    """Names of preprocessing of images, unknown pools, impossible lengths and half precision."""
    for change, message in (
        ({"size": 224}, "has no 'size' for texts"),
        ({"max_length": 65}, "reads 3 to 64 tokens"),
        ({"max_length": 2}, "reads 3 to 64 tokens"),
        ({"long": "fold"}, "--preprocess"),
        ({"max_length": "many"}, "--preprocess"),
    ):
        with pytest.raises(BadBackbone, match=message):
            load_folder(folders["bert"], preprocess=change)
    with pytest.raises(BadBackbone, match="unknown pool"):
        load_folder(folders["bert"], pool="avg")
    with pytest.raises(BadBackbone, match="backbone-arg nonsense"):
        load_folder(folders["bert"], args={"nonsense": 1})
    with pytest.raises(BadOption, match="--precision fp16"):
        load(Recipe(f"hf/{folders['bert']}"), device="cpu", precision="fp16")


def test_roberta_reads_as_many_tokens_as_it_has_positions_for(folders):
    """Its positions begin after the padding token: 66 of them are 64 tokens, and all of them can be used."""
    backbone = load_folder(folders["roberta"])
    assert backbone.space.input.max_length == 64
    assert np.isfinite(items(backbone, [" ".join(WORDS * 5)])).all()


def test_without_the_library_the_extra_is_named(folders, monkeypatch):
    """One line says what to install."""
    from embedstore.backbones.transformers_models import folder as module

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"embedstore\[text\]"):
        load_folder(folders["bert"])
