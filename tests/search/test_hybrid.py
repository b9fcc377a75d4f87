"""A hybrid search joins words and vectors: the list of a brute-force computation, always k, at any filter and page."""

import csv
import dataclasses
import math
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import QueryError, UnknownColumn
from embedstore.search import hybrid, words
from embedstore.search.execute import Searcher
from embedstore.search.options import SearchOptions, Words
from embedstore.search.word_cache import WordIndexCache, index_file
from embedstore.search.words import build_word_index, from_bytes, split_words, to_bytes
from embedstore.storage.storage import Storage
from tests.conftest import picture

VOCABULARY = "red blue dog cat beach snow runs sleeps the a".split()
COUNT = 90
CONSTANT = 60


def text_of(n):
    """Return the text of item number n: none, or up to nine words."""
    draw = np.random.default_rng(n)
    return "" if n % 11 == 0 else " ".join(draw.choice(VOCABULARY, draw.integers(1, 10)))


def vector_of(n):
    """Return the vector of item number n; many items have equal ones."""
    return np.array([1, n % 3, n % 5, n % 2], np.float32)


def make_store(folder):
    """Make a store of 90 items with vectors, captions and labels."""
    table = {
        "uri": [f"i{n}" for n in range(COUNT)],
        "caption": [text_of(n) for n in range(COUNT)],
        "label": [f"c{n % 4}" for n in range(COUNT)],
    }
    store = es.create(folder / "s.store")
    store.add_vectors(np.stack([vector_of(n) for n in range(COUNT)]), table)
    return store


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """The storage of such a store."""
    return Storage.open(make_store(tmp_path_factory.mktemp("hybrid")).path)


def bm25(texts, query):
    """Return the score of each text by the formula of Lucene, in plain Python."""
    documents = [text.split() for text in texts]
    length = sum(map(len, documents)) / len(documents)
    out = []
    for words_of in documents:
        score = 0.0
        for word in query.split():
            having, count = sum(word in other for other in documents), words_of.count(word)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += idf * count / (count + 1.5 * (0.25 + 0.75 * len(words_of) / length))
        out.append(score)
    return out


def oracle(rows, near, query, *, counted):
    """Return the whole joined list of some items by brute force: ``(item, score)``, best first.

    Args:
        rows: ``(item, number, matches)`` of every item.
        near: the matching items in the order of a search by the vector alone, which has an oracle of its own.
        query: its words.
        counted: ranks that count.
    """
    texts = [(item, text_of(n)) for item, n, _ in rows if text_of(n)]
    scores = dict(zip([item for item, _ in texts], bm25([text for _, text in texts], query), strict=True))
    matching = {item for item, _, matches in rows if matches}
    assert matching == set(near)
    lexical = sorted((-round(scores[item], 5), item) for item in matching if scores.get(item, 0) > 0)
    lexical = [item for _, item in lexical][:counted]
    total = dict.fromkeys(near, 0.0)
    for rank, item in enumerate(near, 1):
        total[item] += 1 / (CONSTANT + rank) if rank <= counted or item not in lexical else 0
    for rank, item in enumerate(lexical, 1):
        total[item] += 1 / (CONSTANT + rank)
    return sorted(total.items(), key=lambda pair: (-pair[1], near.index(pair[0])))


@settings(deadline=None, max_examples=40)
@given(
    query=st.lists(st.sampled_from([*VOCABULARY, "unknown"]), min_size=1, max_size=5).map(" ".join),
    vector=st.lists(st.integers(-3, 3), min_size=4, max_size=4).filter(any),
    k=st.integers(1, COUNT + 5),
    offset=st.integers(0, COUNT),
    where=st.sampled_from([None, "label = 'c1'", "uri = 'i37'", "false"]),
    counted=st.sampled_from([1, 7, 1000]),
)
def test_a_hybrid_search_equals_brute_force(storage, query, vector, k, offset, where, counted):
    """Items, order and scores are those of the formulas in plain Python, at every page of the list and every filter."""
    rows = storage.sql(f"SELECT item, uri, {where or 'true'} FROM items")[1]
    rows = [(item, int(uri[1:]), matches) for item, uri, matches in rows]
    searcher, space, vector = Searcher(storage), storage.space(), np.array(vector, np.float32)
    near = [hit.item for hit in searcher.search(space, vector, SearchOptions(COUNT, 0, where)).hits]
    expected = oracle(rows, near, query, counted=counted)[offset : offset + k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hybrid, "COUNTED_RANKS", counted)
        options = SearchOptions(k, offset, where, words=Words(query, "caption"))
        hits = searcher.search(space, vector, options).hits
    assert [h.item for h in hits] == [item for item, _ in expected]
    assert np.allclose([h.score for h in hits], [score for _, score in expected], atol=1e-12)
    assert [h.rank for h in hits] == list(range(offset + 1, offset + 1 + len(expected)))


