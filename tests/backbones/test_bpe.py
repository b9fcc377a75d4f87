"""The tokenizer without torch gives open_clip's own token ids."""

import html.entities
import random

import numpy as np
import open_clip

from embedstore.backbones.runtimes import bpe
from tests.conftest import ROOT


def strings():
    """Thousands of strings: prose, code, every kind of Unicode, entities, mojibake."""
    rng = random.Random(0)
    out = ["", " ", "<start_of_text> a <end_of_text>", "&amp;amp;lt;b&gt;", "schÃ¶n cafÃ©", "ſſ 'ſ it'ſ", "İstanbul ẞ",
           "don't I'LL we'VE", "１２３ ①Ⅷ", "x" * 500, "\u200bzero\x00\x07", "e\u0301", "“curly” ‘q’", "&#x1F600; &amp",
           "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈", "word " * 100]  # fmt: skip
    ascii_, entities = [chr(c) for c in range(32, 127)], list(html.entities.html5)
    ranges = [(0x20, 0x250), (0x20, 0x3000), (0x1F300, 0x1FAFF), (0x4E00, 0x9FFF), (0, 0xD7FF), (0xE000, 0x10FFFF)]
    for _ in range(2500):
        out.append("".join(rng.choices(ascii_, k=rng.randint(1, 60))))
        low, high = rng.choice(ranges)
        letters = [chr(rng.randint(low, high)) for _ in range(rng.randint(1, 30))]
        out.append("".join(c if rng.random() < 0.7 else " " for c in letters))
        out.append(" ".join(rng.choice(["dog", "CAT", "it's", "1999", f"&{rng.choice(entities)}"]) for _ in range(6)))
    for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("embedstore/backbones/**/*.py")):
        out += path.read_text(encoding="utf-8").split("\n")
    return out


def test_token_ids_are_those_of_open_clip():
    """Every string of a large corpus has open_clip's ids, cut or not."""
    corpus = strings()
    assert len(corpus) > 10_000
    theirs = open_clip.get_tokenizer("ViT-B-32")
    for length in (77, 16):
        assert np.array_equal(bpe.tokenize(corpus, length), theirs(corpus, context_length=length).numpy())


def test_token_ids_of_another_vocabulary_are_those_of_open_clip():
    """The bundled network's merges give open_clip's ids for the same corpus."""
    corpus = strings()
    merges = ROOT / "embedstore" / "backbones" / "tiny" / "merges.txt.gz"
    theirs = open_clip.tokenizer.SimpleTokenizer(bpe_path=str(merges))
    assert np.array_equal(bpe.tokenize(corpus, 32, merges), theirs(corpus, context_length=32).numpy())
