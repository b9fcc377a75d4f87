"""Whether a label is a class, a quantity or a level: the rule, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedstore as es
from embedstore.classify.data.task import Task, parse_numbers, require_classes, with_task
from embedstore.errors import LabelError
from tests.classify.test_near_duplicates import features


def task_of(values, requested="auto"):
    """The rows of some labels with their task."""
    return with_task(features(np.zeros((len(values), 2)), [str(v) for v in values]), requested)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["cat", "dog"] * 5, Task.CLASSIFICATION),
        ([1.5, 2.5, 1.5, 2.5], Task.REGRESSION),  # few different numbers, but with a fraction
        ([1.0, 2.0] * 8, Task.CLASSIFICATION),  # whole numbers that pandas made floats
        (range(18, 91), Task.REGRESSION),  # ages, one item each
        (list(range(18, 91)) * 20, Task.REGRESSION),  # ages, many items each: no gaps, and not from 0 or 1
        (list(range(100)) * 5, Task.CLASSIFICATION),  # CIFAR-100
        (list(range(1, 201)) * 2, Task.CLASSIFICATION),  # CUB-200
        ([7 * n * n + 3 for n in range(2, 60)] * 2, Task.CLASSIFICATION),  # identifiers of species
        ([7 * n * n + 3 for n in range(2, 60)], Task.REGRESSION),  # prices, one item each
        (range(20), Task.CLASSIFICATION),
        (["007", "1"] * 20, Task.CLASSIFICATION),  # a code is no quantity
        (["1.5", "unknown"] * 20, Task.CLASSIFICATION),
        (["1e3", "-2.25", ".5", "3."] * 3, Task.REGRESSION),
    ],
)
def test_the_values_decide_what_a_label_is(values, expected):
    """Numbers with a fraction and many whole numbers are a quantity; what may be classes stays classes."""
    assert task_of(list(values)).task is expected


def test_the_choice_for_numbers_is_reported_and_can_be_overruled():
    """A note names the other choice; words have no note."""
    (note,) = task_of([1, 2, 3] * 5).label_notes
    assert note.startswith("label holds 3 different whole numbers and is read as classes; --task regression or")
    assert "--task classification reads it as classes" in task_of([1.5, 2.0]).label_notes[0]
    assert task_of(["a", "b"]).label_notes == ()
    assert task_of([1.5, 2.5], "classification").task is Task.CLASSIFICATION
    assert task_of([1, 2, 3], "ordinal").numbers.tolist() == [1, 2, 3]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_number_that_is_written_is_read_back(numbers):
    """The text of a float gives the same float."""
    texts = np.array([repr(v) for v in numbers], object)
    assert parse_numbers(texts).tolist() == numbers


def test_infinite_labels_are_left_out_and_counted():
    """They are no quantity that a head could learn."""
    data = task_of([1.5, "inf", 2.5, "-inf"])
    assert data.numbers.tolist() == [1.5, 2.5]
    assert len(data) == 2
    assert "2 items have an infinite label and were left out" in data.label_notes
    with pytest.raises(LabelError, match="every 'label' is infinite"):
        task_of(["inf", "inf"], "regression")


def test_words_cannot_be_a_quantity_and_several_labels_have_no_order():
    """The message names a value that is no number; an unknown task is refused."""
    with pytest.raises(LabelError, match="regression needs numbers, and 'label' holds 'cat'"):
        task_of(["cat", "1"], "regression")
    with pytest.raises(LabelError, match="task must be auto, classification, regression or ordinal, not 'regresion'"):
        task_of(["1", "2"], "regresion")
    several = replace(features(np.zeros((2, 2)), ["1", "2"]), multilabel=True)
    with pytest.raises(LabelError, match="an item may have several 'label'"):
        with_task(several, "ordinal")
    assert with_task(several).task is Task.CLASSIFICATION


def test_verbs_that_need_classes_refuse_a_quantity_with_a_cure_that_works(tmp_path):
    """The message has a command that makes two classes; after it the verb works on the new column."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    store = es.create(tmp_path / "s.store")
    store.add_vectors(X, {"uri": [f"/{n}" for n in range(60)], "label": [f"{v:.3f}" for v in 30 + X[:, 0]]})
    with pytest.raises(LabelError, match="label-errors needs classes, and 'label' holds numbers") as refused:
        store.label_errors("label")
    assignment = str(refused.value).split("--set '")[1].split("'`")[0]
    name, expression = assignment.split("=", 1)
    store.edit({name: expression}, "true", create_columns=True)
    assert set(store.distinct_labels(name)) == {"true", "false"}
    store.label_errors(name)
    for verb in (store.suggest_labels, store.advise):
        with pytest.raises(LabelError, match="needs classes"):
            verb("label")


def test_classes_pass_unchanged():
    """Classes that are whole numbers are accepted without a note."""
    data = features(np.zeros((4, 2)), ["1", "2", "1", "2"])
    assert require_classes(data, "label-errors") is data
