"""What every backbone guarantees, whatever library built it."""

import numpy as np
import pytest
import torch

from embedstore.backbones import load
from embedstore.errors import NoTextTower
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Recipe, Space
from tests.conftest import picture

PHOTO_SIZES = [(300, 200), (200, 300), (224, 224), (640, 90), (37, 51)]


def prepared(space: Space) -> np.ndarray:
    """Images of several shapes, with the preprocessing of the space: uint8 (B, 3, H, W)."""
    return np.stack([resize_and_crop(picture(n, size), space.preprocess) for n, size in enumerate(PHOTO_SIZES)])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def centered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines after the mean of ``b`` is subtracted from both: a large common part hides differences."""
    return cosines(a - b.mean(0), b - b.mean(0))


class BackboneContract:
    """Subclasses define the fixture ``recipe``, and ``allow``, the code that may be imported."""

    allow: tuple[str, ...] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, recipe):
        return load(recipe, device="cpu", allow_code=cls.allow)

    @pytest.fixture(scope="class")
    @classmethod
    def vectors(cls, backbone):
        return backbone.encode_images(prepared(backbone.space))

    def test_an_image_is_one_float32_row_of_the_spaces_dimension(self, backbone, vectors):
        """Rows are float32, finite, of the dimension of the space, and differ between images."""
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(PHOTO_SIZES), backbone.space.dim)
        assert np.isfinite(vectors).all()
        assert len({row.tobytes() for row in vectors}) == len(PHOTO_SIZES)

    def test_rows_have_length_one_exactly_if_the_space_is_unit(self, backbone, vectors):
        """`unit` of the space describes the vectors."""
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) == backbone.space.unit

    def test_the_batch_does_not_change_a_vector(self, backbone, vectors):
        """Images embedded one by one have the vectors of the whole batch."""
        single = np.concatenate([backbone.encode_images(one[None]) for one in prepared(backbone.space)])
        assert cosines(single, vectors).min() >= 0.999999

    def test_no_images_give_no_rows(self, backbone):
        """An empty batch keeps the dimension."""
        empty = np.empty((0, 3, *backbone.space.preprocess.size), np.uint8)
        assert backbone.encode_images(empty).shape == (0, backbone.space.dim)

    def test_the_stored_recipe_gives_the_same_space_again(self, recipe, backbone, vectors):
        """A recipe read from JSON loads a network with the same key and the same vectors."""
        again = load(Recipe.from_json(recipe.to_json()), device="cpu", allow_code=self.allow)
        assert again.space.key == backbone.space.key
        assert np.array_equal(again.encode_images(prepared(again.space)), vectors)

    def test_the_space_is_the_same_after_json(self, backbone):
        """What is stored of the space restores it."""
        assert Space.from_json(backbone.space.to_json()) == backbone.space

    def test_pixels_of_another_size_or_type_are_refused(self, backbone):
        """The error names the expected shape."""
        height, width = backbone.space.preprocess.size
        with pytest.raises(ValueError, match=rf"expected uint8 \(B, 3, {height}, {width}\)"):
            backbone.encode_images(np.zeros((1, 3, height + 1, width), np.uint8))
        with pytest.raises(ValueError, match="float32"):
            backbone.encode_images(np.zeros((1, 3, height, width), np.float32))

    def test_out_of_memory_halves_the_batch_size_and_the_vectors_remain_the_same(self, recipe, vectors):
        """A device with room for two images gets two at most, after one more try without other work."""
        small = load(recipe, device="cpu", allow_code=self.allow)
        sizes = []

        def limit_memory(_layer, inputs):
            sizes.append(len(inputs[0]))
            if len(inputs[0]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        first_layer = next(m for m in small.module.modules() if isinstance(m, torch.nn.Conv2d))
        first_layer.register_forward_pre_hook(limit_memory)
        limited = small.encode_images(prepared(small.space))
        assert sizes == [5, 5, 2, 2, 1]
        assert small.batch_size == 2
        assert cosines(limited, vectors).min() >= 0.999999

    def test_texts_become_unit_rows_or_an_error_with_a_cure(self, backbone):
        """A space either embeds texts, or the error names a backbone that does."""
        if not backbone.space.text:
            with pytest.raises(NoTextTower, match="--backbone clip"):
                backbone.encode_texts(["a dog"])
            return
        texts = backbone.encode_texts(["a dog", "a cat on a mat", "a dog"])
        assert texts.shape == (3, backbone.space.dim)
        assert texts.dtype == np.float32
        assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
        assert np.allclose(texts[0], texts[2], atol=1e-6)
        assert not np.allclose(texts[0], texts[1], atol=1e-3)
        assert backbone.encode_texts([]).shape == (0, backbone.space.dim)
