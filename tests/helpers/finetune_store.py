"""A small labeled store whose backbone can be tuned in seconds, for tests of fine-tuning."""

from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image

import embedstore as es
from tests.conftest import TINY

SMALL = {"size": 32, "resize": 32}
QUICK = {"epochs": 2, "batch_size": 8, "weight_average": "none"}


@contextmanager
def torch_threads(count):
    """Let operations use so many threads: a forked child has one, and the last bits of a sum depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def textures(folder, per_class=20, classes="abc", seed=0):
    """Stripes of three directions under noise: ``train|val|test/<class>/N.png``, three fifths of them to learn from."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :40]
    waves = {"a": np.sin(x * 0.9), "b": np.sin(y * 0.9), "c": np.sin((x + y) * 0.7)}
    for name in classes:
        for n in range(per_class):
            split = ("train", "train", "train", "val", "test")[n % 5]
            path = folder / split / name / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = 120 + 40 * waves[name][..., None] + rng.normal(0, 45, (32, 40, 3))
            Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def store_of(folder, photos, backbone=TINY, **options):
    """A store of the photos, in float32, in the space of a network with random weights."""
    how = {"random_init": True, "preprocess": SMALL} | options
    store = es.create(folder, backbone, dtype="float32", **how)
    store.embed(photos)
    return store


def vectors(store, space):
    """Every vector of a space, by uri."""
    row = store._session.storage.space(space)
    found = store.features("label", space=row.key)
    uris = store.item_uris(found.ids.tolist())
    return {uris[i]: v for i, v in zip(found.ids.tolist(), found.X, strict=True)}


def files(store, key):
    """The bytes of a space's vector files, by name."""
    return {p.name: p.read_bytes() for p in (store.path / "spaces" / key / "shards").glob("*.vec")}
