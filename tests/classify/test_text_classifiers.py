"""Text classifiers through the store: class names alone, and with a few labeled images."""

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadHead, DimensionMismatch, LabelError, NoTextTower, UnknownHead
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def words():
    """One vector per class, each with noise added to the center of the class."""
    X, y = clusters(3, noise=0)
    return [*y], X + 0.9 * np.random.default_rng(3).standard_normal(X.shape)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    X, y = clusters(300, noise=1.0)
    split = [("train", "train", "val", "test")[n % 4] for n in range(300)]
    return store_of(tmp_path_factory.mktemp("words") / "s", X, label=y, split=split)


def test_zero_shot_equals_the_nearest_class_vector(store, words):
    """The accuracy on the test split equals that of the largest cosine, computed by hand."""
    names, vectors = words
    e = store.zero_shot(names, class_vectors=vectors).evaluate("label")
    data = store.features("label", where="split = 'test'")
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    predicted = np.array(names)[(unit(data.X) @ unit(vectors).T).argmax(1)]
    assert (e.split, e.n_held_out, e.n_train) == ("test", 75, 0)
    assert e.accuracy == pytest.approx((predicted == data.y).mean())


@pytest.mark.parametrize("head", ["tip-adapter", "tip-adapter-f", "blend"])
def test_few_shots_help_and_none_is_zero_shot(store, words, head):
    """16 shots are no worse than zero-shot, 0 shots are zero-shot, and the tuning rows are those of ``val``."""
    names, vectors = words
    alone = store.zero_shot(names, class_vectors=vectors).evaluate("label").accuracy
    none = store.few_shot("label", names, head=head, shots=0, class_vectors=vectors)
    some = store.few_shot("label", names, head=head, shots=16, class_vectors=vectors)
    assert none.accuracy == pytest.approx(alone)
    assert some.accuracy >= alone
    assert (some.split, some.n_train, some.hyperparameters["tuned_on"]) == ("test", 48, "validation rows")


def test_few_shot_curve_ends_with_all_training_rows(store, words):
    """The last point equals the accuracy of the head that is fitted on all training rows."""
    names, vectors = words
    found = store.few_shot_curve("label", names, shots=(1, 4), repeats=3, class_vectors=vectors)
    assert [(p.labels_per_class, p.n_train, len(p.values)) for p in found.points] == [
        (1, 3, 3),
        (4, 12, 3),
        (None, 150, 1),
    ]
    every = store.few_shot("label", names, shots=1000, class_vectors=vectors)
    assert found.points[-1].mean == pytest.approx(every.accuracy)


def test_wrong_heads_vectors_and_spaces_are_refused(store, words):
    """An unknown head, too few class vectors and a space without a text tower are errors."""
    names, vectors = words
    with pytest.raises(UnknownHead, match="did you mean tip-adapter"):
        store.few_shot("label", names, head="tipadapter", class_vectors=vectors)
    with pytest.raises(DimensionMismatch):
        store.zero_shot(names, class_vectors=vectors[:2])
    with pytest.raises(NoTextTower):
        store.zero_shot(names)


def test_a_text_tower_encodes_templates_and_prompts(tmp_path, photos):
    """With a small CLIP of random weights the predictions are the largest cosines of the encoded class names."""
    from embedstore.classify.heads import build_prompts, encode_class_vectors
    from tests.helpers.networks import local_clip

    store = es.create(tmp_path / "s", local_clip(tmp_path / "clip"))
    store.embed(photos)
    e = store.zero_shot(["cat", "dog"], templates=["{}", "a {}"]).evaluate("label")
    assert (e.split, e.n_held_out) == ("val", 4)
    network = store.backbone()
    text = encode_class_vectors(network.encode_texts, build_prompts(["cat", "dog"], ["{}", "a {}"]))
    data = store.features("label", where="split = 'val'")
    predicted = np.array(["cat", "dog"])[(data.X @ text.T).argmax(1)]
    assert e.accuracy == pytest.approx((predicted == data.y).mean())
    few = store.few_shot("label", {"cat": "a cat", "dog": ["a dog", "dogs"]}, shots=2)
    assert (few.n_train, few.n_held_out) == (4, 4)
    with pytest.raises(LabelError, match="at least two classes"):
        store.zero_shot(["cat"])


def test_text_heads_and_probes_are_compared_on_the_same_rows(store, words):
    """Zero-shot, few-shot and a probe have the same held-out items and training rows, also with folds."""
    names, vectors = words
    for folds in (0, 3):
        found = store.compare_heads(
            "label", heads=["logistic", "zero-shot", "tip-adapter"], classes=names, class_vectors=vectors, folds=folds
        )
        evaluations = [r.evaluation for r in found.results]
        assert {e.head for e in evaluations} == {"logistic", "zero-shot", "tip-adapter"}
        ids = [sorted(e.held_out_predictions.ids.tolist()) for e in evaluations]
        assert ids[0] == ids[1] == ids[2]
        assert len({e.n_train for e in evaluations}) == 1


def test_classes_that_are_not_named_count_as_wrong_everywhere(store, words):
    """Two of three classes are named: zero-shot and few-shot with 0 shots agree, and no row is left out."""
    names, vectors = words
    zero = store.zero_shot(names[:2], class_vectors=vectors[:2]).evaluate("label")
    none = store.few_shot("label", names[:2], class_vectors=vectors[:2], shots=0)
    assert (zero.n_held_out, zero.accuracy) == (none.n_held_out, none.accuracy)
    assert zero.unlearned_classes == none.unlearned_classes == (names[2],)
    some = store.few_shot("label", names[:2], class_vectors=vectors[:2], shots=1000)
    share = np.mean(some.held_out_predictions.y == names[2])
    assert share > 0.2
    assert some.accuracy <= 1 - share
    curve = store.few_shot_curve("label", names[:2], shots=(1,), repeats=1, class_vectors=vectors[:2])
    assert curve.points[-1].values[0] == pytest.approx(some.accuracy)
    assert curve.points[-1].n_train == some.n_train


def test_text_heads_in_a_comparison_are_not_calibrated(store, words):
    """The error names the head and what to leave out."""
    names, vectors = words
    with pytest.raises(BadHead, match="zero-shot is not calibrated in a comparison"):
        store.compare_heads("label", heads=["zero-shot"], classes=names, class_vectors=vectors, calibrate="temperature")
