"""Write ``embedstore/backbones/registry.csv``: what timm and open_clip know of every pre-trained backbone.

Each architecture is built once per input size on the meta device (no memory, no download), and one forward pass gives
its dimension. About 1,500 architectures take 10 to 20 minutes on one core. Run it after an upgrade of timm or
open_clip::

    OMP_NUM_THREADS=1 python tools/backbone_facts.py
"""

from __future__ import annotations

import argparse
import csv
import functools
import logging
import sys
from importlib.metadata import version
from pathlib import Path

import open_clip
import timm
import torch
from timm.models import get_pretrained_cfg, list_models, list_pretrained, model_entrypoint

TARGET = Path(__file__).parents[1] / "embedstore" / "backbones" / "registry.csv"
COLUMNS = ("name", "family", "parameters", "dim", "input_size", "licence", "text", "default")
NO_VECTOR = frozenset(  # parts of larger networks, which give several vectors per image
    {
        "deepseek_vit_412m_enc",
        "gemma4_vit_167m_enc",
        "gemma4_vit_570m_enc",
        "mobilenetv5_300m_enc",
        "qwen3_vit_88m_enc",
        "qwen3_vit_306m_enc",
        "qwen3_vit_416m_enc",
    }
)
Row = dict[str, str]


@functools.cache
def measure(architecture: str, size: tuple[int, int, int], fixed: bool) -> tuple[int, int]:
    """Return ``(parameters, dim)`` of a timm network without classifier; on the CPU if meta tensors fail.

    Raises:
        ValueError: if it gives several vectors per image, as a part of a larger network does.
    """
    args = {"img_size": size[1:]} if fixed else {}
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.inference_mode():
                module = timm.create_model(architecture, num_classes=0, **args).eval()
                out = module(torch.zeros((1, *size)))
            if out.ndim != 2:
                raise ValueError(f"{architecture} gives {tuple(out.shape)}, not a vector")
            return sum(p.numel() for p in module.parameters()), int(out.shape[1])
        except (RuntimeError, NotImplementedError) as error:
            print(f"{architecture} on {device}: {str(error).splitlines()[0]}", file=sys.stderr)
    raise RuntimeError(f"cannot measure {architecture}")


def timm_row(name: str) -> Row:
    """Return the row of one timm architecture and tag."""
    config = get_pretrained_cfg(name)
    architecture = name.partition(".")[0]
    parameters, dim = measure(architecture, tuple(config.input_size), bool(config.fixed_input_size))
    return {
        "name": f"timm/{name}",
        "family": model_entrypoint(architecture).__module__.rpartition(".")[2],
        "parameters": str(parameters),
        "dim": str(dim),
        "input_size": "x".join(map(str, config.input_size[1:])),
        "licence": config.license or "",
        "text": "",
        "default": "yes" if get_pretrained_cfg(architecture).tag == config.tag else "",
    }


@functools.cache
def open_clip_parameters(architecture: str) -> str:
    """Return the parameters of both towers; "" if building one needs the network (text towers of transformers)."""
    try:
        with torch.device("meta"):
            module = open_clip.create_model(architecture, device="meta", load_weights=False, pretrained_text=False)
    except Exception as error:
        print(f"open_clip {architecture}: {str(error).splitlines()[0]}", file=sys.stderr)
        return ""
    return str(sum(p.numel() for p in module.parameters()))


@functools.cache
def licenses() -> dict[str, str]:
    """Return the licenses that timm states, by hub repository: open_clip's tables name many of the same ones."""
    configs = [get_pretrained_cfg(name) for name in list_pretrained()]
    return {c.hf_hub_id: c.license for c in configs if c.hf_hub_id and c.license}


def open_clip_row(architecture: str, tag: str) -> Row:
    """Return the row of one open_clip architecture and tag; "" is no tag."""
    config = open_clip.get_model_config(architecture)
    size = config["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    repo = open_clip.pretrained.get_pretrained_cfg(architecture, tag).get("hf_hub", "").rpartition("/")[0]
    return {
        "name": f"open_clip/{architecture}:{tag}".rstrip(":"),
        "family": "coca" if "multimodal_cfg" in config else "siglip" if "siglip" in architecture.lower() else "clip",
        "parameters": open_clip_parameters(architecture),
        "dim": str(config["embed_dim"]),
        "input_size": f"{height}x{width}",
        "licence": licenses().get(repo, ""),
        "text": "yes",
        "default": "",
    }


def all_rows(pattern: str) -> list[Row]:
    """Return every row, timm first, in the libraries' own order; an architecture without tags has its bare name."""
    tagged = list_pretrained(pattern)
    bare = sorted(set(list_models(pattern)) - {name.partition(".")[0] for name in tagged})
    rows = []
    for number, name in enumerate(sorted([*tagged, *bare])):
        if name.partition(".")[0] not in NO_VECTOR:
            rows.append(timm_row(name))
        if number % 100 == 0:
            print(number, name, file=sys.stderr, flush=True)
    if not pattern:
        pairs = open_clip.list_pretrained()
        untagged = sorted(set(open_clip.list_models()) - {architecture for architecture, _ in pairs})
        rows += [open_clip_row(architecture, tag) for architecture, tag in [*pairs, *((a, "") for a in untagged)]]
    return rows


def main() -> None:
    """Write the table, or print the rows of a pattern."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="", help="print only these timm names, and write nothing")
    pattern = parser.parse_args().pattern
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = all_rows(pattern)
    temporary = TARGET.with_suffix(".part")
    with sys.stdout if pattern else temporary.open("w", encoding="utf-8", newline="") as out:
        out.write(f"# timm {version('timm')}, open_clip_torch {version('open_clip_torch')}\n")
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if not pattern:
        temporary.replace(TARGET)


if __name__ == "__main__":
    main()
