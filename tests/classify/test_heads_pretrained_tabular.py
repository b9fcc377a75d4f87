"""Heads of TabPFN and TabICL: what is missing is named; with a package and local weights they are evaluated."""

import sys

import numpy as np
import pytest
import torch

from embedstore.classify import heads
from embedstore.errors import BadHead, MissingExtra, UnknownHead, WeightsNotFound
from tests.helpers.clusters import clusters, store_of


@pytest.fixture
def store(tmp_path):
    X, y = clusters(90, dim=6)
    return store_of(tmp_path / "s", X, label=y)


@pytest.mark.parametrize("name", heads.OPTIONAL_HEAD_NAMES)
def test_a_missing_package_is_named(store, name, monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=f"head {name} needs the package {name}: pip install {name}"):
        store.probe("label", head=name)


def test_more_rows_than_it_reads_are_refused_before_anything_is_loaded():
    """10,000 rows at most."""
    with pytest.raises(BadHead, match="at most 10,000 rows, not 10,001"):
        heads.make_head("tabicl").fit(np.zeros((10_001, 2)), np.arange(10_001) % 2)


def test_an_unknown_head_names_these_too(store):
    """A misspelt name finds the near one."""
    with pytest.raises(UnknownHead, match="did you mean tabicl"):
        store.probe("label", head="tabcl")


def test_missing_weights_are_named(store, monkeypatch, tmp_path):
    """Nothing is downloaded: the option and the variable are in the message."""
    pytest.importorskip("tabicl", reason="tabicl is not installed")
    monkeypatch.delenv("EMBEDSTORE_TABICL_WEIGHTS", raising=False)
    with pytest.raises(WeightsNotFound, match=r"--head-arg weights=FILE, or set EMBEDSTORE_TABICL_WEIGHTS"):
        store.probe("label", head="tabicl")
    with pytest.raises(WeightsNotFound, match=r"no\.ckpt is not a file"):
        store.probe("label", head="tabicl", head_options={"weights": str(tmp_path / "no.ckpt")})


def test_it_is_evaluated_and_compared_with_local_weights(store, monkeypatch, tmp_path):
    """A network with random weights from a file gives probabilities; it cannot be saved, and the message says so."""
    network = pytest.importorskip("tabicl._model.tabicl", reason="tabicl is not installed")
    config = {"max_classes": 10, "embed_dim": 64, "col_num_blocks": 1, "row_num_blocks": 1, "icl_num_blocks": 1}
    torch.manual_seed(0)
    torch.save({"config": config, "state_dict": network.TabICL(**config).state_dict()}, tmp_path / "w.ckpt")
    monkeypatch.setenv("EMBEDSTORE_TABICL_WEIGHTS", str(tmp_path / "w.ckpt"))
    found = store.compare_heads("label", heads=["prototype", "tabicl"], near_duplicates="ignore")
    e = next(r.evaluation for r in found.results if r.evaluation.head == "tabicl")
    assert e.held_out_predictions.proba.sum(1) == pytest.approx(np.ones(e.n_held_out), abs=1e-5)
    with pytest.raises(BadHead, match="cannot be stored"):
        store.probe("label", head="tabicl", save_as="t", near_duplicates="ignore")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint" * 50, {"a": 1}], ids=["empty", "text", "other keys"])
@pytest.mark.parametrize("name", heads.OPTIONAL_HEAD_NAMES)
def test_a_file_that_is_no_checkpoint_is_named(store, name, content, tmp_path):
    """Whatever the package raises for it is one line with the file, also on the command line."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    file = tmp_path / "w.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(WeightsNotFound, match=rf"the package {name} cannot use the weights .*w\.ckpt"):
        store.probe("label", head=name, head_options={"weights": str(file)})
