"""Words on a space with a text tower: a small CLIP through open_clip's own loading."""

import json

import numpy as np
import pytest

import embedstore as es
from tests.cli.test_cli import ok
from tests.conftest import picture
from tests.helpers.networks import local_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures of two classes, and a CLIP of random weights as a local folder."""
    folder = tmp_path_factory.mktemp("words")
    for n in range(12):
        path = folder / "photos" / ("val" if n % 3 == 2 else "train") / ("cat" if n < 6 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n, (50, 70)).save(path)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    """The pictures, embedded."""
    made = es.create(folder / "s", local_clip(folder / "clip"))
    assert made.embed(folder / "photos").embedded == 12
    return made


def test_vectors_equal_open_clips_own_after_reload(store, folder):
    """Stored vectors of a reopened store against open_clip's transform and model: cosine at least 0.99999."""
    import open_clip
    import torch
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder / 'clip'}")
    model.eval()
    f = es.open(store.path).features("uri")
    with torch.inference_mode():
        theirs = model.encode_image(torch.stack([transform(Image.open(u)) for u in f.y]), normalize=True).numpy()
    for ours, their in ((f.X, theirs), (f.X - theirs.mean(0), theirs - theirs.mean(0))):
        cosine = (ours * their).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(their, axis=1)
        assert cosine.min() >= 0.99999


def test_words_find_what_the_model_says(store):
    """The order and scores of a text search are those of open_clip's own text tower against the stored vectors."""
    import open_clip
    import torch

    model = open_clip.create_model(store.spaces[0].recipe.backbone.removeprefix("open_clip/"))
    tokens = open_clip.get_tokenizer(store.spaces[0].recipe.backbone.removeprefix("open_clip/"))(["a bee on a flower"])
    with torch.inference_mode():
        words = model.eval().encode_text(tokens, normalize=True)[0].numpy()
    f = store.features("uri")
    scores = f.X @ words
    hits = store.search("a bee on a flower", k=12)
    assert [h.uri for h in hits] == [f.y[i] for i in np.argsort(-scores, kind="stable")]
    assert np.allclose([h.score for h in hits], np.sort(scores)[::-1], atol=2e-4)


def test_zero_shot_is_the_likelier_prompt(store):
    """Accuracy on the val items equals that of the argmax over prompt vectors."""
    prompts = {"cat": ["a photo of a cat", "a cat"], "dog": "a photo of a dog"}
    judged = store.zero_shot(prompts).evaluate("label")
    encode = store.backbone().encode_texts
    cat = encode(prompts["cat"]).mean(0)
    classes = np.stack([cat / np.linalg.norm(cat), encode([prompts["dog"]])[0]])
    f = store.features("label", where="split = 'val'")
    expected = np.array(["cat", "dog"], object)[(f.X @ classes.T).argmax(1)]
    assert judged.split == "val"
    assert judged.accuracy == pytest.approx((expected == f.y).mean())


def test_the_verbs(store, folder):
    """search TEXT, zero-shot with names and with a prompt file, as JSON."""
    hits = ok("search", store.path, "a dog", "-k", 3, "--where", "label = 'dog'")["hits"]
    assert [h["label"] for h in hits] == ["dog"] * 3
    named = ok("zero-shot", store.path, "label", "--classes", "cat,dog")
    assert (named["split"], named["held_out"]) == ("val", 4)
    (folder / "p.json").write_text(json.dumps({"cat": ["a photo of a cat."], "dog": ["a photo of a dog."]}))
    filed = ok("zero-shot", store.path, "label", "--prompts", folder / "p.json")
    assert filed["accuracy"] == named["accuracy"]
