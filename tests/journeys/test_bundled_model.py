"""Everything that needs a network with meaning, on the bundled one: values, not shapes.

The store is the quickstart's: drawn scenes, of which the manifest says what each shows, and scanned digits.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import embedstore as es
from embedstore import backbones
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.quickstart.scenes import COLORS, SHAPES, is_held_out_pair
from embedstore.space import Recipe
from tests.conftest import ROOT
from tools.tiny.measure import Model, digits, digits_probe, retrieval, unseen_pairs

FOLDER = ROOT / "embedstore" / "backbones" / "tiny"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "tiny.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tiny():
    return backbones.load(Recipe("embedstore/tiny"))


@pytest.fixture(scope="module")
def store(quickstart):
    return es.open(quickstart.store)


@pytest.fixture
def own(quickstart, tmp_path):
    """A copy of the store that a test may change."""
    shutil.copytree(quickstart.store, tmp_path / "own.store")
    return es.open(tmp_path / "own.store")


def shown(store, hits, *columns):
    """Columns of the hits' items, in the order of the hits."""
    rows = {r[0]: r[1:] for r in store.sql(f"SELECT item, {', '.join(columns)} FROM items").rows}
    return [rows[h.item] for h in hits]


class TestTheNetwork:
    """As it is shipped."""

    def test_it_is_small_and_half_precision(self):
        """At most 8 MB in the package, float16, without pickle, with a card beside it."""
        assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 8_000_000
        with safe_open(str(FOLDER / "open_clip_model.safetensors"), "pt") as f:
            kinds = {f.get_tensor(k).dtype for k in f.keys()}  # noqa: SIM118 - a file, not a mapping
        assert kinds <= {torch.float16, torch.int64}
        assert "## Measured" in (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")

    def test_it_is_loaded_by_open_clip(self, tiny):
        """The same vectors, of pictures and of words, as open_clip's own factory, transform and tokenizer give."""
        where = f"local-dir:{FOLDER}"
        model, _, transform = open_clip.create_model_and_transforms(where)
        tokenizer = open_clip.get_tokenizer(where, bpe_path=str(FOLDER / "merges.txt.gz"))
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
        with torch.inference_mode():
            image = model.eval().encode_image(transform(picture)[None], normalize=True)[0].numpy()
            words = model.encode_text(tokenizer(["two red stars"]), normalize=True)[0].numpy()
        ours = tiny.encode_images(resize_and_crop(picture, tiny.space.preprocess)[None])[0]
        assert ours @ image == pytest.approx(1, abs=1e-5)
        assert tiny.encode_texts(["two red stars"])[0] @ words == pytest.approx(1, abs=1e-5)

    def test_its_space_says_what_it_is(self, tiny):
        """Name, licence and words are recorded."""
        space = tiny.space
        assert (space.architecture, space.dim, space.text, space.unit) == ("embedstore/tiny", 256, True, True)
        assert space.licence == "Apache-2.0"
        (fact,) = backbones.list_backbones("embedstore/tiny")
        assert fact.parameters == sum(p.numel() for p in tiny.module.parameters())
        assert (fact.dim, fact.input_size) == (space.dim, "64x64")

    def test_other_weights_are_another_space(self, own):
        """A store of this network does not open with a random twin."""
        twin = backbones.load(Recipe("embedstore/tiny", random_init=True))
        assert twin.space.key != own.spaces[0].key
        row = own.add_space("embedstore/tiny", random_init=True, space_name="twin")
        assert own.spaces[0].key != row.key

    def test_pairs_never_seen_in_training_are_told_apart(self, tiny):
        """Zero-shot over 48 pairs of colour and shape that no training scene shows."""
        found = unseen_pairs(Model(tiny), 960)
        assert found["classes"] == sum(is_held_out_pair(c, s) for c in COLORS for s in SHAPES) == 48
        assert found["accuracy"] == pytest.approx(GOLDEN["unseen_pairs"], abs=0.02)

    def test_captions_find_their_scenes(self, tiny):
        """Text to image over 1,000 fresh scenes."""
        found = retrieval(Model(tiny))
        assert found == pytest.approx(GOLDEN["retrieval"], abs=0.02)

    def test_scanned_digits_are_read(self, tiny):
        """scikit-learn's 1,797 handwritten digits: by prompts alone, and by a probe on the layer before the words."""
        features = backbones.load(Recipe("embedstore/tiny", layer="before-projection"))
        found = {"zero_shot": digits(Model(tiny)), "probe": digits_probe(Model(features))}
        assert found == pytest.approx(GOLDEN["digits"], abs=0.02)


class TestSearch:
    """Words and filters together."""

    @pytest.mark.parametrize("colour", ["red", "green", "blue", "yellow"])
    def test_a_colour_in_words_is_the_colour_in_the_column(self, store, colour):
        """Nine of the ten best single shapes for "a red star" are red, and so on."""
        hits = store.search(f"a {colour} star", k=10, where="kind = 'single'")
        assert sum(c == colour for (c,) in shown(store, hits, "colour")) >= 9

    def test_a_filter_and_words_are_one_question(self, store):
        """All hits obey the filter, all that match come back, and the best is what the words say."""
        blue = store.sql("SELECT count(*) FROM items WHERE colour = 'blue' AND label = 'star'").rows[0][0]
        assert blue >= 2
        hits = store.search("a star", k=blue + 5, where="colour = 'blue' and kind = 'single'")
        labels = [h.label for h in hits]
        assert shown(store, hits, "colour") == [("blue",)] * len(hits)
        assert len(hits) == blue + 5
        assert labels[:2] == ["star", "star"]

    def test_words_can_be_added_and_taken_away(self, store):
        """A heart without red finds fewer red hearts than a heart with red."""
        plus, minus = (
            store.search("a heart", k=10, where="kind = 'single'", **{how: ["a red picture"]})
            for how in ("plus", "minus")
        )
        red = [sum(c == "red" for (c,) in shown(store, h, "colour")) for h in (plus, minus)]
        assert red[0] >= red[1] + 2

    def test_an_image_finds_its_kind(self, store):
        """The neighbours of a scanned digit are scans of that digit, in most cases."""
        rows = store.sql("SELECT item, label FROM items WHERE kind = 'scan' ORDER BY item").rows[::60]
        same = [sum(h.label == label for h in store.search(int(item), k=6)[1:]) for item, label in rows]
        assert np.mean(same) / 5 > 0.9

    def test_the_index_and_the_scan_agree(self, store):
        """With the index and without, the ten best are the same."""
        for words in ("a red heart", "the digit seven", "three yellow fish"):
            near, exact = store.search(words, k=10), store.search(words, k=10, exact=True)
            assert len({h.item for h in near} & {h.item for h in exact}) >= 9


class TestZeroShot:
    """Words as a classifier."""

    def test_digits_by_prompts(self, store):
        """The ten digits among the scans, by prompts a person would write."""
        names = "zero one two three four five six seven eight nine".split()
        classes = {f"digit {n}": [f"the digit {w}", f"a handwritten {n}"] for n, w in enumerate(names)}
        found = store.zero_shot(classes).evaluate("label", where="kind = 'scan'")
        assert found.scores["accuracy"].value == pytest.approx(GOLDEN["quickstart"]["digits"], abs=0.02)

    def test_colours_by_names(self, store):
        """Twelve colours of single shapes."""
        found = store.zero_shot({c: [f"a {c} shape", f"a {c} star", f"a {c} circle"] for c in COLORS})
        judged = found.evaluate("colour", where="kind = 'single'")
        assert judged.scores["accuracy"].value == pytest.approx(GOLDEN["quickstart"]["colours"], abs=0.02)

    def test_a_random_twin_is_at_chance(self, own):
        """The same question in the same store: the meaning is in the weights."""
        own.set_default(own.add_space("embedstore/tiny", random_init=True, space_name="twin").key)
        some = [uri for (uri,) in own.sql("SELECT uri FROM items WHERE kind = 'scan' ORDER BY item").rows[::6]]
        own.embed(some, labels_from=None)
        found = own.zero_shot([f"digit {n}" for n in range(10)]).evaluate("label", where="kind = 'scan'")
        assert found.scores["accuracy"].value < 0.2


class TestDuplicates:
    """The same picture, saved again."""

    def test_recompressed_copies_are_found_and_nothing_else_far(self, own, tmp_path):
        """Twenty pictures saved as JPEG and made smaller: each stands in a group with its original."""
        rows = own.sql("SELECT item, uri FROM items WHERE kind = 'several' ORDER BY item LIMIT 20").rows
        copies = tmp_path / "copies"
        copies.mkdir()
        for item, uri in rows:
            Image.open(uri).resize((80, 80)).save(copies / f"{item}.jpg", quality=85)
        own.embed(copies)
        found = own.duplicates(0.97, where="kind = 'several' or kind is null")
        group = {Path(i.uri).stem: i.group for i in found.items}
        for item, uri in rows:
            assert group[str(item)] == group[Path(uri).stem]
