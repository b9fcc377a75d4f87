"""Texts through the pipeline of images: one store, several modalities, failures with reasons."""

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadBackbone, BadOption, NoImages
from embedstore.operations import parts
from embedstore.operations.session import OpenOptions
from tests.helpers.text_models import save_model

pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")

TEXTS = {
    "animals": ["the dog runs", "a cat sleeps", "a very old dog"],
    "money": ["the stock market fell", "the market rose"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "bert", "bert")


@pytest.fixture
def texts(tmp_path):
    """A folder of texts by label."""
    for label, lines in TEXTS.items():
        folder = tmp_path / "texts" / label
        folder.mkdir(parents=True)
        for n, line in enumerate(lines):
            (folder / f"{n}.txt").write_text(line)
    return tmp_path / "texts"


@pytest.fixture
def store(tmp_path, model):
    return es.create(tmp_path / "t.store", f"hf/{model}", device="cpu", dtype="float32")


def test_a_folder_of_texts_is_embedded_once_and_searched_by_words(store, texts):
    """Labels come from folders, a rerun reads nothing, a text finds itself, and the facts say that it is text."""
    report = store.embed(texts)
    assert (report.embedded, report.failures, report.decoder) == (5, 0, "text")
    assert "texts/s" in report.summary()
    assert "--runtime onnx" not in report.bottleneck
    assert store.embed(texts).unchanged == 5
    hit = next(iter(store.search("the stock market fell", k=1)))
    assert (hit.uri, hit.label, round(hit.score, 4)) == (str(texts / "money" / "0.txt"), "money", 1.0)
    rows = store.sql("SELECT DISTINCT format, width, height FROM contents").rows
    assert rows == (("TEXT", None, None),)
    vectors = store.encode(images=[str(texts / "money" / "0.txt")])
    np.testing.assert_allclose(
        vectors / np.linalg.norm(vectors), store.encode(texts=["the stock market fell"]), atol=1e-5
    )


def test_texts_that_fail_have_a_reason_and_cost_one_text(store, texts):
    """Empty, blank and undecodable texts are rows of failures; they are not tried again until they change."""
    (texts / "animals" / "empty.txt").touch()
    (texts / "animals" / "blank.txt").write_text(" \n ")
    (texts / "animals" / "latin.txt").write_bytes(b"caf\xe9")
    report = store.embed(texts)
    assert report.failures_by_reason == {"blank": 1, "empty": 1, "not_a_text": 1}
    assert report.embedded == 5
    again = store.embed(texts)
    assert (again.failures, again.known_failures) == (0, 3)
    (texts / "animals" / "latin.txt").write_bytes(b"a cat in the house")
    assert store.embed(texts).embedded == 1


def test_long_texts_are_counted_in_the_report(store, texts):
    """A text beyond the network's length is embedded, and the report says so."""
    (texts / "animals" / "long.txt").write_text("the dog runs " * 100)
    notices = store.embed(texts).notices
    assert any(n.startswith("1 of 6 texts is longer than the 64 tokens") for n in notices)


def test_a_store_holds_texts_and_images_and_a_space_embeds_its_own(store, texts):
    """From one folder, a text space takes the texts and an image space the images; neither loses items of the other."""
    picture = texts / "animals" / "dog.png"
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(picture)
    first = store.embed(texts)
    assert (first.embedded, first.skipped_by_kind) == (5, {".png": 1})
    store.add_space("tiny", space_name="pictures")
    second = store.embed(texts, space="pictures")
    assert (second.embedded, second.missing, second.skipped_by_kind) == (1, 0, {".txt": 5})
    assert store.embed(texts).missing == 0
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((6,),)
    (texts / "money" / "1.txt").unlink()
    assert store.embed(texts).missing == 1
    store.add_space("tiny", space_name="again", preprocess={"interpolation": "bilinear"})
    assert store.reembed("again").scanned == 1, "of this store only the image belongs to a space of images"


def test_a_space_of_texts_refuses_what_is_for_images(store, texts):
    """A query by image, a runtime and a decoder of images: one line each that names the space or the option."""
    store.embed(texts)
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BadBackbone, match="is of texts, not of images"):
        store.search(image=picture)
    with pytest.raises(BadBackbone, match="--runtime onnx is for backbones of images"):
        es.open(store.path, device="cpu", runtime="onnx").search("dog")


def test_a_folder_without_texts_has_nothing_to_embed(store, tmp_path):
    """The message counts what was skipped."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(NoImages, match=r"1 skipped \(1 .jpg\).*manifest of texts"):
        store.embed(tmp_path / "photos")


def test_a_decoder_of_images_is_refused_for_texts(tmp_path, model, texts):
    """`--decoder pillow` has no meaning for texts."""
    es.create(tmp_path / "d.store", f"hf/{model}", device="cpu")
    with pytest.raises(BadOption, match="--decoder pillow is for images"):
        es.open(tmp_path / "d.store", device="cpu", decoder="pillow").embed(texts)


def test_real_sentences_are_near_by_their_meaning(shared_data, tmp_path):
    """MiniLM's own folder: two sentences of dogs at the sea have the cosine that its authors' library gives."""
    store = es.create(tmp_path / "m.store", f"hf/{shared_data / 'models' / 'all-MiniLM-L6-v2'}", device="cpu")
    space = store.spaces[0].space
    assert (space.dim, space.pool, space.unit, space.input.max_length) == (384, "mean", True, 256)
    vectors = store.encode(texts=["a dog on the beach", "a puppy plays at the sea", "the stock market fell"])
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]


def test_texts_are_embedded_in_parts(store, texts):
    """A plan of two parts, two workers and a registration give what one run gives."""
    store.plan_parts(texts, parts=2)
    for part in ("1/2", "2/2"):
        parts.work(store.path, part, options=OpenOptions("cpu"), space=None, batch_size=None, threads=1, progress=False)
    assert store.register().finished
    assert store.sql("SELECT count(*), any_value(format) FROM vectors JOIN contents USING (content)").rows == (
        (5, "TEXT"),
    )
    assert store.embed(texts).unchanged == 5
