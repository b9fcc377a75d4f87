"""The commands that messages on weights name are followed as they are written."""

import duckdb
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import embedstore as es
from tests.helpers.cures import Cure, follow, name_of

NAME, SIZE = "timm/test_resnet", {"size": 32, "resize": 32}


def with_weights(folder):
    """A store in the space of a file of weights, and a photo that is new; the file."""
    torch.manual_seed(0)
    weights = folder / "old.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    (folder / "p").mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "p" / "old.png")
    es.create(folder / "my store", NAME, weights=weights, preprocess=SIZE).embed(folder / "p", progress=False)
    Image.new("RGB", (16, 16), "blue").save(folder / "p" / "new.png")
    return weights


def with_moved_weights(folder):
    """The file has another name now."""
    with_weights(folder).rename(folder / "new.safetensors")


def with_recipe_of_a_stranger(folder):
    """The recipe of the store names a file inside the store as the weights."""
    weights = with_weights(folder)
    inside = folder / "my store" / "weights.safetensors"
    inside.write_bytes(weights.read_bytes())
    weights.rename(folder / "new.safetensors")
    with duckdb.connect(str(folder / "my store" / "catalog.duckdb")) as con:
        con.execute("UPDATE spaces SET recipe = replace(recipe::VARCHAR, ?, ?)", [str(weights), str(inside)])


ROWS = [
    Cure(
        "embed STORE SOURCE --backbone {} --weights FILE{}",
        with_moved_weights,
        "embed S p --runtime eager",
        {"SOURCE": "p", "FILE": "new.safetensors"},
    ),
    Cure(
        "embed STORE SOURCE --backbone NAME --weights FILE{}",
        with_recipe_of_a_stranger,
        "embed S p --runtime eager",
        {"SOURCE": "p", "NAME": NAME, "FILE": "new.safetensors"},
    ),
]


@pytest.mark.parametrize("cure", ROWS, ids=name_of)
def test_the_command_of_a_message_works(capsys, monkeypatch, tmp_path, cure):
    """The file is named once more, and the space goes on."""
    monkeypatch.chdir(tmp_path)
    follow(cure, tmp_path, capsys)
    assert [s.name for s in es.open(tmp_path / "my store").spaces] == ["test_resnet"]
