"""No verb changes the random generators of the program that calls it: its own draws are the same after it."""

import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import embedstore as es
from embedstore.classify.protocols import sound_probes
from tests.helpers.sound_models import save_sound_model, sound_file, tone

pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")
pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")

VERBS = {
    "embed": lambda store, folder: store.embed(folder / "more"),
    "reembed": lambda store, folder: store.reembed(),
    "search": lambda store, folder: store.search(folder / "clips/low/1.wav", k=3),
    "probe": lambda store, folder: store.probe("label"),
    "probe hear": lambda store, folder: store.probe("label", protocol="hear"),
    "probe superb": lambda store, folder: store.probe("label", protocol="superb"),
    "probe mlp": lambda store, folder: store.probe("label", head="mlp", head_options={"hidden": 16, "max_epochs": 9}),
    "knn": lambda store, folder: store.knn("label"),
    "learning_curve": lambda store, folder: store.learning_curve("label", labels_per_class=[4], repeats=1),
    "label_errors": lambda store, folder: store.label_errors("label"),
    "duplicates": lambda store, folder: store.duplicates(),
    "map": lambda store, folder: store.map(),
    "checkup": lambda store, folder: store.checkup("label"),
    "finetune": lambda store, folder: store.finetune("label", layers="last-1", epochs=1),
}
SLOW = ("probe hear", "probe superb")
PROGRAM = """
import random
random.seed(3)
before = random.getstate()
import embedstore as es
es.Store
import rich.progress, sklearn.linear_model
assert random.getstate() == before
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of short tones of two pitches, by a network that draws a number per layer."""
    folder = tmp_path_factory.mktemp("random")
    for name, pitch in (("low", 300), ("high", 900)):
        (folder / "clips" / name).mkdir(parents=True)
        for n in range(12):
            data = sound_file(tone(0.1 + 0.01 * n, pitch=pitch + 10 * n, seed=n))
            (folder / "clips" / name / f"{n}.wav").write_bytes(data)
    (folder / "more").mkdir()
    (folder / "more" / "new.wav").write_bytes(sound_file(tone(0.3, seed=99)))
    with es.create(folder / "s.store", f"hf/{save_sound_model(folder / 'm', 'hubert')}", device="cpu") as store:
        store.embed(folder / "clips")
    return folder


def states():
    """Return the states of the generators that libraries draw from."""
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(np.random.get_state()), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("verb", [pytest.param(v, marks=[pytest.mark.slow] if v in SLOW else []) for v in VERBS])
def test_a_verb_leaves_the_random_generators_as_they_were(verb, folder, monkeypatch):
    """PyTorch's, NumPy's and Python's, also when the store and its network are opened for it."""
    monkeypatch.setattr(sound_probes, "HIDDEN", 16)  # eight networks of 1,024 units take minutes
    monkeypatch.setattr(sound_probes, "GRID_POINTS", 2)
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = states()
    with es.open(folder / "s.store", device="cpu") as store:
        VERBS[verb](store, folder)
    assert [a == b for a, b in zip(states(), before, strict=True)] == [True] * 3


def test_the_first_verb_of_a_program_draws_nothing_either():
    """The import of rich draws a number: the library imports it first, and gives the draw back."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
