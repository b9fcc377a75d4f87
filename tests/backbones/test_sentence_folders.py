"""Folders of sentence-transformers by `hf/FOLDER`: their pooling, dense layers, prompts, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedstore.errors import BadBackbone, WeightsMismatch, WeightsNotFound
from tests.helpers.text_models import (
    items,
    library_vectors,
    load_folder,
    save_model,
    write_modules,
    write_sentence_files,
)

pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The folder of a small network."""
    return save_model(tmp_path_factory.mktemp("models") / "bert", "bert")


def test_the_files_of_sentence_transformers_decide(tmp_path, bert):
    """modules.json gives pooling, length 1 and prompts; --pool and --preprocess outweigh them."""
    folder = shutil.copytree(bert, tmp_path / "sentences")
    write_sentence_files(folder, pool={"pooling_mode_cls_token": True}, prompts={"query": "the ", "document": "a "})
    backbone = load_folder(folder)
    assert (backbone.space.pool, backbone.space.unit) == ("cls", True)
    expected = library_vectors(folder, "a dog runs")[0]
    np.testing.assert_allclose(items(backbone, ["dog runs"])[0], expected / np.linalg.norm(expected), atol=1e-5)
    expected = library_vectors(folder, "the dog runs")[0]
    np.testing.assert_allclose(backbone.encode_texts(["dog runs"])[0], expected / np.linalg.norm(expected), atol=1e-5)
    other = load_folder(folder, pool="mean", preprocess={"prompt": ""})
    assert (other.space.pool, other.space.input.prompt, other.space.input.query_prompt) == ("mean", "", "the ")
    assert other.space.key != backbone.space.key


def test_several_poolings_of_a_folder_are_put_one_after_the_other(tmp_path, bert):
    """Both forms of 1_Pooling/config.json are read."""
    for name, pool in {
        "old": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        "new": {"pooling_mode": ["cls", "mean"]},
    }.items():
        folder = shutil.copytree(bert, tmp_path / name)
        write_sentence_files(folder, pool=pool, normalize=False)
        space = load_folder(folder).space
        assert (space.pool, space.dim, space.unit) == ("cls+mean", 64, False)


def dense_folder(folder, path):
    """A copy of BERT's folder with two dense layers after the mean of its tokens."""
    shutil.copytree(folder, path)
    torch.manual_seed(0)
    layers = [(32, 48, "torch.nn.modules.activation.Tanh"), (48, 16, None)]
    write_sentence_files(path, pool={"pooling_mode_mean_tokens": True}, dense=layers)
    return path


def test_dense_layers_follow_the_pooling(tmp_path, bert):
    """Items and queries have the vector worked out by hand; another weight of a layer is another space."""
    folder = dense_folder(bert, tmp_path / "dense")
    backbone = load_folder(folder)
    assert (backbone.space.dim, backbone.space.pool, backbone.space.unit) == (16, "mean", True)
    first, second = (load_file(folder / path / "model.safetensors") for path in ("2_Dense", "3_Dense"))
    pooled = torch.from_numpy(library_vectors(folder, "a dog runs").mean(axis=0))
    hidden = torch.tanh(first["linear.weight"] @ pooled + first["linear.bias"])
    expected = torch.nn.functional.normalize(second["linear.weight"] @ hidden + second["linear.bias"], dim=0).numpy()
    np.testing.assert_allclose(items(backbone, ["a dog runs"])[0], expected, atol=1e-5)
    np.testing.assert_allclose(backbone.encode_texts(["a dog runs"])[0], expected, atol=1e-5)
    save_file({**second, "linear.bias": second["linear.bias"] + 1}, folder / "3_Dense" / "model.safetensors")
    assert load_folder(folder).space.key != backbone.space.key


