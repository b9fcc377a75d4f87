"""Weights files: find them on this machine first, read them as data only, load them strictly, digest them."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from embedstore.backbones.error_text import one_line
from embedstore.errors import WeightsMismatch, WeightsNotFound
from embedstore.space import RANDOM_PREFIX

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")  # .pth.tar is common in ImageNet training scripts
PROBE_SECONDS = 5.0  # the hub client itself retries for 46 s without a network (measured, huggingface_hub 2.4)
MAX_HEADER_BYTES = 16 << 20  # bytes of a safetensors header: 100,000 tensors; a backbone has hundreds, rarely thousands
UNDIGESTED_SUFFIX = "num_batches_tracked"  # counts training steps; some formats drop it, and no vector depends on it
NAME_THE_ARCHITECTURE = "name the architecture that the file was made for (--backbone, --backbone-arg)"


def digest(module: nn.Module, *, is_random: bool = False) -> str:
    """Return ``sha256:…`` over the names, dtypes, shapes and bytes of everything loaded.

    The same weights have the same digest in every file format: half-precision files are digested as the float32
    parameters they became.

    Args:
        module: the network.
        is_random: the weights were drawn at random; the digest says so.
    """
    sha = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        if name.rpartition(".")[2] == UNDIGESTED_SUFFIX:
            continue
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy())
    return f"{RANDOM_PREFIX if is_random else ''}sha256:{sha.hexdigest()}"


def resolve_file(path: str) -> Path:
    """Return the absolute path of a weights file that exists and has a known type.

    Raises:
        WeightsNotFound: when there is no such file.
        WeightsMismatch: when it is a folder, has a suffix that no loader reads, or claims more than it holds.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise WeightsNotFound(f"no weights file {path}; give the path of a .safetensors or .pth file with --weights")
    if not file.is_file() or file.suffix.lower() not in SUFFIXES:
        raise WeightsMismatch(f"{path} is not a weights file; give one of {', '.join(SUFFIXES)} with --weights")
    check_claimed_size(file)
    return file.resolve()


