"""What a folder of sentence-transformers says: pooling, dense layers, length, prompts, and vectors of length 1.

The files are those that the library writes: ``modules.json``, ``1_Pooling/config.json``, ``sentence_bert_config.json``
and ``config_sentence_transformers.json`` (https://sbert.net/docs/package_reference/base/modules.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.backbones.transformers_models.folder import ModelFolder
from embedstore.errors import BadBackbone, WeightsNotFound

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt",
    "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_lasttoken": "last",
}
_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")  # the modules that are known, in the only order that is read
_NAMES = {"lasttoken": "last", "weightedmean": "weighted", "mean_sqrt_len_tokens": "mean-sqrt"}
_ITEM_PROMPTS = ("document", "passage", "corpus")  # what the prompt of what is searched is called
_QUERY_PROMPTS = ("query",)


@dataclass(frozen=True)
class SentenceFiles:
    """What the files say; without such files, nothing.

    Attributes:
        pool: the pooling, or None.
        dense: the folders of the dense layers after the pooling.
        unit: the vectors are scaled to length 1.
        max_length: tokens, or None.
        lowercase: the text is changed to lower case first.
        prompt: put before an item.
        query_prompt: put before a query.
    """

    pool: str | None = None
    dense: tuple[str, ...] = ()
    unit: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""
    query_prompt: str = ""


def read_sentence_files(folder: ModelFolder) -> SentenceFiles:
    """Return what the files of a folder say.

    Raises:
        WeightsNotFound: when the settings of the pooling are not in the folder.
        BadBackbone: when they cannot be read, or name a module that is not known here, whose vectors would be others.
    """
    modules = _modules(folder)
    if not modules:
        return SentenceFiles()
    facts = folder.facts("sentence_bert_config.json")
    prompts = _prompts(folder.facts("config_sentence_transformers.json"))
    pools = [_pool(folder, f"{path}/config.json", prompts) for kind, path in modules if kind == "Pooling"]
    length = facts.get("max_seq_length")
    return SentenceFiles(
        pool=pools[0] if pools else None,
        dense=tuple(path for kind, path in modules if kind == "Dense"),
        unit="Normalize" in dict(modules),
        max_length=length if isinstance(length, int) else None,
        lowercase=bool(facts.get("do_lower_case", False)),
        prompt=prompts[0],
        query_prompt=prompts[1],
    )


def _modules(folder: ModelFolder) -> list[tuple[str, str]]:
    """Return the kind and the folder of each module, in the order of their work; none without ``modules.json``.

    Raises:
        BadBackbone: when a module is not known here, or they are in another order.
    """
    listed = folder.json("modules.json") or []
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        raise BadBackbone(f"{folder.path / 'modules.json'} is no list of modules; bring the file of the model back")
    modules = [(str(m.get("type", "")).rpartition(".")[2], str(m.get("path", ""))) for m in listed]
    kinds = [kind for kind, _ in modules]
    unknown = sorted({kind for kind, path in modules if kind not in _ORDER or path == ".." or Path(path).name != path})
    if unknown:
        raise BadBackbone(
            f"{folder.name} has a module {', '.join(unknown)} after its network, which is not supported; name a model "
            f"of {', '.join(_ORDER[:-1])} and {_ORDER[-1]}"
        )
    singles = [kind for kind in kinds if kind != "Dense"]
    is_ordered = kinds == sorted(kinds, key=_ORDER.index) and len(set(singles)) == len(singles)
    if not is_ordered or ("Dense" in kinds and "Pooling" not in kinds):
        raise BadBackbone(
            f"{folder.name} has the modules {', '.join(kinds)}, which is not supported; name a model whose modules are "
            f"in the order {', '.join(_ORDER)}"
        )
    return modules


def _pool(folder: ModelFolder, file: str, prompts: tuple[str, str]) -> str:
    """Return the pooling that a file states, several joined by ``+`` in the library's order.

    Raises:
        WeightsNotFound: when the file is not there: another pooling would give other vectors.
        BadBackbone: when it leaves the prompt out.
    """
    if not folder.has(file):
        raise WeightsNotFound(
            f"{folder.name}: no {file} in {folder.path}, which says how its tokens are pooled; copy it there"
        )
    facts = folder.facts(file)
    mode = facts.get("pooling_mode")
    if mode is not None:
        names = [mode] if isinstance(mode, str) else list(mode)
        modes = [_NAMES.get(name, name) for name in names]
    else:
        modes = [name for key, name in _MODES.items() if facts.get(key)]
    if any(prompts) and facts.get("include_prompt") is False:
        raise BadBackbone(f"{folder.name} leaves its prompt out of the pooling, which is not supported")
    return "+".join(modes) or "mean"


def _prompts(facts: dict[str, Any]) -> tuple[str, str]:
    """Return the prompts of items and of queries."""
    stated = facts.get("prompts")
    prompts = {k: v for k, v in stated.items() if isinstance(v, str)} if isinstance(stated, dict) else {}
    default = prompts.get(str(facts.get("default_prompt_name")), "")
    item = next((prompts[name] for name in _ITEM_PROMPTS if name in prompts), default)
    query = next((prompts[name] for name in _QUERY_PROMPTS if name in prompts), default)
    return item, query
