"""What a folder of sentence-transformers says: pooling, length, prompts, and whether vectors are scaled to length 1.

The files are those that the library writes: ``modules.json``, ``1_Pooling/config.json``, ``sentence_bert_config.json``
and ``config_sentence_transformers.json`` (https://sbert.net/docs/package_reference/base/modules.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedstore.backbones.transformers_models.folder import ModelFolder
from embedstore.errors import BadBackbone

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt",
    "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_lasttoken": "last",
}
_NAMES = {"lasttoken": "last", "weightedmean": "weighted", "mean_sqrt_len_tokens": "mean-sqrt"}
_ITEM_PROMPTS = ("document", "passage", "corpus")  # what the prompt of what is searched is called
_QUERY_PROMPTS = ("query",)


@dataclass(frozen=True)
class SentenceFiles:
    """What the files say; without such files, nothing.

    Attributes:
        pool: the pooling, or None.
        unit: the vectors are scaled to length 1.
        max_length: tokens, or None.
        lowercase: the text is changed to lower case first.
        prompt: put before an item.
        query_prompt: put before a query.
    """

    pool: str | None = None
    unit: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""
    query_prompt: str = ""


def read_sentence_files(folder: ModelFolder) -> SentenceFiles:
    """Return what the files of a folder say.

    Raises:
        BadBackbone: when they name a module that is not known here, whose vectors would be others.
    """
    modules = folder.json("modules.json")
    if modules is None:
        return SentenceFiles()
    kinds = {str(m.get("type", "")).rpartition(".")[2]: str(m.get("path", "")) for m in modules}
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if unknown:
        raise BadBackbone(
            f"{folder.name} has a module {', '.join(unknown)} after its network, which is not supported; name a model "
            "of Transformer, Pooling and Normalize"
        )
    facts = folder.json("sentence_bert_config.json") or {}
    prompt, query_prompt = _prompts(folder.json("config_sentence_transformers.json") or {})
    pool = _pool(folder.json(f"{kinds['Pooling']}/config.json") or {}, folder, prompt) if "Pooling" in kinds else None
    length = facts.get("max_seq_length")
    return SentenceFiles(
        pool=pool,
        unit="Normalize" in kinds,
        max_length=length if isinstance(length, int) else None,
        lowercase=bool(facts.get("do_lower_case", False)),
        prompt=prompt,
        query_prompt=query_prompt,
    )


def _pool(facts: dict[str, Any], folder: ModelFolder, prompt: str) -> str:
    """Return the pooling, several joined by ``+`` in the library's order."""
    mode = facts.get("pooling_mode")
    if mode is not None:
        names = [mode] if isinstance(mode, str) else list(mode)
        modes = [_NAMES.get(name, name) for name in names]
    else:
        modes = [name for key, name in _MODES.items() if facts.get(key)]
    if prompt and facts.get("include_prompt") is False:
        raise BadBackbone(f"{folder.name} leaves its prompt out of the pooling, which is not supported")
    return "+".join(modes) or "mean"


def _prompts(facts: dict[str, Any]) -> tuple[str, str]:
    """Return the prompts of items and of queries."""
    prompts = {name: text for name, text in (facts.get("prompts") or {}).items() if isinstance(text, str)}
    default = prompts.get(facts.get("default_prompt_name") or "", "")
    item = next((prompts[name] for name in _ITEM_PROMPTS if name in prompts), default)
    query = next((prompts[name] for name in _QUERY_PROMPTS if name in prompts), default)
    return item, query
