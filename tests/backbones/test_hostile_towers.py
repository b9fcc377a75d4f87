"""Towers and recipes from a stranger: no other file, no code, no loop, no endless text."""

import gzip
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from embedstore.backbones.runtimes import bpe
from embedstore.backbones.runtimes.onnx_encoder import (
    GRAPH_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    TowerManifest,
    Unavailable,
    read_manifest,
)
from embedstore.backbones.runtimes.onnx_format import check_graph_file
from embedstore.backbones.runtimes.runtime import Agreement, Tower
from embedstore.backbones.stored_recipes import recipe_problem
from embedstore.space import Recipe, Space
from tests.helpers.vector_stores import SPACE

X = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [1, 4])
Y = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, 4])


def external(location: str) -> TensorProto:
    """A tensor whose values are in a file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(*nodes, initializer=(), **options):
    graph = helper.make_graph(list(nodes), "g", [X], [Y], initializer=list(initializer))
    return helper.make_model(graph, **options)


def add(domain: str = "", op: str = "Add"):
    return helper.make_node(op, ["inputs", "w"], ["vectors"], domain=domain)


def branch(location: str):
    """A node with a graph inside, whose tensor is in a file."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["v"])], "b", [], [Y], initializer=[external(location)]
    )
    return helper.make_node("If", ["inputs"], ["vectors"], then_branch=inner, else_branch=inner)


def constant(location: str):
    return helper.make_node("Constant", [], ["w"], value=external(location))


FUNCTION = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
                                [helper.make_opsetid("", 17)])  # fmt: skip
