"""What a user would pick instead: one peer on one folder, its vectors and its seconds.

``PYTHON -m tests.benchmarks.peers_embed PEER NETWORK FOLDER OUT.npy``, in any environment that has torch, timm,
open_clip and the peer. The clock runs from files to vectors in memory, starting workers included and loading the
network not. Same seed, so the same random weights as embedstore's own; sentence-transformers builds its own.
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
    """A plain script's data set."""

    def __init__(self, files: list[Path], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[i]).convert("RGB"))


def network(name: str) -> tuple[Any, Callable[[torch.Tensor], torch.Tensor], Any]:
    """The module, its image features, and its own transform."""
    torch.manual_seed(0)
    if name.startswith("open_clip/"):
        module, _, transform = open_clip.create_model_and_transforms(name.removeprefix("open_clip/"))
        return module.eval(), lambda x: module.encode_image(x, normalize=True), transform
    module = timm.create_model(name.removeprefix("timm/"), num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
    return module, module, transform


def dataloader(name: str, files: list[Path]) -> tuple[float, np.ndarray]:
    """A torch DataLoader with one worker a core around the library's own transform."""
    _, features, transform = network(name)
    begin = time.perf_counter()
    loader = DataLoader(Photos(files, transform), BATCH, num_workers=CORES, multiprocessing_context="spawn")
    with torch.inference_mode():
        vectors = torch.cat([features(batch) for batch in loader]).numpy()
    return time.perf_counter() - begin, vectors


def timm_loop(name: str, files: list[Path]) -> tuple[float, np.ndarray]:
    """What timm's inference.py does: its data set, its loader, its network."""
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
    """clip-retrieval's reader with its default of 4 workers, and the lines of its mapper."""
    folder = Path(find_spec("clip_retrieval").submodule_search_locations[0])  # importing it wants a web server
    spec = spec_from_file_location("reader", folder / "clip_inference" / "reader.py")
    theirs = module_from_spec(spec)
    spec.loader.exec_module(theirs)
    module, _, transform = network(name)
    begin = time.perf_counter()
    reader = theirs.FilesReader(
        lambda keys: keys, transform, None, str(files[0].parent), BATCH, 4, enable_text=False, enable_image=True
    )
    out = []
    with torch.no_grad():
        for item in reader:
            found = module.encode_image(item["image_tensor"])
            found /= found.norm(dim=-1, keepdim=True)
            out.append(found.cpu().to(torch.float16).numpy())
    return time.perf_counter() - begin, np.concatenate(out).astype(np.float32)


def sentence_transformers(name: str, files: list[Path]) -> tuple[float, np.ndarray]:
    """sentence-transformers' CLIP, ViT-B/32 of the same shape with weights of its own."""
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
    """Run one."""
    seconds, vectors = PEERS[peer](name, sorted(Path(folder).glob("*.jpg")))
    np.save(out, vectors)
    print(json.dumps({"seconds": seconds, "rows": len(vectors)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