def test_one_hit_per_group(storage):
    """With group_by every value comes once, at the place of its best item."""
    options = {"words": Words("red dog", "caption"), "k": 40}
    vector = np.ones(4, np.float32)
    all_hits = Searcher(storage).search(storage.space(), vector, SearchOptions(**options)).hits
    grouped = Searcher(storage).search(storage.space(), vector, SearchOptions(**options, group_by="label")).hits
    first = {}
    for hit in all_hits:
        first.setdefault(hit.label, hit.item)
    assert [h.item for h in grouped] == list(first.values())


def test_edits_are_followed(tmp_path):
    """After an edit, a deletion or a new text the next search knows it, in the same process and in another."""
    store = make_store(tmp_path)

    def nearest(searcher):
        hits = searcher.search(storage.space(), vector_of(0), SearchOptions(1, words=Words("zebra", "caption"))).hits
        return hits[0].uri

    storage = Storage.open(store.path)
    searcher = Searcher(storage)
    before = nearest(searcher)
    store.edit({"caption": "'a zebra'"}, where="uri = 'i41'")
    assert before != "i41"
    assert nearest(searcher) == nearest(Searcher(storage)) == "i41"
    store.edit({"caption": "'a horse'"}, where="uri = 'i41'")
    assert nearest(searcher) == nearest(Searcher(storage)) == before


def test_the_index_is_kept_in_the_store(tmp_path, monkeypatch):
    """A second process reads the file and does not split a text; a change elsewhere does not make it stale."""
    store = make_store(tmp_path)
    storage = Storage.open(store.path)
    options = SearchOptions(20, words=Words("red dog", "caption"))
    first = Searcher(storage).search(storage.space(), vector_of(3), options).hits
    store.edit({"label": "'other'"}, where="uri = 'i1'")
    monkeypatch.setattr("embedstore.search.word_cache.build_word_index", None)
    again = Searcher(storage).search(storage.space(), vector_of(3), options).hits
    assert [(h.item, h.score) for h in again] == [(h.item, h.score) for h in first]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "link", "folder"])
def test_a_file_that_cannot_be_used_is_made_again(tmp_path, damage):
    """Whatever is where the index should be, the answer is the same, and nothing outside the store is written."""
    store = make_store(tmp_path)
    storage, options = Storage.open(store.path), SearchOptions(20, words=Words("red dog", "caption"))
    expected = Searcher(storage).search(storage.space(), vector_of(3), options).hits
    file = index_file(storage.layout.words, "caption")
    data, outside = file.read_bytes(), tmp_path / "outside"
    file.unlink()
    match damage:
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "flipped":
            file.write_bytes(data[:8] + bytes(255 - byte for byte in data[8:200]) + data[200:])
        case "link":
            outside.write_bytes(data)
            file.symlink_to(outside)
        case "folder":
            file.mkdir()
    assert Searcher(storage).search(storage.space(), vector_of(3), options).hits == expected
    if damage == "link":
        assert outside.read_bytes() == data


def test_a_linked_folder_is_not_followed(tmp_path):
    """With the folder of the cache as a link, the search answers and writes nothing there."""
    store = make_store(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(store.path / "cache", ignore_errors=True)
    (store.path / "cache").symlink_to(tmp_path / "elsewhere")
    storage = Storage.open(store.path)
    hits = Searcher(storage).search(storage.space(), vector_of(3), SearchOptions(5, words=Words("dog", "caption"))).hits
    assert len(hits) == 5
    assert not list((tmp_path / "elsewhere").rglob("*"))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_numbers_of_a_stranger_are_checked(data):
    """An index whose arrays do not fit together is refused; it never answers with items that it does not have."""
    index = build_word_index("c", [(4, "red dog"), (9, "blue dog"), (12, "cat")])
    name = data.draw(st.sampled_from(["items", "starts", "documents", "scores"]))
    array = getattr(index, name).copy()
    array[data.draw(st.integers(0, len(array) - 1))] = data.draw(st.integers(-100, 100))
    changed = dataclasses.replace(index, **{name: array})
    try:
        opened = from_bytes(to_bytes(changed, "f"), "f")
    except ValueError:
        return
    known = array.tolist() if name == "items" else [4, 9, 12]
    assert set(opened.rank("red blue dog cat", None, 10).tolist()) <= set(known)


def test_a_purge_leaves_no_word_of_the_purged(tmp_path):
    """The words of a purged item are in no file of the store after a purge and a compaction."""
    store = make_store(tmp_path)
    store.edit({"caption": "'xylophonist'"}, where="uri = 'i41'")
    storage = Storage.open(store.path)
    Searcher(storage).search(storage.space(), vector_of(3), SearchOptions(5, words=Words("dog", "caption")))
    assert any(b"xylophonist" in f.read_bytes() for f in (store.path / "cache").rglob("*") if f.is_file())
    store.purge(where="uri = 'i41'")
    store.compact()
    assert not [f for f in store.path.rglob("*") if f.is_file() and b"xylophonist" in f.read_bytes()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red DOG, red-dog!", ["red", "dog", "red", "dog"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("cafe\u0301 caf\u00e9", ["caf\u00e9", "caf\u00e9"]),
        ("ﬁle ２", ["file", "2"]),
        ("東京 タワー", ["東京", "タワー"]),
        ("  … ", []),
    ],
)
def test_words_that_look_equal_are_equal(text, expected):
    """Case, punctuation and Unicode's forms make no difference."""
    assert split_words(text) == expected


