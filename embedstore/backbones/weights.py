"""Weights: found on this machine first, read as data only, loaded strictly, and named by their digest."""

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

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")  # .pth.tar is an old habit of ImageNet training
PROBE_SECONDS = 5.0  # the hub client itself retries for 46 s without a network (measured, huggingface_hub 2.4)
MAX_HEADER_BYTES = 16 << 20  # bytes of a safetensors header: 100,000 tensors; a backbone has hundreds, rarely thousands
UNDIGESTED_SUFFIX = "num_batches_tracked"  # counts training steps; some formats drop it, and no vector depends on it


def digest(module: nn.Module) -> str:
    """``sha256:…`` over the names, dtypes, shapes and bytes of everything loaded.

    The same weights give the same digest whichever file format or cache they came from: half-precision files are
    digested as the float32 parameters they became.
    """
    sha = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        if name.rpartition(".")[2] == UNDIGESTED_SUFFIX:
            continue
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{sha.hexdigest()}"


def resolve_file(path: str) -> Path:
    """A weights file that is there and has a known type.

    Raises:
        WeightsNotFound: no such file.
        WeightsMismatch: a folder, a suffix that no loader reads, or a file that claims more than it holds.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise WeightsNotFound(f"no weights file {path}; give the path of a .safetensors or .pth file with --weights")
    if not file.is_file() or file.suffix.lower() not in SUFFIXES:
        raise WeightsMismatch(f"{path} is no weights file; give one of {', '.join(SUFFIXES)} with --weights")
    check_claimed_size(file)
    return file.resolve()


def check_claimed_size(file: Path) -> None:
    """Refuse a file that claims more than it holds, before a reader makes room for it.

    Raises:
        WeightsMismatch: a safetensors header longer than any network's, or an archive that unpacks to more than itself.
    """
    try:
        claim = _claim(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise unreadable_error(file, error) from error
    if claim:
        raise WeightsMismatch(f"cannot read weights from {file}: {claim}; save the state dict as .safetensors")


def _claim(file: Path) -> str:
    """What a file says of itself that cannot be true; "" where there is nothing."""
    if file.suffix.lower() == ".safetensors":
        with file.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
        return f"its header claims {length:,} bytes" if length > MAX_HEADER_BYTES else ""
    if not zipfile.is_zipfile(file):
        return ""
    with zipfile.ZipFile(file) as z:
        unpacked, size = sum(i.file_size for i in z.infolist()), file.stat().st_size
    return f"it unpacks to {unpacked:,} bytes from {size:,}" if unpacked > size else ""  # torch stores, never packs


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, through timm's reader; a pickle is read as data only and never run.

    Raises:
        WeightsMismatch: not a weights file, a damaged one, or one that would have to run code.
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
    """The error for a file that cannot be read as plain tensors."""
    why = one_line(error, 160)
    if "weights_only" in str(error) or "WeightsUnpickler" in str(error):
        why = "it holds Python objects beside tensors, and such code is never run"
    return WeightsMismatch(f"cannot read weights from {path}: {why}; save the state dict as .safetensors")


@dataclass
class LoadRecord:
    """What was seen of one ``load_state_dict`` on a network."""

    keys_by_module: dict[int, tuple[list[str], list[str]]] = field(default_factory=dict)

    def missing_and_unexpected(self, module: nn.Module) -> tuple[list[str], list[str]] | None:
        """``(missing, unexpected)`` parameter names of the load into ``module``, None if there was none."""
        return self.keys_by_module.get(id(module))


@contextmanager
def record_loading() -> Iterator[LoadRecord]:
    """Watch the loading inside libraries that build and fill a network in one call and only log what did not fit.

    Every network built inside, in this thread, reports the names that its ``load_state_dict`` missed.
    """
    loading = LoadRecord()
    thread = threading.get_ident()
    hooks: list[Any] = []
    watched: dict[int, nn.Module] = {}

    def note(module: nn.Module, keys: Any) -> None:
        loading.keys_by_module[id(module)] = (list(keys.missing_keys), list(keys.unexpected_keys))

    def watch(parent: nn.Module, _name: str, _child: nn.Module | None) -> None:
        if threading.get_ident() == thread and id(parent) not in watched:
            watched[id(parent)] = parent  # held, so that no id is used twice
            hooks.append(parent.register_load_state_dict_post_hook(note))  # type: ignore[no-untyped-call]

    handle = register_module_module_registration_hook(watch)
    try:
        yield loading
    finally:
        handle.remove()
        for hook in hooks:
            hook.remove()


def load_strict(module: nn.Module, state: dict[str, torch.Tensor], model: str, source: str) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        WeightsMismatch: a missing, superfluous or mis-shaped parameter.
    """
    try:
        keys = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise mismatch_error(model, source, error) from error
    check_keys(model, source, keys.missing_keys, keys.unexpected_keys)


