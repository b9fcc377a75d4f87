"""Retrieval: figures by their definitions, ties, copies, captions both ways, and intervals that hold."""

import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

import embedstore as es
from embedstore.classify.retrieval.metrics import mean_estimate, query_figures
from embedstore.classify.retrieval.ranking import rank_relevance
from embedstore.cli import main
from embedstore.errors import BadOption, BadVectors, LabelError
from tests.helpers.clusters import clusters, store_of
from tools.evaluation_promises.sets import coverage_of_ranks


def figures_of(relevant, ks):
    """The figures of one ranking by their definitions, item by item."""
    total, out = sum(relevant), {}
    for k in ks:
        hits, precisions, gain = 0, 0.0, 0.0
        for rank, is_relevant in enumerate(relevant[:k], 1):
            if is_relevant:
                hits += 1
                precisions += hits / rank
                gain += 1 / math.log2(1 + rank)
        out[f"R@{k}"] = float(hits > 0)
        out[f"mAP@{k}"] = precisions / min(k, total)
        out[f"nDCG@{k}"] = gain / sum(1 / math.log2(1 + rank) for rank in range(1, min(k, total) + 1))
    out["MRR"] = 1 / (relevant.index(True) + 1)
    return out


def ranking(cosines, relevant, excluded):
    """The relevance of the candidates in order: by cosine to six decimals, of a tie the irrelevant ones first."""
    rows = [i for i in range(len(cosines)) if not excluded[i]]
    rows.sort(key=lambda i: (-round(float(cosines[i]) * 1e6), bool(relevant[i])))
    return [bool(relevant[i]) for i in rows]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 4), st.lists(st.integers(1, 14), min_size=1, max_size=3)
)
def test_figures_are_those_of_the_definitions(seed, n, dim, ks):
    """Any gallery, with many ties (vectors of whole numbers), excluded items and ranks beyond its end."""
    rng = np.random.default_rng(seed)
    ks = sorted(set(ks))
    X = rng.integers(-1, 2, (n, dim)).astype(np.float32)
    X[~X.any(1)] = 1
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    relevant, excluded = rng.random((n, n)) < 0.4, rng.random((n, n)) < 0.2
    ranked = rank_relevance(X, X, lambda s: (relevant[s], excluded[s]), max(ks))
    rankings = [ranking(X[q] @ X.T, relevant[q], excluded[q]) for q in range(n)]
    assert ranked.n_relevant.tolist() == [sum(r) for r in rankings]
    assert ranked.n_candidates.tolist() == [len(r) for r in rankings]
    kept = [q for q, r in enumerate(rankings) if any(r)]
    if not kept:
        return
    part = type(ranked)(*(getattr(ranked, f)[kept] for f in ("top", "first_rank", "n_relevant", "n_candidates")))
    expected = [figures_of(rankings[q], ks) for q in kept]
    for metric, values in query_figures(part, ks).by_metric.items():
        assert values == pytest.approx([e[metric] for e in expected], abs=1e-12)


