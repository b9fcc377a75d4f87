"""The training script of the bundled network: it learns, resumes exactly, and writes a loadable network."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedstore import backbones
from embedstore.space import Recipe
from tests.conftest import ROOT
from tools.tiny import merges, network, scenes, train

PLAN = train.Plan(
    scenes=128, part=64, steps=6, restart_steps=2, batch_size=32, warmup_steps=2, save_every=4, hard_from=3
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Scenes, vocabulary and tokens of a small plan, and the weights after its eight steps."""
    folder = tmp_path_factory.mktemp("work")
    torch.set_num_threads(1)
    scenes.write(folder / "scenes", PLAN.scenes, PLAN.seed, 1, part=PLAN.part)
    train.prepare(folder, PLAN)
    train.train(folder, PLAN, "cpu")
    return folder


def unstarted_copy(work, tmp_path):
    """Return the prepared folder without what training wrote."""
    for name in ("scenes", "tokens.npy", "alike.npy", network.MERGES, network.CONFIG):
        (tmp_path / name).symlink_to(work / name)
    return tmp_path


def test_resumed_training_gives_the_weights_of_uninterrupted_training(work, tmp_path):
    """Stopped after step four and resumed in another process, the weights are equal bit for bit."""
    folder = unstarted_copy(work, tmp_path)
    code = (
        "import sys, torch; from pathlib import Path; from dataclasses import replace; from tools.tiny import train\n"
        "torch.set_num_threads(1)\n"
        "train._save_real = train._save\n"
        "def stop(*a):\n    train._save_real(*a); sys.exit(9)\n"
        "train._save = stop\n"
        f"train.train(Path({str(folder)!r}), train.{PLAN!r}, 'cpu')\n"
    )
    first = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert first.returncode == 9, first.stderr
    assert not (folder / network.WEIGHTS).exists()
    train.train(folder, PLAN, "cpu")
    whole, resumed = (load_file(f / network.WEIGHTS) for f in (work, folder))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_training_lowers_the_loss(work, tmp_path, capsys):
    """Forty steps on 128 scenes lower the loss well below that of a guess, ln 32."""
    train.train(unstarted_copy(work, tmp_path), replace(PLAN, steps=40, restart_steps=0, save_every=40), "cpu")
    assert float(capsys.readouterr().out.split("loss ")[1].split()[0]) < 0.93 * np.log(32)


def test_the_trained_network_loads_as_a_backbone(work):
    """The folder loads like any other local CLIP, in float16, with a text encoder."""
    backbone = backbones.load(Recipe(f"open_clip/local-dir:{work}"))
    assert (backbone.space.dim, backbone.space.text) == (256, True)
    assert backbone.encode_texts(["a red star"]).shape == (1, 256)


def test_every_other_batch_has_one_scene_group_from_hard_from_on():
    """Before ``hard_from`` all batches are random and cover every scene once; after it the odd ones have one group."""
    groups = np.arange(128) // 32 * 7
    batches = [train.select_batch(PLAN, groups, step)[0] for step in range(12)]
    kinds = [len(set(groups[rows])) for rows in batches]
    assert [k == 1 for k in kinds] == [step >= 3 and step % 2 == 1 for step in range(12)]
    early = replace(PLAN, hard_from=99)
    assert sorted(np.concatenate([train.select_batch(early, groups, step)[0] for step in range(4)])) == list(range(128))


def test_frequent_words_become_one_token(tmp_path):
    """The most frequent pair is merged first; words below the limit stay in pieces."""
    learned = merges.learn(["ab ab ab"] * 10 + ["ac"] * 20 + ["zz"])
    assert learned == [("a", "b</w>"), ("a", "c</w>")]
    merges.write(tmp_path / network.MERGES, learned)
    tokenizer = network.tokenizer(tmp_path)
    assert tokenizer.vocab_size == 512 + 2 + 2
    assert tokenizer(["ab ac"])[0, :4].tolist() == [514, 512, 513, 515]
