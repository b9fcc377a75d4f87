"""After fine-tuning, a switch to the new space is advised only where its probe is better."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import embedstore as es
from embedstore.cli.finetuning import switch_note
from tests.helpers.clusters import add, clusters, store_of
from tests.helpers.cures import Cure, follow


def test_a_switch_is_advised_only_to_a_better_space(tmp_path):
    """Against noise the old space is kept; the other way round the command is named, with the quoted folder."""
    X, y = clusters(200, noise=1.0)
    store = store_of(tmp_path / "s", X, label=y)
    add(store, np.random.default_rng(0).normal(size=(200, 16)), "noise")
    worse = store.compare_spaces("label", "noise", "numbers")
    assert switch_note(Path("my store"), "noise", worse).startswith(
        "keep numbers: with noise, logistic is not better (-"
    )
    better = store.compare_spaces("label", "numbers", "noise")
    note = switch_note(Path("my store"), "numbers", better)
    assert note == "make it the default with `embedstore set-default 'my store' numbers`"


def test_the_command_of_a_switch_works(capsys, monkeypatch, tmp_path):
    """The store lies in a folder with a space in its name, and the new space has one in its own."""

    def switch(folder):
        X, y = clusters(200, noise=1.0)
        store = store_of(folder / "my store", np.random.default_rng(0).normal(size=(200, 16)), label=y)
        add(store, X, "new space")
        note = switch_note(Path("my store"), "new space", store.compare_spaces("label", "new space", "numbers"))
        print(note)

    monkeypatch.chdir(tmp_path)
    follow(Cure("set-default {} {}", switch, "info S", {}, works="info S"), tmp_path, capsys)
    assert [s.name for s in es.open(tmp_path / "my store").spaces if s.is_default] == ["new space"]


def test_a_gain_that_may_be_none_is_said(tmp_path):
    """The same vectors twice with a little noise: no advice without a word of doubt."""
    X, y = clusters(200, noise=1.6)
    store = store_of(tmp_path / "s", X, label=y)
    add(store, X + 0.01 * np.random.default_rng(0).normal(size=X.shape), "again")
    note = switch_note(Path("s"), "again", store.compare_spaces("label", "again", "numbers"))
    assert note.startswith(("keep numbers", "again may be no better"))