def test_a_file_of_weights_may_hold_the_dense_layers(tmp_path, bert):
    """The weights of a tuned network come back with its layers; a file without them has those of the folder."""
    folder = dense_folder(bert, tmp_path / "dense")
    backbone = load_folder(folder)
    save_file(backbone.module.state_dict(), tmp_path / "all.safetensors")
    assert load_folder(folder, weights=str(tmp_path / "all.safetensors")).space.weights == backbone.space.weights
    base = load_folder(folder, weights=str(bert / "model.safetensors"))
    assert base.space.weights == backbone.space.weights
    changed = {n: t + 1 if n.startswith("sentence_dense") else t for n, t in backbone.module.state_dict().items()}
    save_file(changed, tmp_path / "tuned.safetensors")
    assert load_folder(folder, weights=str(tmp_path / "tuned.safetensors")).space.weights != backbone.space.weights


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, "not supported"),
        ({"out_features": 10**12}, "not supported"),
        ({"in_features": "32"}, "not supported"),
        ({"module_input_name": "token_embeddings"}, "not supported"),
        ({"out_features": 8}, "3_Dense"),
        ([], None),
    ],
)
def test_a_dense_layer_that_cannot_be_used_is_one_line(facts, reason, tmp_path, bert):
    """Unknown activations, impossible sizes, weights of another shape, and a list in place of settings."""
    folder = dense_folder(bert, tmp_path / "dense")
    file = folder / "3_Dense" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts} if facts else facts))
    with pytest.raises((BadBackbone, WeightsMismatch), match=reason or "no JSON object"):
        load_folder(folder)


def test_a_dense_layer_without_weights_is_named(tmp_path, bert):
    """A folder that was copied in part names the file that it lacks."""
    folder = dense_folder(bert, tmp_path / "dense")
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match=r"no model.safetensors in .*2_Dense"):
        load_folder(folder)


def test_a_pooling_without_its_settings_is_refused(tmp_path, bert):
    """A folder that was copied in part: another pooling would give other vectors in silence."""
    folder = dense_folder(bert, tmp_path / "dense")
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(WeightsNotFound, match=r"no 1_Pooling/config.json in .*tokens are pooled"):
        load_folder(folder)


@pytest.mark.parametrize(
    "kinds",
    [
        ["Transformer", "Pooling", "WordWeights"],
        ["Transformer", "Pooling", "Normalize", "Dense"],
        ["Transformer", "Dense"],
        ["Transformer", "Pooling", "Pooling"],
    ],
)
def test_modules_that_would_give_other_vectors_are_refused(kinds, tmp_path, bert):
    """A module that is not known, or one at another place, is not left out in silence."""
    folder = shutil.copytree(bert, tmp_path / "modules")
    write_sentence_files(folder, pool={"pooling_mode_mean_tokens": True})
    write_modules(folder, kinds)
    with pytest.raises(BadBackbone, match=f"{kinds[-1]}.* not supported"):
        load_folder(folder)


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", "3", "{"])
def test_damaged_files_of_sentence_transformers_are_one_line(name, text, tmp_path, bert):
    """JSON of another kind is named; an object that says nothing is as if it were not there."""
    folder = shutil.copytree(bert, tmp_path / "damaged")
    write_sentence_files(folder, pool={"pooling_mode_mean_tokens": True})
    (folder / name).write_text(text)
    if text == '{"a": 1}' and name != "modules.json":
        assert load_folder(folder).space.pool == "mean"
        return
    with pytest.raises(BadBackbone, match="bring the file of the model back"):
        load_folder(folder)


def test_a_prompt_that_is_left_out_of_the_pooling_is_refused(tmp_path, bert):
    """Also that of queries alone: their vectors would be others than the library's."""
    folder = shutil.copytree(bert, tmp_path / "prompt")
    pool = {"pooling_mode_mean_tokens": True, "include_prompt": False}
    write_sentence_files(folder, pool=pool, prompts={"query": "the "})
    with pytest.raises(BadBackbone, match="leaves its prompt out"):
        load_folder(folder)


def test_lower_case_holds_for_the_prompt_too(tmp_path, bert):
    """The library changes the text to lower case after it has put the prompt before it."""
    folder = shutil.copytree(bert, tmp_path / "lower")
    write_sentence_files(folder, pool={"pooling_mode_mean_tokens": True}, prompts={"query": "The "})
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    backbone = load_folder(folder)
    np.testing.assert_array_equal(backbone.encode_texts(["DOG runs"]), items(backbone, ["the dog runs"]))


@pytest.mark.parametrize("path", ["..", "../1_Pooling", "/etc"])
def test_a_module_outside_of_its_folder_is_refused(tmp_path, bert, path):
    """The list of modules comes from somebody else."""
    folder = shutil.copytree(bert, tmp_path / "sentences")
    write_modules(folder, ["Transformer", "Pooling"])
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BadBackbone, match="Pooling"):
        load_folder(folder)