def check_keys(model: str, source: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Refuse weights that leave a parameter random or were made for another network.

    Raises:
        WeightsMismatch: names a few of the parameters, and the cure.
    """
    if missing:
        raise WeightsMismatch(
            f"{source} lacks {len(missing)} parameters of {model}: {_few(missing)}; "
            "name the architecture that the file was made for (--backbone, --backbone-arg)"
        )
    if unexpected:
        raise WeightsMismatch(
            f"{source} holds {len(unexpected)} parameters that {model} lacks: {_few(unexpected)}; "
            "name the architecture that the file was made for (--backbone, --backbone-arg)"
        )


def mismatch_error(model: str, source: str, error: BaseException) -> WeightsMismatch:
    """The error for parameters of another shape, from torch's own message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("size mismatch", "Missing", "Unexpected"))] or lines[:1]
    more = f" and {len(told) - 1} more" if len(told) > 1 else ""
    return WeightsMismatch(
        f"{source} does not fit {model}: {one_line(ValueError(told[0] if told else error), 200)}{more}; "
        "name the architecture that the file was made for (--backbone, --backbone-arg)"
    )


def _few(names: Sequence[str], n: int = 3) -> str:
    """The first names of a list."""
    return ", ".join(names[:n]) + (", …" if len(names) > n else "")


def fetch_from_hub(repo: str, files: Sequence[str], model: str) -> Path:
    """A weights file of a hub repository: from the cache where it lies, else downloaded.

    Args:
        repo: ``owner/name``, with an optional ``@revision``.
        files: names to try, best first.
        what: the backbone, for messages.

    Raises:
        WeightsNotFound: not in the cache, and the hub is off or out of reach.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repo.partition("@")
    for file in files:
        cached = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    looked = f"{model}: weights are not here: looked for {' or '.join(files)} of {name} in {constants.HF_HUB_CACHE}"
    cure = "give a file with --weights FILE, or fill the cache on a machine with a network and copy it"
    if constants.HF_HUB_OFFLINE:
        raise WeightsNotFound(f"{looked}, and HF_HUB_OFFLINE is set; {cure}")
    if trouble := connection_problem(constants.ENDPOINT):
        raise WeightsNotFound(f"{looked}, and {constants.ENDPOINT} cannot be reached ({trouble}); {cure}")
    for file in files:
        try:
            return Path(hf_hub_download(name, file, revision=revision or None))
        except EntryNotFoundError:
            continue
        except Exception as error:  # gated, renamed, disk full, connection lost: the hub's own words say which
            raise WeightsNotFound(f"{looked}, and the hub refused: {one_line(error, 160)}; {cure}") from error
    raise WeightsNotFound(f"{looked}, and the repository has no such file; {cure}")


def fetch_from_url(url: str, folder: Path, model: str, fetch: Callable[[], Any]) -> Path:
    """A weights file of a plain address: from the library's cache folder, else fetched by the library.

    Raises:
        WeightsNotFound: not in the cache, and out of reach.
    """
    from huggingface_hub import constants

    file = folder / url.rpartition("/")[2]
    if file.is_file():
        return file
    looked = f"{model}: weights are not here: looked for {file}"
    cure = f"give a file with --weights FILE, or put {url} there"
    if constants.HF_HUB_OFFLINE:
        raise WeightsNotFound(f"{looked}, and HF_HUB_OFFLINE is set; {cure}")
    if trouble := connection_problem(url):
        raise WeightsNotFound(f"{looked}, and the address cannot be reached ({trouble}); {cure}")
    try:
        fetch()
    except Exception as error:  # urllib, checksum and disk errors alike
        raise WeightsNotFound(f"{looked}, and the download failed: {one_line(error, 160)}; {cure}") from error
    return file


def connection_problem(url: str) -> str:
    """Why an address does not answer within a few seconds; "" if it does. Proxies of the environment are used."""
    from huggingface_hub import get_session

    try:
        get_session().head(url, timeout=PROBE_SECONDS)
    except Exception as error:  # the client's own tree of errors differs between versions of the hub library
        return one_line(error, 100)
    return ""
