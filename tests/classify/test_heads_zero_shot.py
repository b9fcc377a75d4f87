"""Zero-shot heads against open_clip's own classifier."""

import subprocess
import sys

import numpy as np
import pytest

from embedstore.classify.heads import ZeroShotHead, build_prompts, encode_class_vectors, load_templates
from embedstore.errors import DimensionMismatch, LabelError

NAMES = ["tench", "goldfish", "great white shark", "hen"]


@pytest.fixture(scope="module")
def clip():
    """A small open_clip model with random weights, and its tokenizer."""
    open_clip = pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    vision = open_clip.CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=16, image_size=32)
    text = open_clip.CLIPTextCfg(layers=2, width=32, heads=2)
    return open_clip.CLIP(24, vision, text).eval(), open_clip.SimpleTokenizer()


def encoder(clip, sizes=None):
    """Return a text encoder that appends the size of each batch to ``sizes``."""
    import torch

    model, tokenizer = clip

    def encode(sentences):
        if sizes is not None:
            sizes.append(len(sentences))
        with torch.inference_mode():
            return model.encode_text(tokenizer(sentences)).numpy()

    return encode


@pytest.mark.parametrize("name", ["photo", "simple", "imagenet"])
def test_class_vectors_equal_those_of_open_clip(clip, name):
    """Every template set agrees to 1e-5, although batches split the prompts of a class."""
    import open_clip

    theirs = open_clip.build_zero_shot_classifier(*clip, NAMES, list(load_templates(name)), num_classes_per_batch=2)
    ours = encode_class_vectors(encoder(clip), build_prompts(NAMES, name), batch_size=7)
    assert ours == pytest.approx(theirs.numpy().T, abs=1e-5)


def test_template_sets_equal_those_of_open_clip():
    """80 and 7 sentences equal what open_clip's functions return."""
    import open_clip

    for name, own in (
        ("imagenet", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("simple", open_clip.SIMPLE_IMAGENET_TEMPLATES),
    ):
        assert [t.format("hen") for t in load_templates(name)] == [t("hen") for t in own]
    assert (len(load_templates("imagenet")), len(load_templates("simple"))) == (80, 7)


def test_templates_do_not_import_torch():
    """Reading open_clip's templates does not import its package."""
    code = "import sys, embedstore.classify.heads as h; h.load_templates('imagenet'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prompts_are_encoded_in_batches_of_limited_size(clip):
    """300 classes of two prompts are encoded at most 128 sentences at once."""
    sizes = []
    found = encode_class_vectors(
        encoder(clip, sizes), build_prompts([f"thing {i}" for i in range(300)], ["a {}", "the {}"]), batch_size=128
    )
    assert sizes == [128, 128, 128, 128, 88]
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(300), abs=1e-6)


def test_thousands_of_classes_are_supported():
    """5,000 names in two templates are encoded in batches, and each image gets the nearest name."""
    sizes = []

    def encode(sentences):
        sizes.append(len(sentences))
        rows = [np.random.default_rng(abs(int(s.split()[-1]))).standard_normal(16) for s in sentences]
        return np.array(rows, dtype=np.float32)

    names = [f"class {n}" for n in range(5000)]
    vectors = encode_class_vectors(encode, build_prompts(names, ["a {}", "the {}"]), batch_size=256)
    assert vectors.shape == (5000, 16)
    assert max(sizes) <= 256
    assert sum(sizes) == 10_000
    pictures = vectors[[4999, 0, 1234]] + 0.01
    head = ZeroShotHead(vectors, names).fit()
    assert head.predict(pictures).tolist() == ["class 4999", "class 0", "class 1234"]
    assert head.predict_proba(pictures).sum(1) == pytest.approx(np.ones(3), abs=1e-5)


def test_logits_are_the_scale_times_the_cosine():
    """Features (3, 4) and class vectors on the axes: 100 * (.6, .8); the probability is that of a difference of 20."""
    head = ZeroShotHead(np.eye(2), ["cat", "dog"])
    assert head.decision_function([[3, 4]]) == pytest.approx([20.0], rel=1e-5)
    assert head.predict([[3, 4], [1, 0]]).tolist() == ["dog", "cat"]
    assert head.predict_proba([[3, 4]])[0, 0] == pytest.approx(np.exp(-20) / (1 + np.exp(-20)), rel=1e-3)
    assert ZeroShotHead(np.eye(2), ["cat", "dog"], logit_scale=1).predict_proba([[3, 4]])[0] == pytest.approx(
        [0.4502, 0.5498], abs=1e-4
    )


def test_a_name_is_put_into_every_template():
    """Underscores become spaces in the sentence and stay in the class."""
    assert build_prompts(["ice_cream"], ["a {}.", "{}!"]) == {"ice_cream": ["a ice cream.", "ice cream!"]}
    assert build_prompts(["hen"]) == {"hen": ["a photo of a hen."]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_templates("imagnet"), "did you mean imagenet"),
        (lambda: build_prompts(["hen"], ["a photo"]), "needs {}"),
        (lambda: encode_class_vectors(np.zeros, {"hen": []}), "no prompt for 'hen'"),
        (lambda: encode_class_vectors(np.zeros, {}), "no prompt for any class"),
        (lambda: ZeroShotHead(np.eye(2), ["hen", "hen"]).fit(), "named twice"),
    ],
)
def test_invalid_classes_and_templates_are_refused(call, message):
    """An unknown set, a template without ``{}``, a class without prompts and a class named twice are errors."""
    with pytest.raises(LabelError, match=message):
        call()


def test_vectors_of_another_dimension_are_refused():
    """Features must have the dimension of the class vectors, and every class must have one vector."""
    with pytest.raises(DimensionMismatch, match="2 dimensions"):
        ZeroShotHead(np.eye(2), ["a", "b"]).predict(np.eye(3))
    with pytest.raises(DimensionMismatch, match="each of 3 classes"):
        ZeroShotHead(np.eye(2), ["a", "b", "c"]).fit()