HOSTILE = {
    "weights in another folder": model(add(), initializer=[external("../../../LOCK")]),
    "weights in an absolute path": model(add(), initializer=[external("/etc/passwd")]),
    "weights in another file of the folder": model(add(), initializer=[external(MANIFEST_FILE)]),
    "a constant in another file": model(constant("/etc/passwd"), add()),
    "a branch with a tensor in another file": model(branch("/etc/passwd")),
    "operators of another library": model(add("evil"), initializer=[external(WEIGHTS_FILE)]),
    "a set of operators of another library": model(add(), opset_imports=[helper.make_opsetid("evil", 1)]),
    "functions of its own": model(add(), functions=[FUNCTION]),
    "a loop": model(helper.make_node("Loop", ["", ""], ["vectors"], body=helper.make_graph([], "b", [], []))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_graphs_that_name_files_or_code_are_refused(tmp_path, kind):
    """Everywhere in a graph: in its tensors, in constants, in branches and in functions."""
    (tmp_path / GRAPH_FILE).write_bytes(HOSTILE[kind].SerializeToString())
    with pytest.raises(ValueError, match=r"the graph (names another file|has)"):
        check_graph_file(tmp_path / GRAPH_FILE, weights_name=WEIGHTS_FILE)


@pytest.mark.parametrize(
    "data", [b"", b"ORTM" * 20, b"\x3a\xff\xff\xff\xff\x0f", b"\x3a" + b"\xff" * 20, b"PK\x03\x04" * 9]
)
def test_files_that_are_no_graph_are_refused(tmp_path, data):
    """Any bytes end in one error."""
    (tmp_path / GRAPH_FILE).write_bytes(data)
    with pytest.raises(ValueError, match="graph"):
        check_graph_file(tmp_path / GRAPH_FILE, weights_name=WEIGHTS_FILE)


def test_a_graph_with_its_weights_next_to_it_is_accepted(tmp_path):
    """What ``onnx.save`` writes with external data, and a branch without."""
    weights = onnx.numpy_helper.from_array(np.zeros(4096, np.float32), "w")
    onnx.save(model(add(), initializer=[weights]), tmp_path / GRAPH_FILE, save_as_external_data=True,
              location=WEIGHTS_FILE)  # fmt: skip
    check_graph_file(tmp_path / GRAPH_FILE, weights_name=WEIGHTS_FILE)
    (tmp_path / GRAPH_FILE).write_bytes(model(branch(WEIGHTS_FILE)).SerializeToString())
    check_graph_file(tmp_path / GRAPH_FILE, weights_name=WEIGHTS_FILE)


MANIFEST = TowerManifest("text", SPACE.key, {GRAPH_FILE: [1, "0" * 32]}, 77, "1", "2", Agreement(1.0, 1.0, 4))


@pytest.mark.parametrize(
    "change",
    [{"length": 1 << 40}, {"length": "77"}, {"length": True}, {"files": {"../x": [1, ""]}}, {"files": []}, {"space": 3},
     {"files": {}}, {"logit_scale": "e"}, {"logit_scale": float("inf")}, {"format": None}],
)  # fmt: skip
def test_tower_manifests_of_another_form_are_not_used(tmp_path, change):
    """The reason names the manifest, and the search goes on with the backbone."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / MANIFEST_FILE).write_text(json.dumps(json.loads(MANIFEST.to_json()) | change))
    found = read_manifest(tmp_path, Tower.TEXT, SPACE.key)
    assert isinstance(found, Unavailable)
    assert MANIFEST_FILE in found.reason


def test_merges_that_unpack_to_more_than_a_vocabulary_are_refused(tmp_path):
    """A small file of merges may unpack to many gigabytes."""
    (tmp_path / "merges.txt.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(ValueError, match="unpacks to more than"):
        bpe.load_vocabulary(tmp_path / "merges.txt.gz")


@pytest.mark.parametrize(
    "weights",
    ["../secret.safetensors", "quarantine/x.safetensors", "checkpoints/x.pth", "checkpoints/../LOCK", "x.pt",
     "{store}/heads/a.safetensors", "{store}/../s/quarantine/x.pth"],
)  # fmt: skip
def test_a_recipe_may_name_checkpoints_of_the_store_and_files_outside_of_it(tmp_path, weights):
    """Nothing else within the store, and no network folder in it."""
    store = tmp_path / "s"
    assert recipe_problem(Recipe("timm/x", weights=weights.format(store=store)), store)
    for fine in (None, "checkpoints/0123456789abcdef/weights.safetensors", "/weights/mine.pth"):
        assert recipe_problem(Recipe("timm/x", weights=fine), store) == ""
    for folder in (f"{store}/quarantine", "s/quarantine", "../s"):
        assert recipe_problem(Recipe(f"open_clip/local-dir:{folder}"), store)
    assert recipe_problem(Recipe("open_clip/local-dir:/models/mine"), store) == ""


def change_recipe(**change) -> str:
    return json.dumps(json.loads(Recipe("timm/x").to_json()) | change)


@pytest.mark.parametrize(
    "text",
    ["[]", "null", "{", '{"backbone": 3}', *(change_recipe(**c) for c in (
        {"args": {"a": {"b": 1}}}, {"args": {"a": [1]}}, {"args": []}, {"seed": "1"}, {"weights": 3}, {"more": 1},
        {"random_init": 1}, {"backbone": None}, {"preprocess": "x"}))],
)  # fmt: skip
def test_recipes_of_another_form_are_refused(text):
    """Every value has its type: an argument is one plain value, never a table or a list."""
    with pytest.raises((ValueError, TypeError)):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    "change",
    [{"dim": "4"}, {"dim": 0}, {"dim": 1 << 40}, {"dim": True}, {"unit": 1}, {"args": {"a": []}}, {"origin": {}},
     {"family": "x"}, {"parent": 3}, {"preprocess": {"size": [1]}},
     {"preprocess": {"size": [1 << 20] * 2, "resize": [1, 1], "mean": 0, "std": 1, "mode": "squash",
                     "interpolation": "bicubic", "fill": 0}}],
)  # fmt: skip
def test_spaces_of_another_form_are_refused(change):
    """Sizes are those of networks: an input of a million pixels a side would fill the memory."""
    with pytest.raises((ValueError, TypeError, KeyError)):
        Space.from_json(json.dumps(json.loads(SPACE.to_json()) | change))
    assert Space.from_json(replace(SPACE, dim=768).to_json()).dim == 768
