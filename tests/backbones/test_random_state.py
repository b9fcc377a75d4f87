"""Embedding neither draws from the random generators of a program nor depends on them."""

import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedstore.backbones import load, resolve_name
from embedstore.space import Recipe
from tests.helpers import sound_models, text_models
from tests.helpers.sound_models import save_sound_model, sound_file, tone
from tests.helpers.text_models import save_model

pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")


def seed_all(seed):
    """Seed the generators that libraries draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def states():
    """Return the states of the generators that libraries draw from."""
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(np.random.get_state()), random.getstate()  # noqa: NPY002


def vectors(folder, items):
    """Load a folder and embed items two at a time."""
    backbone = load(Recipe(resolve_name(f"hf/{folder}")), device="cpu")
    prepared = [backbone.prepare(item)[0] for item in items]
    return np.concatenate([backbone.encode(prepared[at : at + 2]) for at in range(0, len(prepared), 2)])


@pytest.mark.parametrize("family", [*sound_models.FAMILIES, *text_models.FAMILIES])
def test_vectors_neither_change_nor_depend_on_the_random_state(family, tmp_path):
    """Some networks of sound draw a number per layer, and the feature extractor of fused CLAP draws an item."""
    if family in sound_models.FAMILIES:
        pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
        folder = save_sound_model(tmp_path / family, family)
        items = [sound_file(tone(0.3 + 0.4 * n, pitch=200 + 100 * n, seed=n)) for n in range(4)]
    else:
        folder = save_model(tmp_path / family, family)
        items = [b"the dog", b"a beach", b"the dog on the beach", b"late delivery"]
    results = []
    for seed in (1, 2):
        seed_all(seed)
        before = states()
        results.append(vectors(folder, items))
        assert states() == before
    np.testing.assert_array_equal(*results)


def test_a_parameter_for_training_that_no_file_has_is_the_same_in_every_process(tmp_path):
    """Wav2Vec2 without the vector that masks frames in training: the space does not depend on a seed of the program."""
    folder = save_sound_model(tmp_path / "m", "wav2vec2")
    path = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(path).items() if name != "masked_spec_embed"}
    assert len(kept) == len(load_file(path)) - 1
    save_file(kept, path, metadata={"format": "pt"})
    spaces = []
    for seed in (1, 2):
        seed_all(seed)
        spaces.append(load(Recipe(resolve_name(f"hf/{folder}")), device="cpu").space)
    assert spaces[0] == spaces[1]
