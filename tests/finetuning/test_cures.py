"""The commands that messages of fine-tuning name are followed as they are written."""

import shutil
from collections import namedtuple

import pytest

from tests.helpers.clusters import add, clusters
from tests.helpers.cures import Cure, follow, name_of
from tests.helpers.finetune_store import QUICK, textures
from tests.helpers.finetune_store import store_of as store_of_photos

X, Y = clusters(40, noise=0.1)


def with_textures(folder):
    """A store of textures that was never tuned."""
    return store_of_photos(folder / "my store", textures(folder / "p", 10))


def with_needed_parent(folder):
    """A tuned space, and a head in its parent."""
    store = with_textures(folder)
    store.finetune("label", space_name="tuned space", embed=True, progress=False, **QUICK)
    store.probe("label", head="ridge", save_as="line")
    store.set_default("tuned space")


ROWS = [
    Cure(
        "finetune STORE LABEL",
        with_textures,
        "compare-spaces S label",
        {"LABEL": "label"},
    ),
    Cure(
        "set-default STORE {} --refit-heads",
        with_needed_parent,
        "drop-space S test_resnet",
        {},
    ),
]


@pytest.mark.parametrize("cure", ROWS, ids=name_of)
def test_the_command_of_a_message_works(capsys, monkeypatch, tmp_path, cure):
    """A training where none was, and heads that move to the tuned space."""
    monkeypatch.chdir(tmp_path)
    follow(cure, tmp_path, capsys)


def test_a_disk_that_is_too_full_for_a_training_has_room_after_a_space_is_dropped(capsys, monkeypatch, tmp_path):
    """The disk says what it would say: no byte is free until the space is dropped."""

    def with_two_spaces(folder):
        add(with_textures(folder), X[:30], "other space")

    usage = namedtuple("usage", "free")
    other = tmp_path / "my store" / "spaces"
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(0) if len([*other.iterdir()]) > 1 else real(p))
    cure = Cure(
        "drop-space STORE SPACE",
        with_two_spaces,
        "finetune S label --epochs 1",
        {"SPACE": "other space"},
    )
    monkeypatch.chdir(tmp_path)
    follow(cure, tmp_path, capsys)