def test_figures_agree_with_scikit_learn():
    """Without ties: nDCG@k of ndcg_score, and average precision over the whole gallery."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 16)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    relevant = rng.random((60, 60)) < 0.1
    relevant[:, 0] = True
    ranked = rank_relevance(X, X, lambda s: (relevant[s], np.zeros_like(relevant[s])), 60)
    found = query_figures(ranked, [5, 60]).by_metric
    cosines = X @ X.T
    gain = [ndcg_score(relevant[q : q + 1], cosines[q : q + 1], k=5) for q in range(60)]
    assert found["nDCG@5"] == pytest.approx(gain, abs=1e-9)
    precision = [average_precision_score(relevant[q], cosines[q]) for q in range(60)]
    assert found["mAP@60"] == pytest.approx(precision, abs=1e-9)


def test_equal_vectors_find_nothing(tmp_path):
    """A collapsed network: all directions are equal, and the order of the items does not help."""
    X = np.ones((40, 4), np.float32) * np.arange(1, 41, dtype=np.float32)[:, None]
    store = store_of(tmp_path / "s", X, label=["a"] * 20 + ["b"] * 20)
    d = store.retrieval("label", near_duplicates="ignore").directions[0]
    assert d.scores["R@10"].value == 0
    assert d.scores["MRR"].value == pytest.approx(1 / 21)


def test_labels_each_item_in_turn(tmp_path):
    """Every figure is the mean over the items by definition; items alone in their class are counted, not averaged."""
    X, y = clusters(60, 4, noise=1.5)
    y[0], y[1] = "alone", None
    store = store_of(tmp_path / "s", X, label=y)
    report = store.retrieval("label", ks=[1, 3], near_duplicates="ignore")
    d = report["item to item"]
    assert (d.n_queries, d.n_without_relevant, d.n_gallery, report.n_unlabeled) == (58, 1, 59, 1)
    keep = [i for i in range(60) if y[i] is not None]
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    values = []
    for q in keep:
        others = [i for i in keep if i != q]
        relevant = [y[i] == y[q] for i in others]
        if any(relevant):
            values.append(figures_of(ranking(unit[q] @ unit[others].T, relevant, [False] * len(others)), [1, 3]))
    assert {m: s.value for m, s in d.scores.items()} == pytest.approx(
        {m: np.mean([v[m] for v in values]) for m in values[0]}
    )
    assert all(0 <= s.low <= s.value <= s.high <= 1 for s in d.scores.values())
    assert len(report.df()) == 7


def test_queries_of_one_split_search_among_the_others(tmp_path):
    """The gallery has no query in it; an unknown split and an empty one are refused with what there is."""
    X, y = clusters(60, 3)
    split = [("train", "train", "test")[n // 3 % 3] for n in range(60)]
    store = store_of(tmp_path / "s", X, label=y, split=split)
    d = store.retrieval("label", queries="test").directions[0]
    assert (d.n_queries, d.n_gallery) == (18, 42)
    with pytest.raises(LabelError, match="splits: test, train"):
        store.retrieval("label", queries="val")


def test_copies_and_groups_are_neither_found_nor_missed(tmp_path):
    """Each picture is there twice with a random label: with its copy as a hit R@1 would be 1."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 16))
    y = rng.integers(0, 4, 200)
    columns = {"label": [f"c{v}" for v in np.tile(y, 2)], "group": [f"g{i}" for i in np.tile(np.arange(200), 2)]}
    pair = np.concatenate([X, X + 0.01 * rng.normal(size=X.shape)])
    d = store_of(tmp_path / "a", pair, **columns).retrieval("label", near_duplicates="ignore").directions[0]
    assert d.scores["R@1"].value < 0.4
    assert (d.n_groups, d.n_excluded) == (200, 800)
    del columns["group"]
    found = store_of(tmp_path / "b", pair, **columns).retrieval("label", near_duplicate_threshold=0.99)
    assert found.directions[0].scores["R@1"].value == pytest.approx(d.scores["R@1"].value)
    assert found.near_duplicate_thresholds == {"numbers": 0.99}


def test_near_copies_of_queries_in_the_gallery_come_before_the_figures(tmp_path, capsys):
    """Of 40 test queries 15 have a near copy in training, 5 of them an equal one: in text, JSON and on the page."""
    X, y = clusters(120, 3, noise=3)
    X[80:95], y[80:95] = X[:15] * (1 + 0.03 * np.random.default_rng(0).normal(size=X[:15].shape)), y[:15]
    X[80:85] = X[:5]
    split = ["train"] * 80 + ["test"] * 40
    store = store_of(tmp_path / "s", X, label=y, split=split)
    options = {"queries": "test", "near_duplicate_threshold": 0.99}
    d = store.retrieval("label", **options).directions[0]
    leak = d.leak
    assert (leak.n_near, leak.n_identical, leak.n_other, leak.dropped) == (15, 5, 25, True)
    assert (15 * leak.score_near + 25 * leak.score_other) / 40 == pytest.approx(d.scores["R@1"].value)
    assert store.retrieval("label", near_duplicate_threshold=0.99).directions[0].leak is None, "each item in turn"
    assert store.retrieval("label", queries="test", near_duplicates="ignore").directions[0].leak is None
    line = "15 of 40 queries have a near copy in the gallery (5 identical), which is no candidate: R@1 "
    command = ["retrieval", str(store.path), "--queries", "test", "--near-duplicate-threshold", "0.99"]
    run([*command, "-o", str(tmp_path / "r.html")])
    assert capsys.readouterr().out.startswith(line)
    page = (tmp_path / "r.html").read_text()
    assert page.index(line) < page.index("<h1>")
    run([*command, "--json"])
    stated = json.loads(capsys.readouterr().out)["directions"][0]["leak"]
    assert (stated["n_near"], stated["R@1_near"]) == (15, leak.score_near)


