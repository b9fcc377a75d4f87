"""What a caller writes as preprocessing or as arguments of a backbone is recorded, and can be read again."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import embedstore as es
from embedstore.errors import BadOption
from tests.conftest import TINY

HALF = {"size": 32, "resize": 32, "mean": "0.5,0.5,0.25", "std": 0.5}


@pytest.mark.parametrize(
    "mean",
    [
        [0.5, 0.5, 0.25],
        (0.5, 0.5, 0.25),
        np.array([0.5, 0.5, 0.25]),
        np.array([0.5, 0.5, 0.25], np.float32),
        torch.tensor([0.5, 0.5, 0.25]),
        pd.Series([0.5, 0.5, 0.25]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_numbers_in_any_form_are_the_same_space(tmp_path, mean):
    """A list, an array, a tensor: the space is that of the text, and the store opens again."""
    es.create(tmp_path / "a", TINY, random_init=True, preprocess=HALF)
    es.create(tmp_path / "b", TINY, random_init=True, preprocess=HALF | {"mean": mean, "size": np.int64(32)})
    a, b = (es.open(tmp_path / name).info().spaces for name in "ab")
    assert [space.key for space in a] == [space.key for space in b]


@pytest.mark.parametrize(
    "value", [{"a": 1}, ["x", "y"], [[0.5]], object(), math.nan, [math.inf, 1, 1], b"0.5"], ids=lambda v: str(type(v))
)
@pytest.mark.parametrize("parameter", ["preprocess", "backbone_args"])
def test_what_a_recipe_cannot_record_is_refused_before_anything_is_created(tmp_path, parameter, value):
    """One line names the parameter and the value."""
    with pytest.raises(BadOption, match=parameter):
        es.create(tmp_path / "s", TINY, random_init=True, **{parameter: {"mean": value}})
    assert not (tmp_path / "s").exists()