def test_texts_that_do_not_fit_into_memory_are_refused(monkeypatch):
    """One line names the column, the limit and what to do."""
    monkeypatch.setattr(words, "MAX_BYTES", 48 * 5)
    with pytest.raises(QueryError, match=r"column caption has more than 5 words.*vectors alone"):
        build_word_index("caption", [(1, "a b c"), (2, "d e f")])


@pytest.mark.parametrize(
    ("query", "options", "error", "message"),
    [
        ("dog", {"hybrid": "captoin"}, UnknownColumn, "caption"),
        (3, {"hybrid": "caption"}, QueryError, "needs a text"),
        ("  ", {"hybrid": "caption"}, QueryError, "empty"),
        ("dog", {"hybrid": "caption", "min_score": 0.2}, QueryError, "min_score"),
        ("dog", {"hybrid": "caption", "diversity": 0.5}, QueryError, "diversity"),
        ("dog", {"hybrid": "caption", "replica": "r"}, QueryError, "--hybrid"),
    ],
)
def test_what_a_hybrid_search_cannot_do_is_said(tiny_texts, query, options, error, message):
    """Each wrong use is one of our errors with what to do."""
    with pytest.raises(error, match=message):
        tiny_texts.search(query, **options)


@pytest.fixture(scope="module")
def tiny_texts(tmp_path_factory):
    """A store of the bundled model with four drawn pictures and captions, which has a tower of texts."""
    folder = tmp_path_factory.mktemp("tiny")
    with (folder / "items.csv").open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["uri", "caption"])
        for n, caption in enumerate(["a red square", "invoice number 4711", "a blue thing", ""]):
            picture(n).save(folder / f"{n}.png")
            rows.writerow([f"{n}.png", caption])
    store = es.create(folder / "t.store", backbone="tiny")
    store.embed(folder / "items.csv")
    return store


def test_words_that_no_vector_knows_find_their_item(tiny_texts):
    """The item whose caption has the number of the query is the first hit, and all others follow."""
    hits = tiny_texts.search("4711", hybrid="caption")
    assert hits[0].columns["caption"] == "invoice number 4711"
    assert len(hits) == 4
    assert "joined with 1 item by the words of caption" in hits.plan.reason


def test_unknown_words_are_named(tiny_texts):
    """A note names the words that no text has; the hits are those of the vectors."""
    hits = tiny_texts.search("a zebra", hybrid="caption")
    assert "no text of caption has 'zebra'" in hits.notes
    by_vectors = [h.item for h in tiny_texts.search("zebra")]
    assert [h.item for h in tiny_texts.search("zebra", hybrid="caption")] == by_vectors


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (1, {"words": (0.515, 0.735, 0.8175), "vectors": (0.832, 0.988, 0.998), "both": (0.68, 0.872, 0.935)}),
        (4, {"words": (0.80, 0.95, 0.98), "vectors": (0.80, 0.98, 1.0), "both": (0.83, 0.99, 0.99)}),
    ],
)
def test_flickr_captions_by_words_by_vectors_and_by_both(shared_data, tmp_path, captions, expected):
    """Recall@1, 5 and 10 among 100 images of captions that are not stored, where 1 or 4 other captions are.

    Words that say much help (0.83 of 0.80 and 0.80); one paraphrase per image is worse than the vectors alone.
    """
    folder = shared_data / "clip_vectors"
    images, texts = (np.load(folder / f"flickr100_{kind}_vectors.npy") for kind in ("image", "text"))
    with (folder / "flickr100_metadata.csv").open() as f:
        rows = list(csv.DictReader(f))
    stored = [" ".join(row["caption"] for row in rows[n : n + captions]) for n in range(0, 500, 5)]
    store = es.create(tmp_path / "s")
    store.add_vectors(images[::5], {"uri": [r["image_id"] for r in rows[::5]], "caption": stored})
    storage = Storage.open(store.path)
    searcher, space = Searcher(storage), storage.space()
    uris = dict(storage.sql("SELECT item, uri FROM items")[1])
    with storage.catalog.read() as con:
        index = WordIndexCache(storage).get(con, "caption")
    ranks = {"words": [], "vectors": [], "both": []}
    for n in (n for n in range(500) if n % 5 >= captions):
        query, words = texts[n], Words(rows[n]["caption"], "caption")
        found = {
            "words": index.rank(words.text, None, 10).tolist(),
            "vectors": [h.item for h in searcher.search(space, query, SearchOptions(10)).hits],
            "both": [h.item for h in searcher.search(space, query, SearchOptions(10, words=words)).hits],
        }
        for name, items in found.items():
            ranks[name].append([*(uris[item] for item in items), rows[n]["image_id"]].index(rows[n]["image_id"]))
    recall = {name: tuple(np.mean(np.array(r) < k) for k in (1, 5, 10)) for name, r in ranks.items()}
    for name, values in expected.items():
        assert recall[name] == pytest.approx(values, abs=0.006), name
