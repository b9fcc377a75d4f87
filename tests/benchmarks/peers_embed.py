"""Embed a folder with what a user would run instead: one peer, its vectors and its seconds.

``PYTHON -m tests.benchmarks.peers_embed PEER NETWORK FOLDER OUT.npy``, in any environment that has torch, timm,
open_clip and the peer. The time runs from files to vectors in memory; it includes starting workers and excludes loading
the network. The same seed gives the same random weights as embedstore's; sentence-transformers builds its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

CORES = os.cpu_count() or 1
BATCH = 32


class Photos(Dataset[Any]):
    """The data set of a plain script."""

    def __init__(self, files: list[Path], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[i]).convert("RGB"))


def network(name: str) -> tuple[Any, Callable[[torch.Tensor], torch.Tensor], Any]:
    """Return the module, its image features, and its own transform."""
    torch.manual_seed(0)
    if name.startswith("open_clip/"):
        module, _, transform = open_clip.create_model_and_transforms(name.removeprefix("open_clip/"))
        return module.eval(), lambda x: module.encode_image(x, normalize=True), transform
    module = timm.create_model(name.removeprefix("timm/"), num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
    return module, module, transform


def dataloader(name: str, files: list[Path]) -> tuple[float, np.ndarray]:
    """Run a torch DataLoader with one worker per core around the library's own transform."""
    _, features, transform = network(name)
    begin = time.perf_counter()
    loader = DataLoader(Photos(files, transform), BATCH, num_workers=CORES, multiprocessing_context="spawn")
    with torch.inference_mode():
        vectors = torch.cat([features(batch) for batch in loader]).numpy()
    return time.perf_counter() - begin, vectors


def timm_loop(name: str, files: list[Path]) -> tuple[float, np.ndarray]:
    """Run timm's data set, loader and network like its inference.py."""
    module, _, _ = network(name)
    config = timm.data.resolve_model_data_config(module)
    begin = time.perf_counter()
    loader = timm.data.create_loader(
        timm.data.create_dataset("", str(files[0].parent)), batch_size=BATCH, use_prefetcher=False,
        num_workers=CORES, device=torch.device("cpu"), **config,
    )  # fmt: skip
    with torch.inference_mode():
        vectors = torch.cat([module(batch) for batch, _ in loader]).numpy()
    return time.perf_counter() - begin, vectors


def clip_retrieval(name: str, files: list[Path]) -> tuple[float, np.ndarray]:
    """Run clip-retrieval's reader with its default of 4 workers, and the steps of its mapper."""
    package = find_spec("clip_retrieval")
    if package is None:
        raise ModuleNotFoundError("No module named 'clip_retrieval'")
    folder = Path(package.submodule_search_locations[0])  # importing it needs a web server
    spec = spec_from_file_location("reader", folder / "clip_inference" / "reader.py")
    reader_module = module_from_spec(spec)
    spec.loader.exec_module(reader_module)
    module, _, transform = network(name)
    begin = time.perf_counter()
    reader = reader_module.FilesReader(
        lambda keys: keys, transform, None, str(files[0].parent), BATCH, 4, enable_text=False, enable_image=True
    )
    out = []
    with torch.no_grad():
        for item in reader:
            vectors = module.encode_image(item["image_tensor"])
            vectors /= vectors.norm(dim=-1, keepdim=True)
            out.append(vectors.cpu().to(torch.float16).numpy())
    return time.perf_counter() - begin, np.concatenate(out).astype(np.float32)


def sentence_transformers(name: str, files: list[Path]) -> tuple[float, np.ndarray]:
    """Run sentence-transformers' CLIP, a ViT-B/32 of the same shape with other weights."""
    import tempfile

    import sentence_transformers as st
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    assert name == "open_clip/ViT-B-32"
    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(0)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    model = st.SentenceTransformer(str(folder), device="cpu")
    begin = time.perf_counter()
    vectors = model.encode([Image.open(f) for f in files], batch_size=BATCH, normalize_embeddings=True)
    return time.perf_counter() - begin, np.asarray(vectors, np.float32)


PEERS = {f.__name__: f for f in (dataloader, timm_loop, clip_retrieval, sentence_transformers)}


def main(peer: str, name: str, folder: str, out: str) -> None:
    """Run one peer."""
    seconds, vectors = PEERS[peer](name, sorted(Path(folder).glob("*.jpg")))
    np.save(out, vectors)
    print(json.dumps({"seconds": seconds, "rows": len(vectors)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
