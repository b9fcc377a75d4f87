"""Columns that predict the label better than a head does are found, and others seldom."""

import numpy as np
import pytest

from embedstore.classify.evaluation.column_faults import (
    LEVEL,
    folders_without_labels,
    predicted_right,
    telling_columns,
)


def labels_and_head(seed, n=300, accuracy=0.8):
    """Return labels of three classes, and which of them a head predicts right."""
    rng = np.random.default_rng(seed)
    return rng.choice(["ant", "bee", "cat"], n), rng.random(n) < accuracy, rng


def test_a_camera_that_goes_with_the_label_is_found():
    """A column of texts that agrees with the label in 95% of the rows beats a head that is right in 80%."""
    y, head, rng = labels_and_head(0)
    camera = np.where(rng.random(300) < 0.95, np.char.add("camera of ", y), "camera of bee").astype(object)
    (found,) = telling_columns({"camera": camera, "noise": rng.choice(["a", "b"], 300).astype(object)}, y, head)
    assert found.name == "camera"
    assert not found.is_renaming
    assert found.accuracy == pytest.approx(np.mean(camera == np.char.add("camera of ", y)), abs=0.02)
    assert found.head_accuracy == pytest.approx(head.mean())


def test_numbers_are_used_by_ranges():
    """Days of three trips, one per class, tell the label; a missing day is a value like any other."""
    y, head, rng = labels_and_head(1)
    day = 100.0 * np.unique(y, return_inverse=True)[1] + rng.uniform(0, 60, 300)
    day[rng.random(300) < 0.05] = np.nan
    (found,) = telling_columns({"day": day, "noise": rng.random(300)}, y, head)
    assert found.name == "day"


def test_another_form_of_the_label_is_named_as_such():
    """A number per class is a renaming of the label."""
    y, head, _ = labels_and_head(2)
    (found,) = telling_columns({"code": np.unique(y, return_inverse=True)[1].astype(str).astype(object)}, y, head)
    assert found.is_renaming


def test_a_column_that_predicts_no_better_is_not_found():
    """A column that is right as often as the head, in other rows, is no finding."""
    y, head, rng = labels_and_head(3)
    column = np.where(rng.random(300) < 0.7, y, "ant").astype(object)
    assert telling_columns({"column": column}, y, head) == []


def test_names_of_files_predict_nothing():
    """A value that occurs once says nothing about other rows."""
    y, _, _ = labels_and_head(4)
    right = predicted_right(np.array([f"{n}.jpg" for n in range(300)], object), y)
    assert right.mean() < 0.5


def test_few_rows_and_constant_columns_are_left_out():
    """Nineteen rows are too few; a column of one value tells nothing."""
    y = labels_and_head(5)[0]
    assert telling_columns({"column": y.astype(object)[:19]}, y[:19], np.zeros(19, bool)) == []
    assert telling_columns({"column": np.full(300, None)}, y, np.zeros(300, bool)) == []


@pytest.mark.parametrize("sets", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_level_holds(sets):
    """Where columns and head are right equally often, at most 5% of the sets have a finding, by 3 standard errors."""
    found = 0
    for seed in range(sets):
        y, head, rng = labels_and_head(1000 + seed, n=80, accuracy=0.7)
        columns = {str(k): np.where(rng.random(80) < 0.55, y, rng.permutation(y)).astype(object) for k in range(4)}
        found += bool(telling_columns(columns, y, head))
    assert found <= sets * LEVEL + 3 * np.sqrt(sets * LEVEL)


def test_folders_that_are_labels_do_not_count():
    """The folder of the label is left out, also where a label was corrected, and the folder of the camera stays."""
    uris = ["/d/phone/cat/1.jpg", "/d/phone/dog/2.jpg", "/d/dslr/cat/3.jpg"]
    assert folders_without_labels(uris, np.array(["cat", "cat", "dog"])).tolist() == ["/d/phone", "/d/phone", "/d/dslr"]