def test_several_labels_need_one_in_common(tmp_path):
    """An item is relevant if it shares a label."""
    X = np.eye(3, 3, dtype=np.float32) + 0.5
    store = store_of(tmp_path / "s", X, tags=[["a", "b"], ["b"], ["c"]])
    d = store.retrieval("tags", near_duplicates="ignore").directions[0]
    assert (d.n_queries, d.n_without_relevant) == (2, 1)


def caption_store(path, seed=0):
    """12 pictures with one to three captions, one of them without, and the vectors of the captions in order."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(12, 8)).astype(np.float32)
    captions = [[f"picture {i} text {j}" for j in range(1 + i % 3)] for i in range(12)]
    captions[5] = []
    T = np.concatenate([X[[i]] + 0.9 * rng.normal(size=(1, 8)) for i, own in enumerate(captions) for _ in own])
    return store_of(path, X, caption=captions), X, captions, T.astype(np.float32)


def test_captions_find_images_and_back(tmp_path):
    """Both directions by definition: any caption of an image counts; images without a caption are no gallery."""
    store, X, captions, T = caption_store(tmp_path / "s")
    report = store.retrieval(captions="caption", caption_vectors=T, ks=[1, 5], near_duplicates="ignore")
    rows = [i for i in range(12) if captions[i]]
    owners = [i for i in range(12) for _ in captions[i]]
    images, texts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (X[rows], T))
    none = [False] * 100
    to_image = [
        figures_of(ranking(t @ images.T, [r == o for r in rows], none), [1, 5])
        for t, o in zip(texts, owners, strict=True)
    ]
    to_text = [
        figures_of(ranking(v @ texts.T, [o == r for o in owners], none), [1, 5])
        for v, r in zip(images, rows, strict=True)
    ]
    for name, expected in (("text to image", to_image), ("image to text", to_text)):
        found = {m: s.value for m, s in report[name].scores.items()}
        assert found == pytest.approx({m: np.mean([e[m] for e in expected]) for m in found})
    assert report.n_unlabeled == 1
    assert report["text to image"].n_groups == len(rows)


def test_flickr_captions(tmp_path, shared_data):
    """100 images with five captions: R@1 0.832 from text to image, as by search; rows of one image are one image."""
    folder = shared_data / "clip_vectors"
    store = es.create(tmp_path / "s")
    store.add_vectors(folder / "flickr100_image_vectors.npy", folder / "flickr100_metadata.csv")
    T = np.load(folder / "flickr100_text_vectors.npy")
    report = store.retrieval(captions="caption", caption_vectors=T, near_duplicates="ignore")
    assert report["text to image"].scores["R@1"].value == pytest.approx(0.832, abs=0.003)
    assert report["text to image"].scores["R@5"].value == pytest.approx(0.990, abs=0.003)
    assert (report["text to image"].n_gallery, report["image to text"].n_queries) == (100, 100)
    images, texts = np.load(folder / "flickr100_image_vectors.npy")[::5], T
    best = (images @ texts.T).argmax(1) // 5
    assert report["image to text"].scores["R@1"].value == pytest.approx((best == np.arange(100)).mean(), abs=0.011)


def test_a_text_of_two_images_is_right_for_both(tmp_path):
    """One query, two relevant images."""
    X = np.eye(3, dtype=np.float32)
    store = store_of(tmp_path / "s", X, caption=["a dog", "a dog", "a cat"])
    report = store.retrieval(captions="caption", caption_vectors=X, near_duplicates="ignore", ks=[2])
    assert report["text to image"].n_queries == 2
    assert report["image to text"].scores["R@2"].value == 1


def test_slices_of_r_at_1(tmp_path):
    """R@1 by a column, with the gap; the worst value has the noise."""
    X, y = clusters(200, 4, noise=0.4)
    camera = ["good", "bad"] * 100
    X[1::2] = np.random.default_rng(1).normal(size=(100, X.shape[1]))
    d = store_of(tmp_path / "s", X, label=y, camera=camera).retrieval("label", by="camera").directions[0]
    assert [s.value for s in d.slices.slices] == ["bad", "good"]
    assert d.slices.largest_gap.is_shown
    mean = np.average([s.accuracy.value for s in d.slices.slices], weights=[s.rows for s in d.slices.slices])
    assert mean == pytest.approx(d.scores["R@1"].value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ks": [0, 5]}, BadOption, "ranks of at least 1"),
        ({"ks": []}, BadOption, "ranks of at least 1"),
        ({"caption_vectors": np.eye(3)}, BadOption, "give captions"),
        ({"captions": "caption", "queries": "test"}, BadOption, "leave out queries"),
        ({"captions": "caption", "label": "label"}, BadOption, "leave out label"),
        ({"captions": "caption", "caption_vectors": np.ones((2, 8))}, BadVectors, "one row per caption"),
        ({"captions": "caption"}, es.EmbedstoreError, "precomputed|text"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, options, error, words):
    """The message names the option."""
    store = caption_store(tmp_path / "s")[0]
    with pytest.raises(error, match=words):
        store.retrieval(**options)


def test_nothing_to_find_is_an_error(tmp_path):
    """No label occurs twice."""
    store = store_of(tmp_path / "s", np.eye(4, dtype=np.float32), label=list("abcd"))
    with pytest.raises(LabelError, match="no item has another one of its label"):
        store.retrieval("label")


def run(command):
    """Run a command that succeeds."""
    with contextlib.suppress(SystemExit):
        main(command)


def test_the_command_prints_writes_and_records(tmp_path, capsys):
    """Text, JSON, page and the table of runs."""
    store, _, _, T = caption_store(tmp_path / "s")
    np.save(tmp_path / "t.npy", T)
    command = ["retrieval", str(store.path), "--captions", "caption", "--caption-vectors", str(tmp_path / "t.npy")]
    run([*command, "--json", "-k", "1,2", "-o", str(tmp_path / "r.html")])
    facts = json.loads(capsys.readouterr().out)
    assert [d["name"] for d in facts["directions"]] == ["text to image", "image to text"]
    assert "text to image" in (tmp_path / "r.html").read_text()
    run(command)
    assert "R@10" in capsys.readouterr().out
    assert store.sql("SELECT count(*) FROM runs WHERE verb = 'retrieval'").rows[0][0] == 2


@pytest.mark.parametrize(("mean", "n_groups", "per_group"), [(0.3, 60, 1), (0.8, 60, 1), (0.5, 40, 5), (0.95, 100, 1)])
def test_intervals_of_reciprocal_ranks_hold_their_level(mean, n_groups, per_group):
    """Clustered reciprocal ranks: the 95% interval holds the true mean in 92 to 99% of draws."""
    assert 0.92 <= coverage_of_ranks(mean, n_groups, per_group, 300) <= 0.995


def test_intervals_never_leave_0_and_1():
    """Perfect figures have a width, and a single query has the whole range or nearly so."""
    perfect = mean_estimate(np.ones(20), np.arange(20))
    assert (perfect.value, perfect.high) == (1, 1)
    assert 0.8 < perfect.low < 0.9
    nearly = mean_estimate(np.r_[np.ones(19), 0.5], np.arange(20))
    assert nearly.low < 0.9
    assert nearly.high <= 1