def check_claimed_size(file: Path) -> None:
    """Refuse a file that claims more than it holds, before a reader allocates memory for it.

    Raises:
        WeightsMismatch: when a safetensors header is longer than any network's, or an archive unpacks to more than its
            own size.
    """
    try:
        claim = _false_claim(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise unreadable_error(file, error) from error
    if claim:
        raise WeightsMismatch(f"cannot read weights from {file}: {claim}; save the state dict as .safetensors")


def _false_claim(file: Path) -> str:
    """Return what a file says about itself that cannot be true, or ""."""
    if file.suffix.lower() == ".safetensors":
        with file.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
        return f"its header claims {length:,} bytes" if length > MAX_HEADER_BYTES else ""
    if not zipfile.is_zipfile(file):
        return ""
    with zipfile.ZipFile(file) as z:
        unpacked, size = sum(i.file_size for i in z.infolist()), file.stat().st_size
    return f"it unpacks to {unpacked:,} bytes from {size:,}" if unpacked > size else ""  # torch never compresses


def read(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, through timm's reader; a pickle is read as data only and never run.

    Raises:
        WeightsMismatch: when the file is damaged, is not a weights file, or would have to run code.
    """
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # a damaged file fails in any of zipfile, pickle, struct, json, safetensors
        raise unreadable_error(path, error) from error
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsMismatch(f"{path} holds no table of tensors; save a state dict as .safetensors")
    return state


def unreadable_error(path: Path, error: BaseException) -> WeightsMismatch:
    """Return the error for a file that cannot be read as plain tensors."""
    reason = one_line(error, 160)
    if "weights_only" in str(error) or "WeightsUnpickler" in str(error):
        reason = "it holds Python objects besides tensors, and code in a weights file is never run"
    return WeightsMismatch(f"cannot read weights from {path}: {reason}; save the state dict as .safetensors")


@dataclass
class LoadRecord:
    """The missing and unexpected parameter names of every ``load_state_dict``, by network."""

    keys_by_module: dict[int, tuple[list[str], list[str]]] = field(default_factory=dict)

    def missing_and_unexpected(self, module: nn.Module) -> tuple[list[str], list[str]] | None:
        """Return ``(missing, unexpected)`` parameter names of the load into ``module``, None if there was none."""
        return self.keys_by_module.get(id(module))


@contextmanager
def record_loading() -> Iterator[LoadRecord]:
    """Observe libraries that build and fill a network in one call and only log what did not fit.

    The record holds what ``load_state_dict`` missed in every network that this thread builds inside the block.
    """
    record = LoadRecord()
    thread = threading.get_ident()
    hooks: list[Any] = []
    watched: dict[int, nn.Module] = {}

    def add_keys(module: nn.Module, keys: Any) -> None:
        record.keys_by_module[id(module)] = (list(keys.missing_keys), list(keys.unexpected_keys))

    def watch(parent: nn.Module, _name: str, _child: nn.Module | None) -> None:
        if threading.get_ident() == thread and id(parent) not in watched:
            watched[id(parent)] = parent  # a reference, so that no id is used twice
            hooks.append(parent.register_load_state_dict_post_hook(add_keys))  # type: ignore[no-untyped-call]

    handle = register_module_module_registration_hook(watch)
    try:
        yield record
    finally:
        handle.remove()
        for hook in hooks:
            hook.remove()


def load_strict(module: nn.Module, state: dict[str, torch.Tensor], model: str, source: str) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        WeightsMismatch: when a parameter is missing, unexpected or of another shape.
    """
    try:
        keys = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise mismatch_error(model, source, error) from error
    check_keys(model, source, keys.missing_keys, keys.unexpected_keys)


def check_keys(model: str, source: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Refuse weights that leave a parameter random or belong to another network.

    Raises:
        WeightsMismatch: when a parameter is missing or unexpected; the error names a few of them.
    """
    if missing:
        raise WeightsMismatch(
            f"{source} lacks {len(missing)} parameters of {model}: {_first_names(missing)}; {NAME_THE_ARCHITECTURE}"
        )
    if unexpected:
        raise WeightsMismatch(
            f"{source} holds {len(unexpected)} parameters that {model} lacks: {_first_names(unexpected)}; "
            f"{NAME_THE_ARCHITECTURE}"
        )


def mismatch_error(model: str, source: str, error: BaseException) -> WeightsMismatch:
    """Return the error for parameters of another shape, from torch's own message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("size mismatch", "Missing", "Unexpected"))] or lines[:1]
    more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    first = one_line(ValueError(reasons[0] if reasons else error), 200)
    return WeightsMismatch(f"{source} does not fit {model}: {first}{more}; {NAME_THE_ARCHITECTURE}")


def _first_names(names: Sequence[str], count: int = 3) -> str:
    """Return the first names of a list."""
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def fetch_from_hub(repo: str, files: Sequence[str], model: str) -> Path:
    """Return a weights file of a hub repository, from the cache or downloaded.

    Args:
        repo: ``owner/name``, with an optional ``@revision``.
        files: names to try, best first.
        model: the backbone, for messages.

    Raises:
        WeightsNotFound: when no file is in the cache, and the hub is switched off, unreachable or refuses.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repo.partition("@")
    for file in files:
        cached = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    not_found = _not_found(model, f"{' or '.join(files)} of {name} in {constants.HF_HUB_CACHE}")
    cure = "give a file with --weights FILE, or fill the cache on a machine with a network and copy it"
    _require_connection(constants.ENDPOINT, not_found, cure)
    for file in files:
        try:
            return Path(hf_hub_download(name, file, revision=revision or None))
        except EntryNotFoundError:
            continue
        except Exception as error:  # gated, renamed, disk full, connection lost: the hub's message says which
            raise WeightsNotFound(f"{not_found}, and the hub refused: {one_line(error, 160)}; {cure}") from error
    raise WeightsNotFound(f"{not_found}, and the repository has no such file; {cure}")


def fetch_folder_from_hub(repo: str, patterns: Sequence[str], required: str, model: str) -> Path:
    """Return the folder with some files of a hub repository, from the cache or downloaded.

    Args:
        repo: ``owner/name``, with an optional ``@revision``.
        patterns: the patterns of the files.
        required: the file without which the folder is of no use.
        model: the backbone, for messages.

    Raises:
        WeightsNotFound: when it is not in the cache, and the hub is switched off, unreachable or refuses.
    """
    from huggingface_hub import constants, snapshot_download, try_to_load_from_cache

    name, _, revision = repo.partition("@")
    arguments = {"revision": revision or None, "allow_patterns": list(patterns)}
    if isinstance(try_to_load_from_cache(name, required, revision=revision or None), str):
        return Path(snapshot_download(name, local_files_only=True, **arguments))
    not_found = _not_found(model, f"{required} of {name} in {constants.HF_HUB_CACHE}")
    cure = "name a folder that holds the model (hf//path/to/folder), or fill the cache on a machine with a network"
    _require_connection(constants.ENDPOINT, not_found, cure)
    try:
        return Path(snapshot_download(name, **arguments))
    except Exception as error:  # gated, renamed, disk full, connection lost: the hub's message says which
        raise WeightsNotFound(f"{not_found}, and the hub refused: {one_line(error, 160)}; {cure}") from error


def fetch_from_url(url: str, folder: Path, model: str, fetch: Callable[[], Any]) -> Path:
    """Return a weights file of a plain address, from the library's cache folder or downloaded by the library.

    Args:
        url: the address.
        folder: the library's cache folder.
        model: the backbone, for messages.
        fetch: the library's download.

    Raises:
        WeightsNotFound: when the file is not in the cache and cannot be downloaded.
    """
    file = folder / url.rpartition("/")[2]
    if file.is_file():
        return file
    not_found = _not_found(model, str(file))
    cure = f"give a file with --weights FILE, or save {url} there"
    _require_connection(url, not_found, cure)
    try:
        fetch()
    except Exception as error:  # urllib, checksum and disk errors alike
        raise WeightsNotFound(f"{not_found}, and the download failed: {one_line(error, 160)}; {cure}") from error
    return file


def _not_found(model: str, searched: str) -> str:
    """Return the first half of the messages for weights that are not on this machine."""
    return f"{model}: no weights on this machine: looked for {searched}"


def _require_connection(url: str, not_found: str, cure: str) -> None:
    """Check within a few seconds that an address answers. Proxies of the environment are used.

    Raises:
        WeightsNotFound: when the hub client is switched off or the address does not answer.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        raise WeightsNotFound(f"{not_found}, and HF_HUB_OFFLINE is set; {cure}")
    try:
        get_session().head(url, timeout=PROBE_SECONDS)
    except Exception as error:  # the client's own tree of errors differs between versions of the hub library
        raise WeightsNotFound(f"{not_found}, and {url} cannot be reached ({one_line(error, 100)}); {cure}") from error
